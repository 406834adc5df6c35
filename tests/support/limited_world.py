"""A service of a test whose gateways have limits: several of them on one listening socket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gateway_world import Process, World, started, token_entry

from modelkeep.adapters.system import SystemEntropy
from modelkeep.core.record import from_json, replaced, to_json
from modelkeep.gate.authn import new_token
from modelkeep.workers.plan import GatewayPlan

FIRST_TOKEN = 3  # `started` made those before


def limited(folder: Path, *, model: bytes, gateways: int = 1, **plan: Any) -> World:
    """Start a world, and its gateways anew with changes to their plan."""
    world = started(folder, model=model)
    world.gateway.kill()
    given = from_json(GatewayPlan, world.gateway.plan, what="the plan")
    processes = []
    for number in range(gateways):
        journal = folder / f"calls-{number}"
        journal.mkdir()
        changed = replaced(
            given,
            limiter_path=str(folder / "run" / "limits"),
            journal_folder=str(journal),
            journal_name=f"gateway-{number}",
            **plan,
        )
        processes.append(Process(world.gateway.module, to_json(changed), world.gateway.fds))
        processes[-1].start()
    world.gateway, *others = processes
    world.replicas.extend(others)  # so that `stop` ends them too
    world.wait_ready()
    return world


def keys_of(world: World, *principals: str) -> list[str]:
    """A key for each of some principals, who may call every model; known within half a second."""
    keys = []
    for number, name in enumerate(principals):
        secret, row = new_token(SystemEntropy(), principal=name, scopes=("infer:*",))
        world.state.apply(FIRST_TOKEN + number, [token_entry(row, FIRST_TOKEN + number)])
        keys.append(secret.reveal().decode())
    return keys
