"""The limits of one gateway process: composed from its plan, tended ten times a second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from modelkeep.adapters.limiters import opened_limiter
from modelkeep.core.errors import KeepError
from modelkeep.flows.serve import Serving
from modelkeep.gate.fairness import Room
from modelkeep.gate.limiting import Limits
from modelkeep.wiring import system_clock
from modelkeep.workers.plan import GatewayPlan

TEND_S = 0.1
COMPLAINTS_EVERY = 100  # failures in a row: ten seconds


def composed_limits(
    plan: GatewayPlan, serving: Serving, *, on_refused: Callable[[str], None]
) -> Limits:
    """The limits of a plan, for the calls of `serving`; to be called inside its loop.

    Args:
        on_refused: is told the code of every refusal.

    Raises:
        UnavailableError: `gate.limiter`.
        IntegrityError: `limits.file`.
        UsageError: `extra.missing`.
    """

    def room_of(model: str) -> Room:
        queue = limits.queue
        versions = serving.table.versions_of(model)
        ready = sum(serving.replicas.ready_count(model, each) for each in versions) or 1
        served = serving.table.pick(model, None, 0)
        if served is not None and served.check is None:
            texts = queue.texts_per_replica * ready
            return texts, texts
        return queue.calls_per_replica * ready, queue.calls_per_replica_shared * ready

    limits = Limits(
        plan.limits,
        lambda: opened_limiter(plan.limiter, path=Path(plan.limiter_path), keep=plan.origin),
        queue=plan.queue,
        now_ns=system_clock().monotonic_ns,
        make_turn=asyncio.get_running_loop().create_future,
        room_of=room_of,
        on_refused=on_refused,
    )
    return limits


async def tended(limits: Limits, *, complain: Callable[[str], None]) -> None:
    """Tend limits until cancelled; a limiter that is away is told of now and then."""
    failures = 0
    while True:
        await asyncio.sleep(TEND_S)
        try:
            await limits.tend()
        except KeepError as error:
            if failures % COMPLAINTS_EVERY == 0:
                complain(f"limits: {error}")
            failures += 1
        else:
            failures = 0
