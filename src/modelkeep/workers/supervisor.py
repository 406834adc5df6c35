"""The supervisor: opens the keep, hands sealed memory to the service's processes, keeps them up.

The root is seen by the keyholder only, which the supervisor starts first. What the supervisor
itself learns (the keys of domains, the keep's identity) it drops before the first client is
served: what the others need lies in sealed memory files by then. It holds every listening socket,
so a process that dies leaves its queue of connections to its successor. All other processes hold
the reading end of a lifeline: when the supervisor dies, however it dies, they end, and the same
command starts the service again. A supervisor that was itself started by a process that should
not be outlived gets such a lifeline from it.

`python -m modelkeep.workers.supervisor --keep FOLDER [--key-source REF] [--passphrase-fd N]
[--lifeline-fd N] [--json]`
"""

from __future__ import annotations

import argparse
import os
import resource
import select
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from modelkeep.adapters.checkpoint_signer import signing_pair
from modelkeep.adapters.keyholder_process import ProcessKeyholder
from modelkeep.adapters.locks import PREDECESSOR_WAIT_S, held
from modelkeep.adapters.memory_file import MemoryFile
from modelkeep.adapters.recorder_client import RecorderClient
from modelkeep.core.entry import Entry, Fact
from modelkeep.core.errors import KeepError, UnavailableError, UsageError
from modelkeep.core.limits import PASSPHRASE_BYTES_MAX
from modelkeep.core.record import to_json
from modelkeep.crypto.secret import Secret
from modelkeep.flows.keep import record
from modelkeep.flows.publish import Published, chosen, defaults, published
from modelkeep.opening import open_keep
from modelkeep.ports.keyholder import Means
from modelkeep.sdk.client import is_ready
from modelkeep.sdk.preflight import ready_to_serve
from modelkeep.wiring import (
    KeepFolder,
    open_state_readonly,
    process_keyholder,
    read_config,
    system_clock,
    write_file,
)
from modelkeep.workers.layout import Layout, tcp_listener
from modelkeep.workers.process import Child, stopped
from modelkeep.workers.shredding import Shredder

POLL_S = 0.02
READY_TIMEOUT_S = 60.0
GRACE_S = 15.0
# Facts that wait for a recorder that is down: one process restarting for a minute makes 40.
UNTOLD_MAX = 1000
# A recorder that hangs must not hold up the restart of others for long.
TELL_S_MAX = 2.0
NOTICE_RETRY_S = 2.0

# Descriptors one of which becomes readable when the service is to end.
Stop = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Service:
    """Everything that the supervisor keeps up.

    Attributes:
        children: in the order in which they start; they stop in the reverse order.
        sockets: listening sockets, held for as long as the service runs.
    """

    url: str
    models: tuple[Published, ...]
    children: tuple[Child, ...]
    sockets: tuple[socket.socket, ...]
    lifeline: int
    keyholder: ProcessKeyholder
    shredder: Shredder


@dataclass(slots=True)
class Notice:
    """What is told of the service in a file of its run folder; a full disk only delays it."""

    service: Service
    folder: KeepFolder
    is_current: bool = False
    not_before_s: float = 0.0

    def written_if_due(self) -> None:
        """Write the file anew if it is outdated; after a failure not at once again."""
        if self.is_current or time.monotonic() < self.not_before_s:
            return
        raw = to_json(_facts(self.service))
        try:
            write_file(self.folder.world.disk, self.folder.service_file, raw)
        except KeepError as error:
            _warn(str(error))
            self.not_before_s = time.monotonic() + NOTICE_RETRY_S
            return
        self.is_current = True


def main(arguments: list[str] | None = None) -> int:
    """Run the service until SIGTERM or SIGINT; the exit status is that of the error if any."""
    parser = argparse.ArgumentParser(prog="modelkeep serve")
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--key-source", default="")
    parser.add_argument("--passphrase-fd", type=int, default=-1)
    parser.add_argument("--lifeline-fd", type=int, default=-1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    stop = _stop_requested(options.lifeline_fd)
    try:
        means = _means(options.key_source, options.passphrase_fd)
        _serve(KeepFolder(options.keep), means, stop, as_json=options.json)
    except KeepError as error:
        sys.stderr.write(f"modelkeep: error: {error}\n")
        if error.hint:
            sys.stderr.write(f"modelkeep: hint: {error.hint}\n")
        if options.json:
            sys.stderr.write(to_json(error.as_facts()).decode() + "\n")
        return error.exit_status
    return 0


def _means(source: str, passphrase_fd: int) -> Means:
    if passphrase_fd < 0:
        return Means(source=source)
    with os.fdopen(passphrase_fd, "rb") as stream:
        passphrase = Secret(stream.read(PASSPHRASE_BYTES_MAX + 2).rstrip(b"\r\n"))
    if len(passphrase) > PASSPHRASE_BYTES_MAX:
        raise UsageError("passphrase.length", "the passphrase is too long")
    return Means(source=source, passphrase=passphrase)


def _serve(folder: KeepFolder, means: Means, stop: Stop, *, as_json: bool) -> None:
    folder.run_folder_ready()
    with held(folder.serve_lock, wait_s=2.0, what="this keep is being served already"):
        _await_predecessor(folder)
        service = _prepared(folder, means)
        del means
        with held(folder.ledger_lock, wait_s=30.0, what="another command writes the ledger"):
            try:
                for child in service.children:
                    child.start()
                _await_ready(service, folder, stop)
                notice = Notice(service, folder)
                notice.written_if_due()
                _announce(service, folder, as_json=as_json)
                _watch(service, notice, stop)
            finally:
                folder.service_file.unlink(missing_ok=True)
                for group in _stop_groups(service):
                    stopped(group, grace_s=GRACE_S)
                service.shredder.wipe()
                service.keyholder.close()
                service.shredder.close()
                for each in service.sockets:
                    each.close()


def _await_predecessor(folder: KeepFolder) -> None:
    """A recorder whose supervisor was killed still writes the log's last entries: let it end."""
    for lock in sorted(folder.path.glob("ledger/wal-*.lock")):
        with held(lock, wait_s=PREDECESSOR_WAIT_S, what="an earlier service is still ending"):
            continue


def _prepared(folder: KeepFolder, means: Means) -> Service:
    """Open the keep, load and prove the models, and lay out every process's plan."""
    keyholder, sign_fd = _keyholder(folder, means)
    try:
        return _laid_out(folder, means, keyholder, sign_fd)
    except BaseException:
        keyholder.close()
        raise


def _keyholder(folder: KeepFolder, means: Means) -> tuple[ProcessKeyholder, int]:
    """Start the keyholder; return it with the recorder's end of the socket on which it signs."""
    config, _ = read_config(folder)
    source = means.source or config.keys.source
    recorders_fd, its_fd = signing_pair()
    try:
        means = replace(means, source=source, argon2=config.argon2)
        return process_keyholder(means, sign_fd=its_fd), recorders_fd
    finally:
        os.close(its_fd)


def _laid_out(
    folder: KeepFolder, means: Means, keyholder: ProcessKeyholder, sign_fd: int
) -> Service:
    with (
        ExitStack() as unless_served,
        open_keep(folder, means, actor="supervisor", keyholder=keyholder) as (keep, config),
    ):
        models = []
        references = chosen(keep, config.serve.models, warn=_warn)
        ready_to_serve(folder, config, keep, references, warn=_warn)
        default = defaults(keep, references)
        for reference in references:
            memory = MemoryFile(f"model-{reference.name}")
            unless_served.callback(memory.wiped)
            is_default = reference in default
            model = published(keep, reference, is_default=is_default, allocate=memory.allocate)
            models.append((model, memory))
        names = tuple(f"{each.name}:{each.version}" for each, _ in models)
        listener = tcp_listener(config.serve.host, config.serve.port)
        url = _url(config.serve.host, listener.getsockname()[1])
        record(keep, "service.started", {"models": names, "url": url})
        reading, writing = os.pipe2(os.O_CLOEXEC)
        layout = Layout(
            folder, keep, config, listener, lifeline_fd=reading, sign_fd=sign_fd, warn=_warn
        )
        replicas, served = layout.replicas(models)
        origin = keep.origin
        shredder = Shredder(
            replicas,
            {(each.name, each.version): each.domain for each, _ in models},
            {(each.name, each.version): memory for each, memory in models},
            lambda: open_state_readonly(folder.state_path, config.state, origin=origin),
        )
        service = Service(
            url=url,
            models=tuple(model for model, _ in models),
            children=(layout.recorder(), *replicas, layout.gateway(served)),
            sockets=tuple(layout.sockets),
            lifeline=writing,
            keyholder=keyholder,
            shredder=shredder,
        )
        unless_served.pop_all()
        return service


def _url(host: str, port: int) -> str:
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def _stop_requested(lifeline_fd: int) -> Stop:
    """Descriptors that become readable on SIGTERM, on SIGINT and when the lifeline breaks."""
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(writing)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return (reading, lifeline_fd) if lifeline_fd >= 0 else (reading,)


def _is_stopping(stop: Stop, wait_s: float) -> bool:
    return bool(select.select(stop, [], [], wait_s)[0])


def _await_ready(service: Service, folder: KeepFolder, stop: Stop) -> None:
    deadline_s = time.monotonic() + READY_TIMEOUT_S
    while not is_ready(service.url, ca_pem=folder.ca_pem_path.read_bytes()):
        for child in service.children:
            status = child.reaped()
            if status is not None:
                raise UnavailableError(
                    "serve.start",
                    f"{child.name} ended with status {status} while the service started",
                    hint="what it wrote stands above",
                )
        if _is_stopping(stop, POLL_S) or time.monotonic() > deadline_s:
            raise UnavailableError("serve.start", "the service did not become ready")


def _announce(service: Service, folder: KeepFolder, *, as_json: bool) -> None:
    if as_json:
        said = to_json({"event": "ready", **_facts(service)}).decode()
    else:
        names = ", ".join(f"{each.name}:{each.version}" for each in service.models)
        said = f"serving {names} at {service.url} (trust {folder.ca_pem_path})"
    sys.stdout.write(said + "\n")
    sys.stdout.flush()


def _facts(service: Service) -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "url": service.url,
        "models": [f"{each.name}:{each.version}" for each in service.models],
        "processes": {
            "keyholder": service.keyholder.pid,
            **{child.name: child.pid for child in service.children},
        },
    }


def _watch(service: Service, notice: Notice, stop: Stop) -> None:
    """Restart whatever ends, and tell the ledger, until somebody asks us to stop."""
    untold: deque[Entry] = deque(maxlen=UNTOLD_MAX)
    has_keyholder = True
    while not _is_stopping(stop, POLL_S):
        if has_keyholder and service.keyholder.poll() is not None:
            # It cannot be started again: what opens the root was forgotten on purpose.
            has_keyholder = False
            _warn("the keyholder ended: calls go on and are recorded; checkpoints wait, restart")
            status = service.keyholder.poll()
            untold.append(
                _fact("process.ended", "keyholder", pid=service.keyholder.pid, status=status)
            )
        for child in service.children:
            pid = child.pid
            status = child.reaped()
            if status is not None:
                untold.append(_fact("process.ended", child.name, pid=pid, status=status))
        for child in service.children:
            if child.is_due():
                try:
                    child.start()
                except KeepError as error:
                    _warn(str(error))
                    continue
                notice.is_current = False
                untold.append(_fact("process.started", child.name, pid=child.pid))
        for name in service.shredder.drop():
            untold.append(_fact("process.ended", name, reason="its domain was destroyed"))
            notice.is_current = False
        notice.written_if_due()
        if untold and service.children[0].process is not None:
            _tell(notice.folder, untold)


def _fact(kind: str, name: str, **facts: Fact) -> Entry:
    return Entry(
        kind=kind,
        at_ns=system_clock().now_ns(),
        actor="supervisor",
        facts={"process": name, **facts},
    )


def _tell(folder: KeepFolder, untold: deque[Entry]) -> None:
    """Hand what happened to the recorder; while it does not answer, the facts wait here."""
    try:
        RecorderClient(folder.run_folder, timeout_s=TELL_S_MAX).record(tuple(untold))
    except KeepError:
        return
    untold.clear()


def _warn(text: str) -> None:
    sys.stderr.write(f"modelkeep: warning: {text}\n")
    sys.stderr.flush()


def _stop_groups(service: Service) -> Iterator[tuple[Child, ...]]:
    """The gateway first, so that it drains; the recorder last, so that it records the rest."""
    for worker in ("gateway", "replica", "recorder"):
        yield tuple(child for child in service.children if child.worker == worker)


if __name__ == "__main__":
    sys.exit(main())
