"""What the supervisor hands to a process it starts: one record in a memory file, no secret in it.

A process is started as `python -m modelkeep.workers.<name> --plan-fd N`. The plan names further
inherited descriptors by number. Secrets travel only in memory files of their own (`*_fd`), never
in argv, environment or the plan. Every process watches its lifeline: when the supervisor dies,
the other end closes, `lifeline_fd` becomes readable, and the process ends itself.
"""

from __future__ import annotations

import os

from modelkeep.adapters.store_settings import StoreSettings
from modelkeep.core.artifact import Schema
from modelkeep.core.policy import ANYTHING, Policy
from modelkeep.core.record import Record, from_json
from modelkeep.core.rows import DEFAULT_DOMAIN
from modelkeep.flows.settings import StateSettings
from modelkeep.gate.settings import GateSettings
from modelkeep.ledger.settings import LedgerSettings

PLAN_BYTES_MAX = 64 * 1024 * 1024


class ReplicaPlan(Record, frozen=True):
    """One model in one process with an empty environment.

    Attributes:
        model_fd: sealed memory file with the model's bytes.
        listen_fd: listening Unix stream socket; the supervisor keeps it open across restarts.
        batchable: every input and output has a free first dimension, so calls may be joined.
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


class ServedModel(Record, frozen=True):
    """A model that the gateway answers for.

    Attributes:
        sockets: names of the replicas' sockets in the run folder.
        is_default: whether a call that names no version means this one.
        domain: whose keys protect it; calls are refused once they are revoked.
        policy: until when calls are answered, and how much of an answer leaves.
    """

    name: str
    version: int
    schema: Schema
    sockets: tuple[str, ...]
    is_default: bool
    domain: str = DEFAULT_DOMAIN
    policy: Policy = ANYTHING


class GatewayPlan(Record, frozen=True):
    """One gateway process.

    Attributes:
        listen_fd: listening TCP socket; the supervisor keeps it open across restarts.
        tls_fd: memory file with the certificate chain and its private key, PEM.
        commitment_key_fd: memory file with the 32 bytes that key the records' commitments.
        run_folder: where the replicas' sockets are.
        state_path: the State database, read-only here.
        state: where State lies instead, if its `url` is not empty.
        origin: of the log whose projection State is.
        journal_folder: this gateway's own call journal.
        journal_name: names the journal in receipts and in the ledger.
        full_path: while this file is there, the disk is full and no call is recorded.
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
