"""Every process's plan, laid out while the keep is open; afterwards only the plans are left."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from pathlib import Path

from modelkeep.adapters.memory_file import MemoryFile, sealed_bytes
from modelkeep.adapters.reserve import FULL_NAME
from modelkeep.config import Config
from modelkeep.core.errors import UnavailableError
from modelkeep.core.record import replaced
from modelkeep.crypto.certificates import server_certificate
from modelkeep.flows.keep import OpenKeep
from modelkeep.flows.publish import Published
from modelkeep.wiring import KeepFolder, Warn
from modelkeep.workers.plan import (
    GatewayPlan,
    RecorderPlan,
    ReplicaPlan,
    ServedModel,
)
from modelkeep.workers.process import Child

BACKLOG = 1024


@dataclass(slots=True)
class Layout:
    """Makes the plans of one service.

    Attributes:
        listener: where clients connect.
        lifeline_fd: reading end of the pipe whose other end dies with the supervisor.
        sign_fd: the recorder's end of the socket on which the keyholder signs.
        sockets: every listening socket; the supervisor holds them for as long as it runs.
        warn: told where a policy permits fewer replicas than are configured.
    """

    folder: KeepFolder
    keep: OpenKeep
    config: Config
    listener: socket.socket
    lifeline_fd: int
    sign_fd: int
    sockets: list[socket.socket] = field(default_factory=list)
    warn: Warn = lambda _: None

    def replicas(
        self, models: list[tuple[Published, MemoryFile]]
    ) -> tuple[list[Child], tuple[ServedModel, ...]]:
        """The replicas of every model, and what the gateway must know of them."""
        serve = self.config.serve
        children: list[Child] = []
        served: list[ServedModel] = []
        for model, memory in models:
            model_fd = memory.sealed()
            names = []
            for number in range(self._replica_count(model)):
                names.append(f"{len(children)}.sock")
                plan = ReplicaPlan(
                    model=model.name,
                    version=model.version,
                    schema=model.schema,
                    model_fd=model_fd,
                    listen_fd=self._unix_listener(names[-1]),
                    lifeline_fd=self.lifeline_fd,
                    batchable=model.is_batchable,
                    batch_rows_max=serve.batch_rows_max,
                    threads=serve.threads,
                )
                name = f"replica-{model.name}-{model.version}-{number}"
                fds = (model_fd, plan.listen_fd, self.lifeline_fd)
                children.append(Child(name=name, worker="replica", plan=plan, fds=fds))
            served.append(
                ServedModel(
                    name=model.name,
                    version=model.version,
                    schema=model.schema,
                    domain=model.domain,
                    sockets=tuple(names),
                    is_default=model.is_default,
                    policy=model.policy,
                )
            )
        return children, tuple(served)

    def _replica_count(self, model: Published) -> int:
        """As many as are configured, or as few as the model's policy permits."""
        wanted, most = self.config.serve.replicas, model.policy.replicas_max
        if not most or wanted <= most:
            return wanted
        self.warn(
            f"{model.name}:{model.version} gets {most} of {wanted} replicas: its policy permits no "
            "more"
        )
        return most

    def recorder(self) -> Child:
        """The ledger's sequencer."""
        folder, keep, config = self.folder, self.keep, self.config
        plan = RecorderPlan(
            listen_fd=self._unix_listener("recorder.sock"),
            lifeline_fd=self.lifeline_fd,
            sign_fd=self.sign_fd,
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

    def gateway(self, served: tuple[ServedModel, ...]) -> Child:
        """The one process that clients reach."""
        folder, keep, config = self.folder, self.keep, self.config
        own = (config.serve.host, "localhost", "127.0.0.1", "::1")
        certificate = server_certificate(
            keep.authority,
            keep_id=keep.keep_id,
            hosts=tuple(dict.fromkeys((*own, *config.serve.hostnames))),
            now_ns=keep.clock.now_ns(),
        )
        journal = f"gateway-{keep.epochs[-1].number}-0"  # a recovered keep numbers receipts anew
        self.sockets.append(self.listener)
        plan = GatewayPlan(
            listen_fd=self.listener.fileno(),
            lifeline_fd=self.lifeline_fd,
            tls_fd=sealed_bytes("tls", certificate.reveal()),
            commitment_key_fd=sealed_bytes("commitments", keep.keys.commitments.reveal()),
            run_folder=str(folder.run_folder.resolve()),
            state_path=str(folder.state_path.resolve()),
            journal_folder=str((folder.journals_folder / journal).resolve()),
            journal_name=journal,
            full_path=str(folder.wal_folder(keep.epochs[-1]).resolve() / FULL_NAME),
            settings=config.gate,
            models=served,
            state=config.state,
            origin=keep.origin,
        )
        fds = (plan.listen_fd, self.lifeline_fd, plan.tls_fd, plan.commitment_key_fd)
        return Child(name="gateway-0", worker="gateway", plan=plan, fds=fds)

    def _unix_listener(self, name: str) -> int:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with self.folder.short_run_path() as short:
            path = Path(short, name)
            path.unlink(missing_ok=True)
            listener.bind(str(path))
        listener.listen(BACKLOG)
        self.sockets.append(listener)
        return listener.fileno()


def tcp_listener(host: str, port: int) -> socket.socket:
    """Listen for clients.

    Raises:
        UnavailableError: `serve.port`.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise UnavailableError(
            "serve.port",
            f"cannot listen on {host} port {port}: {error.strerror}",
            hint="stop what listens there, or set another port in [serve] of modelkeep.toml",
        ) from error
    listener.listen(BACKLOG)
    return listener
