"""The supervisor: opens the keep, hands sealed memory to the service's processes, keeps them up.

The root is seen by the keyholder only, which the supervisor starts first. What the supervisor
itself learns (the keys of domains, the keep's identity) it drops before the first client is
served: what the others need lies in sealed memory files by then. It holds every listening socket,
so a process that dies leaves its queue of connections to its successor. All other processes hold
the reading end of a lifeline: when the supervisor dies, however it dies, they end, and the same
command starts the service again. A supervisor that was itself started by a process that should
not be outlived gets such a lifeline from it.

From then on `workers.reconcile` compares what is wanted with what runs. SIGHUP reads
modelkeep.toml again; SIGTERM and SIGINT drain and end.

`python -m modelkeep.workers.supervisor --keep FOLDER [--key-source REF] [--passphrase-fd N]
[--lifeline-fd N] [--engine E] [--json]`
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from modelkeep.adapters.checkpoint_signer import signing_pair
from modelkeep.adapters.keyholder_process import ProcessKeyholder
from modelkeep.adapters.locks import PREDECESSOR_WAIT_S, held
from modelkeep.config import Config
from modelkeep.core.artifact import ModelReference
from modelkeep.core.errors import KeepError, UsageError
from modelkeep.core.limits import PASSPHRASE_BYTES_MAX
from modelkeep.core.record import to_json
from modelkeep.crypto.secret import Secret
from modelkeep.flows.keep import OpenKeep, record
from modelkeep.flows.settings import ENGINES
from modelkeep.opening import open_keep
from modelkeep.ports.keyholder import Means
from modelkeep.sdk.preflight import ready_to_serve
from modelkeep.wiring import KeepFolder, open_state_readonly, process_keyholder, read_config
from modelkeep.workers.fleet import Fleet, Version
from modelkeep.workers.gateways import Gateways
from modelkeep.workers.hosting import HostLink
from modelkeep.workers.layout import Layout, tcp_listener
from modelkeep.workers.loading import Loader, loaded_version, upstream_version, wish_of
from modelkeep.workers.notify import STOPPING, notify
from modelkeep.workers.process import Child, stopped
from modelkeep.workers.reconcile import Service, keep_up, ready
from modelkeep.workers.server_key import ServerKey, pem_file
from modelkeep.workers.telling import Notice, say, warn
from modelkeep.workers.wakes import Wakes
from modelkeep.workers.watching import StateEye

GRACE_S = 15.0
LOADER_GRACE_S = 5.0


def main(arguments: list[str] | None = None) -> int:
    """Run the service until SIGTERM or SIGINT; the exit status is that of the error if any."""
    parser = argparse.ArgumentParser(prog="modelkeep serve")
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--key-source", default="")
    parser.add_argument("--passphrase-fd", type=int, default=-1)
    parser.add_argument("--lifeline-fd", type=int, default=-1)
    parser.add_argument("--engine", choices=("", *ENGINES), default="")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    wakes = Wakes.of(options.lifeline_fd)
    try:
        means = _means(options.key_source, options.passphrase_fd)
        folder = KeepFolder(options.keep)
        _serve(folder, means, wakes, engine=options.engine, as_json=options.json)
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


def _serve(folder: KeepFolder, means: Means, wakes: Wakes, *, engine: str, as_json: bool) -> None:
    folder.run_folder_ready()
    with held(folder.serve_lock, wait_s=2.0, what="this keep is being served already"):
        _await_predecessor(folder)
        service = _prepared(folder, means, wakes, engine=engine)
        del means
        with held(folder.ledger_lock, wait_s=30.0, what="another command writes the ledger"):
            try:
                service.start()
                ready(service)
                notice = Notice(service.facts, folder)
                notice.written_if_due()
                say(service.facts(), trust=_trusted(service), as_json=as_json)
                keep_up(service, notice)
            finally:
                notify(STOPPING)
                folder.service_file.unlink(missing_ok=True)
                service.loader.stop(LOADER_GRACE_S)
                for group in _stop_groups(service):
                    stopped(group, grace_s=GRACE_S)
                _let_go(service)


def _trusted(service: Service) -> str:
    """What a client has to trust, for people."""
    key = service.server_key
    return str(service.folder.ca_pem_path) if key.is_own else f"who issued {key.serve.certificate}"


def _let_go(service: Service) -> None:
    """Nothing runs any more: wipe what was decrypted, close what was held."""
    for version in service.fleet.versions.values():
        for replica in version.everywhere:
            replica.close(service.fleet.run_folder)
        version.wiped()
    for retired in tuple(service.fleet.retired):
        service.fleet.gone(retired)
    service.keyholder.close()
    service.eye.close()
    service.gateways.close()
    for each in service.layout.sockets:
        each.close()


def _await_predecessor(folder: KeepFolder) -> None:
    """A recorder whose supervisor was killed still writes the log's last entries: let it end."""
    for lock in sorted(folder.path.glob("ledger/wal-*.lock")):
        with held(lock, wait_s=PREDECESSOR_WAIT_S, what="an earlier service is still ending"):
            continue


def _prepared(folder: KeepFolder, means: Means, wakes: Wakes, *, engine: str) -> Service:
    """Open the keep, load and prove the models, and lay out every process's plan."""
    keyholder, sign_fd = _keyholder(folder, means)
    try:
        with open_keep(folder, means, actor="supervisor", keyholder=keyholder) as (keep, config):
            return _laid_out(
                folder,
                keep,
                config,
                keyholder,
                sign_fd=sign_fd,
                wakes=wakes,
                engine=engine or config.serve.engine,
            )
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
    folder: KeepFolder,
    keep: OpenKeep,
    config: Config,
    keyholder: ProcessKeyholder,
    *,
    sign_fd: int,
    wakes: Wakes,
    engine: str,
) -> Service:
    with ExitStack() as unless_served:
        wish = wish_of(keep, config, warn)
        ready_to_serve(folder, config, keep, wish.references, warn=warn)
        fleet = Fleet(
            folder.run_folder,
            defaults=dict(wish.defaults),
            traffic=wish.traffic,
            inputs=config.inputs,
            outputs=config.outputs,
            limits=config.limits,
            queue=config.queue,
        )
        for version in _versions(keep, config, wish.references):
            unless_served.callback(version.wiped)
            fleet.add(version)
        listener = tcp_listener(config.serve.host, config.serve.port)
        unless_served.callback(listener.close)
        url = _url(config.serve.host, listener.getsockname()[1])
        server_key = ServerKey(folder.path, config.serve, warn)
        is_own, now_ns = server_key.is_own, keep.clock.now_ns()
        chain = server_key.made(keep, config) if is_own else server_key.given(now_ns)
        record(keep, "service.started", {"models": fleet.names(), "url": url})
        reading, writing = os.pipe2(os.O_CLOEXEC)
        layout = Layout(
            folder, config, lifeline_fd=reading, link=HostLink.of(keep), warn=warn, engine=engine
        )
        for version in fleet.versions.values():
            layout.staffed(version)
        made = layout.gateways(keep, listener, chain=chain, client_ca=_client_ca(keep, config))
        origin, state_path, state = keep.origin, folder.state_path, config.state
        service = Service(
            url=url,
            folder=folder,
            layout=layout,
            fleet=fleet,
            gateways=Gateways.of(made),
            recorder=layout.recorder(keep, sign_fd),
            keyholder=keyholder,
            server_key=server_key,
            eye=StateEye(lambda: open_state_readonly(state_path, state, origin=origin)),
            loader=Loader(folder, keyholder, layout, wake=wakes.wake, warn=warn),
            wakes=wakes,
            lifeline=writing,
            upstreams={each.name: each for each in config.upstreams},
            grpc=f"{config.serve.host}:{config.serve.grpc_port}" * bool(config.serve.grpc_port),
        )
        unless_served.pop_all()
        return service


def _versions(
    keep: OpenKeep, config: Config, references: Sequence[ModelReference]
) -> Iterator[Version]:
    """Everything that is served from the start, loaded and proven."""
    for reference in references:
        yield loaded_version(keep, reference)
    for settings in config.upstreams:
        yield upstream_version(settings)


def _client_ca(keep: OpenKeep, config: Config) -> bytes:
    """Whose client certificates are verified: the keep's own authority, and those of `[serve]`."""
    path = config.serve.client_ca
    given = pem_file(Path(path), what="serve.client_ca") if path else b""
    return keep.authority.certificate + b"\n" + given


def _url(host: str, port: int) -> str:
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def _stop_groups(service: Service) -> Iterator[tuple[Child, ...]]:
    """The gateways first, so that they drain; the recorder last, so that it records the rest."""
    yield service.gateways.children()
    yield service.fleet.children()
    yield (service.recorder,)


if __name__ == "__main__":
    sys.exit(main())
