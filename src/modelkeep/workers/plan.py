"""What the supervisor hands to a process it starts: one record in a memory file, no secret in it.

A process is started as `python -m modelkeep.workers.<name> --plan-fd N`. The plan names further
inherited descriptors by number. Secrets travel only in memory files of their own (`*_fd`), never
in argv, environment or the plan. Every process watches its lifeline: when the supervisor dies,
the other end closes, `lifeline_fd` becomes readable, and the process ends itself.
"""

from __future__ import annotations

import os

from modelkeep.adapters.ray_settings import RaySettings
from modelkeep.adapters.store_settings import StoreSettings
from modelkeep.adapters.upstream_settings import UpstreamSettings
from modelkeep.core.artifact import Canary, Schema
from modelkeep.core.policy import ANYTHING, Policy
from modelkeep.core.record import Record, from_json
from modelkeep.core.rows import DEFAULT_DOMAIN
from modelkeep.flows import publish
from modelkeep.flows.settings import StateSettings
from modelkeep.gate.identity_settings import IdentitySettings
from modelkeep.gate.limit_settings import LimiterSettings, LimitSettings, QueueSettings
from modelkeep.gate.pool_settings import PoolSettings
from modelkeep.gate.rule_settings import InputRule, OutputRule
from modelkeep.gate.settings import GateSettings
from modelkeep.ledger.settings import LedgerSettings

PLAN_BYTES_MAX = 64 * 1024 * 1024
# Kinds of models: tensors in and out with a schema, a language model here, one of others.
TENSOR, TEXT, UPSTREAM = publish.TENSOR, publish.TEXT, publish.UPSTREAM


class ReplicaPlan(Record, frozen=True):
    """One model in one process with an empty environment.

    Attributes:
        model_fd: sealed memory file with the model's bytes.
        listen_fd: listening Unix stream socket; the supervisor keeps it open across restarts.
        batchable: every input and output has a free first dimension, so calls may be joined.
        shares: whether memory is shared with gateways, which have to be on this machine.
    """

    model: str
    version: int
    schema: Schema
    model_fd: int
    listen_fd: int
    lifeline_fd: int
    batchable: bool
    batch_rows_max: int
    threads: int
    shares: bool = True


class TextReplicaPlan(Record, frozen=True):
    """One language model in one process with an empty environment.

    Attributes:
        files: name in the model's folder, and a sealed memory file with the bytes, of each file.
        listen_fd: listening Unix stream socket; the supervisor keeps it open across restarts.
        streams_max: answers that are generated at once; further calls wait.
        context_max: tokens of prompt and answer together, at most; the model's own bound holds too.
    """

    model: str
    version: int
    files: tuple[tuple[str, int], ...]
    listen_fd: int
    lifeline_fd: int
    threads: int
    streams_max: int
    context_max: int


class UpstreamPlan(Record, frozen=True):
    """One server of others, spoken to by a process that holds its key and no model.

    Attributes:
        name: the model's name here.
        model: its name there.
        secret_fd: sealed memory file with the key, -1 for none.
        listen_fd: listening Unix stream socket; the supervisor keeps it open across restarts.
        ca_fd: sealed memory file with the authorities (PEM) to trust there, -1 for the system's.
        settings: the table `[[upstreams]]` as it is written.
    """

    name: str
    url: str
    model: str
    secret_fd: int
    listen_fd: int
    lifeline_fd: int
    settings: UpstreamSettings
    ca_fd: int = -1
    version: int = 1


class RayModel(Record, frozen=True):
    """What an actor must know of its model; nothing of it is secret.

    Attributes:
        size_bytes: of the model's file.
        batchable: every input and output has a free first dimension, so calls may be joined.
    """

    model: str
    version: int
    schema: Schema
    size_bytes: int
    batchable: bool
    batch_rows_max: int
    threads: int


class RayPlan(Record, frozen=True):
    """One version whose replicas run in a Ray cluster, behind a process of ours.

    Attributes:
        name: of its deployment in the cluster.
        model_fd: sealed memory file with the model's bytes.
        listen_fd: listening Unix stream socket; the supervisor keeps it open across restarts.
        replicas: in the cluster.
        call_timeout_s: a call is asked again for so long.
    """

    name: str
    model: RayModel
    model_fd: int
    listen_fd: int
    lifeline_fd: int
    replicas: int
    call_timeout_s: float
    settings: RaySettings = RaySettings()


class HostBridgePlan(Record, frozen=True):
    """One replica that runs on another host, behind a process of ours.

    Attributes:
        host: its name, which its certificate must have.
        link_fd: memory file with the certificate that we show it and its private key, PEM.
        authority_fd: memory file with the keep's certificate authority, PEM.
        listen_fd: listening Unix stream socket; the supervisor keeps it open across restarts.
        files: name in the model's folder, and a sealed memory file with the bytes, of each file.
        tensor: what the replica there is to do, without descriptors; None for a language model's.
        canary: a call whose right answer the model's owner knows.
    """

    host: str
    address: str
    port: int
    link_fd: int
    authority_fd: int
    listen_fd: int
    lifeline_fd: int
    files: tuple[tuple[str, int], ...]
    tensor: ReplicaPlan | None = None
    text: TextReplicaPlan | None = None
    canary: Canary | None = None


class ServedModel(Record, frozen=True):
    """A model that the gateway answers for.

    Attributes:
        sockets: names of the replicas' sockets in the run folder.
        is_default: whether a call that names no version means this one.
        domain: whose keys protect it; calls are refused once they are revoked.
        policy: until when calls are answered, and how much of an answer leaves.
        kind: `tensor`, `text` or `upstream`; of the last two the schema is empty.
        inputs: what the operator says of its inputs beyond the schema.
        outputs: how much of its answers leaves, and to whom.
    """

    name: str
    version: int
    schema: Schema
    sockets: tuple[str, ...]
    is_default: bool
    domain: str = DEFAULT_DOMAIN
    policy: Policy = ANYTHING
    kind: str = TENSOR
    inputs: tuple[InputRule, ...] = ()
    outputs: tuple[OutputRule, ...] = ()


class GatewayPlan(Record, frozen=True):
    """One gateway process.

    Attributes:
        listen_fd: listening TCP socket; the supervisor keeps it open across restarts, and all
            gateways accept from it.
        tls_fd: memory file with the certificate chain and its private key, PEM.
        commitment_key_fd: memory file with the 32 bytes that key the records' commitments.
        run_folder: where the replicas' sockets are.
        state_path: the State database, read-only here.
        state: where State lies instead, if its `url` is not empty.
        origin: of the log whose projection State is.
        journal_folder: this gateway's own call journal.
        journal_name: names the journal in receipts and in the ledger.
        full_path: while this file is there, the disk is full and no call is recorded.
        models: what it answers for at the start; with a `control_fd` the supervisor's table counts.
        number: 0, 1, … of the gateways of one service.
        gateways: how many there are; with several, the metrics of one are those of all.
        control_fd: socket to the supervisor, see `workers.control`; -1 for none.
        client_ca_fd: memory file with the authorities (PEM) of client certificates, -1 for none.
        token_key_fd: memory file with 32 bytes that sign the tokens of `/v1/token`, the same for
            all gateways and made at each start of the service; -1 for none.
        limiter_path: file in which the gateways share what is used of each limit; empty for none.
        identity: who may call beside the holders of API keys.
        limits: what callers may use up; `limiter` says where it is counted, `queue` who waits.
        pool: how replicas are chosen, watched and given up.
        grpc_host: where gRPC listens.
        grpc_port: 0 for no gRPC; the supervisor reserves it, each gateway binds it by itself with
            SO_REUSEPORT.
    """

    listen_fd: int
    lifeline_fd: int
    tls_fd: int
    commitment_key_fd: int
    run_folder: str
    state_path: str
    journal_folder: str
    journal_name: str
    full_path: str
    settings: GateSettings
    models: tuple[ServedModel, ...]
    state: StateSettings = StateSettings()
    origin: str = ""
    number: int = 0
    gateways: int = 1
    control_fd: int = -1
    client_ca_fd: int = -1
    token_key_fd: int = -1
    limiter_path: str = ""
    identity: IdentitySettings = IdentitySettings()
    limits: tuple[LimitSettings, ...] = ()
    limiter: LimiterSettings = LimiterSettings()
    queue: QueueSettings = QueueSettings()
    pool: PoolSettings = PoolSettings()
    grpc_host: str = ""
    grpc_port: int = 0


class RecorderPlan(Record, frozen=True):
    """The ledger's sequencer.

    Attributes:
        listen_fd: listening Unix stream socket for whoever records.
        sign_fd: socket on which the keyholder signs checkpoints.
        body_key_fd: memory file with the 32-byte key that encrypts entry bodies.
        wal_folder: the write-ahead journal of entries.
        journals_folder: one call journal per gateway, a folder each.
        stores: the first is authoritative; the others get every checkpoint within a second;
            their paths are absolute.
        keep_id: whose stores they must be.
    """

    listen_fd: int
    lifeline_fd: int
    sign_fd: int
    body_key_fd: int
    origin: str
    wal_folder: str
    journals_folder: str
    stores: tuple[StoreSettings, ...]
    settings: LedgerSettings
    keep_id: str = ""


def read_fd(fd: int) -> bytes:
    """All bytes of a memory file, from its beginning, without moving its offset."""
    return os.pread(fd, min(os.fstat(fd).st_size, PLAN_BYTES_MAX), 0)


def replica_plan(fd: int) -> ReplicaPlan:
    """Read a replica's plan."""
    return from_json(ReplicaPlan, read_fd(fd), what="the replica's plan")


def gateway_plan(fd: int) -> GatewayPlan:
    """Read a gateway's plan."""
    return from_json(GatewayPlan, read_fd(fd), what="the gateway's plan")


def recorder_plan(fd: int) -> RecorderPlan:
    """Read the recorder's plan."""
    return from_json(RecorderPlan, read_fd(fd), what="the recorder's plan")


def text_replica_plan(fd: int) -> TextReplicaPlan:
    """Read the plan of a language model's replica."""
    return from_json(TextReplicaPlan, read_fd(fd), what="the text replica's plan")


def ray_plan(fd: int) -> RayPlan:
    """Read the plan of a bridge to a Ray cluster."""
    return from_json(RayPlan, read_fd(fd), what="the plan of a bridge to Ray")


def host_bridge_plan(fd: int) -> HostBridgePlan:
    """Read the plan of who speaks to a replica on another host."""
    return from_json(HostBridgePlan, read_fd(fd), what="the plan of a replica on another host")


def upstream_plan(fd: int) -> UpstreamPlan:
    """Read the plan of who speaks to an upstream server."""
    return from_json(UpstreamPlan, read_fd(fd), what="the upstream's plan")
