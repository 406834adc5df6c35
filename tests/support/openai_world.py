"""A gateway whose models are upstreams, and a tensor model without replicas."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from gateway_world import (
    DIGITS_SCHEMA,
    Process,
    World,
    certificate,
    token_entry,
)
from upstream_worker import plan_of

from modelkeep.adapters.memory_file import sealed_bytes
from modelkeep.adapters.state_sqlite import SqliteState
from modelkeep.adapters.system import SystemEntropy
from modelkeep.adapters.upstream_settings import UpstreamSettings
from modelkeep.core.artifact import Schema
from modelkeep.core.record import to_json
from modelkeep.gate.authn import new_token
from modelkeep.gate.settings import GateSettings
from modelkeep.workers.plan import TENSOR, UPSTREAM, GatewayPlan, ServedModel

KEYS = (("caller", ("infer:*",)), ("scraper", ("metrics",)), ("other", ("infer:other",)))


def openai_world(
    folder: Path,
    upstreams: tuple[UpstreamSettings, ...],
    *,
    key: str,
    ca: bytes = b"",
    settings: GateSettings | None = None,
) -> World:
    """Start it; the tensor model is called `digits`."""
    run_folder = folder / "run"
    run_folder.mkdir(parents=True)
    (folder / "calls").mkdir()
    state = SqliteState(folder / "state.db")
    keys = [new_token(SystemEntropy(), principal=who, scopes=scopes) for who, scopes in KEYS]
    state.apply(0, [token_entry(token, at) for at, (_, token) in enumerate(keys)])
    reading, writing = os.pipe2(os.O_CLOEXEC)
    workers, models = [], [_served("digits", TENSOR, DIGITS_SCHEMA, ())]
    for each in upstreams:
        plan, _, fds = plan_of(each, run_folder, reading, key=key, ca=ca)
        workers.append(Process("modelkeep.workers.upstream", to_json(plan), (*fds, reading)))
        models.append(
            _served(each.name, UPSTREAM, Schema(inputs=(), outputs=()), (f"{each.name}.sock",))
        )
    own_ca, chain = certificate()
    (folder / "ca.pem").write_bytes(own_ca)
    public = socket.socket()
    public.bind(("127.0.0.1", 0))
    public.listen(1024)
    port = public.getsockname()[1]
    plan = GatewayPlan(
        full_path=str(folder / "full"),
        listen_fd=public.detach(),
        lifeline_fd=reading,
        tls_fd=sealed_bytes("tls", chain),
        commitment_key_fd=sealed_bytes("commitments", os.urandom(32)),
        run_folder=str(run_folder),
        state_path=str(folder / "state.db"),
        journal_folder=str(folder / "calls"),
        journal_name="gateway-0",
        settings=settings or GateSettings(),
        models=tuple(models),
    )
    fds = (plan.listen_fd, reading, plan.tls_fd, plan.commitment_key_fd)
    gateway = Process("modelkeep.workers.gateway", to_json(plan), fds)
    texts = [secret.reveal().decode() for secret, _ in keys]
    world = World(
        folder=folder,
        port=port,
        key=texts[0],
        metrics_key=texts[1],
        limited_key=texts[2],
        ca_path=folder / "ca.pem",
        gateway=gateway,
        replicas=workers,
        state=state,
        journal_name="gateway-0",
        lifeline=writing,
    )
    for process in (gateway, *workers):
        process.start()
    return world


def _served(name: str, kind: str, schema: Schema, sockets: tuple[str, ...]) -> ServedModel:
    return ServedModel(
        name=name, version=1, schema=schema, sockets=sockets, is_default=True, kind=kind
    )
