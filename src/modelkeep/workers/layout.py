"""Every process's plan: those of one service while the keep is open, a replica's at any time."""

from __future__ import annotations

import errno
import itertools
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from modelkeep.adapters.memory_file import sealed_bytes
from modelkeep.adapters.ray_settings import ray_environment
from modelkeep.adapters.reserve import FULL_NAME
from modelkeep.adapters.tls import openssl_environment
from modelkeep.config import Config
from modelkeep.core.errors import UnavailableError
from modelkeep.core.record import replaced
from modelkeep.flows.keep import OpenKeep
from modelkeep.flows.publish import Published
from modelkeep.flows.settings import LOCAL, RAY
from modelkeep.wiring import KeepFolder, Warn
from modelkeep.workers.control import End, control_pair
from modelkeep.workers.fleet import Place, Replica, Version
from modelkeep.workers.hosting import HostLink, bridge, places
from modelkeep.workers.plan import (
    TENSOR,
    TEXT,
    GatewayPlan,
    RayModel,
    RayPlan,
    RecorderPlan,
    ReplicaPlan,
    TextReplicaPlan,
    UpstreamPlan,
)
from modelkeep.workers.process import Child

BACKLOG = 1024
CORES_PER_GATEWAY = 4
GATEWAYS_MAX = 8
TOKEN_KEY_BYTES = 32
LIMITER_NAME = "limits.shared"
_TAKEN_HINT = "stop what listens there, or set another port in [serve] of modelkeep.toml"
_ELSEWHERE_HINT = (
    "host in [serve] of modelkeep.toml must be an address of this machine: 127.0.0.1 for callers "
    "here only, 0.0.0.0 for every address that it has"
)


@dataclass(slots=True)
class Layout:
    """Makes the plans of one service.

    Attributes:
        config: as it was read last.
        lifeline_fd: reading end of the pipe whose other end dies with the supervisor.
        link: what hosts of replicas are shown.
        warn: told where a policy permits fewer replicas than are configured.
        sockets: listening sockets beside the replicas', held for as long as the service runs.
        engine: where replicas of tensor models run: `local` or `ray`.
    """

    folder: KeepFolder
    config: Config
    lifeline_fd: int
    link: HostLink
    warn: Warn = lambda _: None
    sockets: list[socket.socket] = field(default_factory=list)
    engine: str = LOCAL
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def replica(self, version: Version) -> Replica:
        """One more replica of a version, not started yet."""
        name, listener = self._socket()
        number, version.made = version.made, version.made + 1
        fd, model = listener.fileno(), version.model
        if version.upstream is not None:
            return Replica(self._upstream(version, number, fd), name, listener)
        if self.is_bridged(version):
            return Replica(self._bridge(version, number, fd), name, listener)
        files = tuple((path, each.sealed()) for path, each in version.memory)
        fds = (*(each for _, each in files), fd, self.lifeline_fd)
        child = Child(
            name=_name(model, number),
            worker="text_replica" if model.kind == TEXT else "replica",
            plan=self._plan(version, files, listen_fd=fd, lifeline_fd=self.lifeline_fd),
            fds=fds,
        )
        return Replica(child, name, listener)

    def remote(self, version: Version, place: Place) -> Replica:
        """One more replica of a version on another host, not started yet."""
        name, listener = self._socket()
        files = tuple((path, -1) for path, _ in version.memory)
        child = bridge(
            version,
            place,
            link=self.link,
            plan=self._plan(version, files, listen_fd=-1, lifeline_fd=-1),
            listen_fd=listener.fileno(),
            lifeline_fd=self.lifeline_fd,
        )
        return Replica(child, name, listener, place)

    def places(self, version: Version, others: int) -> tuple[Place, ...]:
        """Where replicas of a version ought to run beside this machine.

        Args:
            others: replicas of it here, and those on their way out, which count for its policy.
        """
        if version.upstream is not None or self.is_bridged(version):
            return ()
        found, most = (
            places(self.config.hosts, version.model.name),
            version.model.policy.replicas_max,
        )
        return found[: max(most - others, 0)] if most else found

    def _plan(
        self,
        version: Version,
        files: tuple[tuple[str, int], ...],
        *,
        listen_fd: int,
        lifeline_fd: int,
    ) -> ReplicaPlan | TextReplicaPlan:
        """What a replica is told.

        Args:
            files: name in the model's folder, and a sealed memory file, of each.
        """
        model, serve = version.model, self.config.serve
        if model.kind == TEXT:
            return TextReplicaPlan(
                model=model.name,
                version=model.version,
                files=files,
                listen_fd=listen_fd,
                lifeline_fd=lifeline_fd,
                threads=serve.threads,
                streams_max=serve.streams_max,
                context_max=serve.context_max,
            )
        return ReplicaPlan(
            model=model.name,
            version=model.version,
            schema=model.schema,
            model_fd=files[0][1],
            listen_fd=listen_fd,
            lifeline_fd=lifeline_fd,
            batchable=model.is_batchable,
            batch_rows_max=serve.batch_rows_max,
            threads=serve.threads,
        )

    def _upstream(self, version: Version, number: int, listen_fd: int) -> Child:
        settings = version.upstream
        assert settings is not None
        secret_fd, ca_fd = version.fds
        plan = UpstreamPlan(
            name=settings.name,
            url=settings.url,
            model=settings.model or settings.name,
            secret_fd=secret_fd,
            ca_fd=ca_fd,
            listen_fd=listen_fd,
            lifeline_fd=self.lifeline_fd,
            settings=settings,
        )
        fds = tuple(fd for fd in (secret_fd, ca_fd) if fd >= 0)
        name = f"upstream-{settings.name}-{number}"
        fds = (*fds, listen_fd, self.lifeline_fd)
        return Child(name=name, worker="upstream", plan=plan, fds=fds)

    def is_bridged(self, version: Version) -> bool:
        """Whether its replicas run in a Ray cluster, behind one process here."""
        return self.engine == RAY and version.model.kind == TENSOR and version.upstream is None

    def is_scaled(self, version: Version) -> bool:
        """Whether its replicas here become more and fewer with its calls."""
        is_fixed = version.upstream is not None or self.is_bridged(version)
        return not is_fixed and self.config.serve.replicas > 0

    def _bridge(self, version: Version, number: int, listen_fd: int) -> Child:
        model, serve, fd = version.model, self.config.serve, version.memory[0][1].sealed()
        plan = RayPlan(
            name=f"modelkeep-{self.config.keep_id}-{model.name}-{model.version}",
            model=RayModel(
                model=model.name,
                version=model.version,
                schema=model.schema,
                size_bytes=os.fstat(fd).st_size,
                batchable=model.is_batchable,
                batch_rows_max=serve.batch_rows_max,
                threads=serve.threads,
            ),
            model_fd=fd,
            listen_fd=listen_fd,
            lifeline_fd=self.lifeline_fd,
            replicas=self.replica_count(model),
            call_timeout_s=self.config.gate.call_timeout_s,
            settings=self.config.ray,
        )
        return Child(
            name=f"ray-{model.name}-{model.version}-{number}",
            worker="ray_bridge",
            plan=plan,
            fds=(fd, listen_fd, self.lifeline_fd),
            environment=ray_environment(self.config.ray),
        )

    def staffed(self, version: Version) -> Version:
        """The version with as many replicas as it begins with."""
        if version.upstream is not None or self.is_bridged(version):
            version.replicas = [self.replica(version)]
            return version
        wanted = self.replica_count(version.model)
        found = self.places(version, wanted)
        if not found and not wanted:
            wanted = 1  # nobody else would answer for it
        version.replicas = [self.replica(version) for _ in range(wanted)]
        version.elsewhere = [self.remote(version, each) for each in found]
        return version

    def replica_count(self, model: Published) -> int:
        """As many as are configured, or as few as the model's policy permits."""
        wanted, most = self.config.serve.replicas, model.policy.replicas_max
        if not most or wanted <= most:
            return wanted
        self.warn(
            f"{model.name}:{model.version} gets {most} of {wanted} replicas: its policy permits no "
            "more"
        )
        return most

    def recorder(self, keep: OpenKeep, sign_fd: int) -> Child:
        """The ledger's sequencer.

        Args:
            sign_fd: the recorder's end of the socket on which the keyholder signs.
        """
        folder, config = self.folder, self.config
        listener = self._unix_listener("recorder.sock")
        self.sockets.append(listener)
        plan = RecorderPlan(
            listen_fd=listener.fileno(),
            lifeline_fd=self.lifeline_fd,
            sign_fd=sign_fd,
            body_key_fd=sealed_bytes("ledger-body", keep.keys.ledger_body.reveal()),
            origin=keep.origin,
            wal_folder=str(folder.wal_folder(keep.epochs[-1]).resolve()),
            journals_folder=str(folder.journals_folder.resolve()),
            stores=tuple(
                replaced(store, path=str(folder.store_path(store).resolve()) * (not store.url))
                for store in config.stores
            ),
            settings=config.ledger,
            keep_id=keep.keep_id,
        )
        fds = (plan.listen_fd, self.lifeline_fd, plan.sign_fd, plan.body_key_fd)
        return Child(name="recorder", worker="recorder", plan=plan, fds=fds)

    def gateways(
        self, keep: OpenKeep, listener: socket.socket, *, chain: bytes, client_ca: bytes
    ) -> list[tuple[Child, End]]:
        """The processes that clients reach, each with our end of its control channel.

        Args:
            listener: where clients connect; all of them accept from it.
            chain: PEM of the certificate chain with its private key.
            client_ca: PEM of whose client certificates are verified.
        """
        folder, config, serve = self.folder, self.config, self.config.serve
        self.sockets.append(listener)
        if serve.grpc_port:
            self.sockets.append(reserved_port(serve.host, serve.grpc_port))
        epoch = keep.epochs[-1]
        shared = {
            "tls_fd": sealed_bytes("tls", chain),
            "commitment_key_fd": sealed_bytes("commitments", keep.keys.commitments.reveal()),
            "token_key_fd": sealed_bytes("token-key", os.urandom(TOKEN_KEY_BYTES)),
            "client_ca_fd": sealed_bytes("client-ca", client_ca),
            "listen_fd": listener.fileno(),
            "lifeline_fd": self.lifeline_fd,
        }
        environment, openssl_fd = openssl_environment()
        made = []
        count = gateway_count(serve.gateways)
        for number in range(count):
            ours, control_fd = control_pair()
            journal = f"gateway-{epoch.number}-{number}"  # a recovered keep numbers receipts anew
            plan = GatewayPlan(
                **shared,
                run_folder=str(folder.run_folder.resolve()),
                state_path=str(folder.state_path.resolve()),
                journal_folder=str((folder.journals_folder / journal).resolve()),
                journal_name=journal,
                full_path=str(folder.wal_folder(epoch).resolve() / FULL_NAME),
                settings=config.gate,
                models=(),
                state=config.state,
                origin=keep.origin,
                number=number,
                gateways=count,
                control_fd=control_fd,
                identity=config.identity,
                limits=config.limits,
                limiter=config.limiter,
                queue=config.queue,
                pool=config.pool,
                limiter_path=str(folder.run_folder.resolve() / LIMITER_NAME),
                grpc_host=serve.host,
                grpc_port=serve.grpc_port,
            )
            fds = (*shared.values(), control_fd, openssl_fd)
            child = Child(
                name=f"gateway-{number}",
                worker="gateway",
                plan=plan,
                fds=fds,
                environment=environment,
            )
            made.append((child, ours))
        return made

    def _socket(self) -> tuple[str, socket.socket]:
        """One more socket of the run folder."""
        name = f"{next(self._numbers)}.sock"
        return name, self._unix_listener(name)

    def _unix_listener(self, name: str) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with self.folder.short_run_path() as short:
            path = Path(short, name)
            path.unlink(missing_ok=True)
            listener.bind(str(path))
        listener.listen(BACKLOG)
        return listener


def gateway_count(configured: int) -> int:
    """How many gateways: as many as are configured, else one for each four cores."""
    cores = len(os.sched_getaffinity(0))
    return configured or min(max(cores // CORES_PER_GATEWAY, 1), GATEWAYS_MAX)


def _name(model: Published, number: int) -> str:
    return f"replica-{model.name}-{model.version}-{number}"


def tcp_listener(host: str, port: int) -> socket.socket:
    """Listen for clients.

    Raises:
        UnavailableError: `serve.port`.
    """
    listener = _bound(host, port, socket.SO_REUSEADDR)
    listener.listen(BACKLOG)
    return listener


def reserved_port(host: str, port: int) -> socket.socket:
    """Hold a port that the gateways listen on by themselves: bound, never listening.

    Raises:
        UnavailableError: `serve.port`.
    """
    return _bound(host, port, socket.SO_REUSEPORT)


def _bound(host: str, port: int, option: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, option, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        is_elsewhere = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
        raise UnavailableError(
            "serve.port",
            f"cannot listen on {host} port {port}: {error.strerror}",
            hint=_ELSEWHERE_HINT if is_elsewhere else _TAKEN_HINT,
        ) from error
    return bound
