"""One of several processes that use one limit up as fast as they can, and log what they were given.

`python limit_worker.py FILE LOG RULE SECONDS`; RULE is JSON of one `[[limits]]`. A line of the log
is four numbers: the clock before and after a call entered, the tokens it used, and the clock when
it left, on the limiter's clock, written when the call has left. The second is 0 for a refusal.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import struct
import sys
import time
from pathlib import Path

from modelkeep.adapters.limiter_shared import SharedLimiter
from modelkeep.core.errors import KeepError, LimitError
from modelkeep.core.principal import Principal
from modelkeep.gate.limit_settings import LimitSettings, QueueSettings
from modelkeep.gate.limiting import Limits

LINE = struct.Struct("<QQQQ")
ALICE = Principal(name="alice", tenant="acme", scopes=("infer:*",))


async def call(limits: Limits, limiter: SharedLimiter, log: int, *, holds_s: float) -> None:
    asked = random.randint(0, 60)  # noqa: S311
    before = limiter.now_ns()
    try:
        ticket = await limits.enter(ALICE, "digits", "10.0.0.1", size_bytes=10, tokens=asked)
    except LimitError:
        os.write(log, LINE.pack(before, 0, 0, limiter.now_ns()))
        await asyncio.sleep(random.uniform(0, 0.002))  # noqa: S311  # as a caller would, if soon
        return
    except KeepError:
        return
    entered = limiter.now_ns()
    if holds_s:
        await asyncio.sleep(random.uniform(0, holds_s))  # noqa: S311
    used = random.randint(0, asked)  # noqa: S311
    left = limiter.now_ns()
    os.write(log, LINE.pack(before, entered, used, left))
    ticket.leave(tokens=used)


async def main(path: Path, log: int, rule: LimitSettings, seconds: float) -> None:
    limiter = SharedLimiter(path)
    loop = asyncio.get_running_loop()
    limits = Limits(
        (rule,),
        lambda: limiter,
        queue=QueueSettings(),
        now_ns=time.monotonic_ns,
        make_turn=loop.create_future,
        room_of=lambda _: (4096, 4096),
    )
    ends = time.monotonic() + seconds

    async def caller() -> None:
        while time.monotonic() < ends:
            await call(limits, limiter, log, holds_s=0.003 if rule.concurrent else 0.0)

    async def tend() -> None:
        while True:
            await asyncio.sleep(0.1)
            with contextlib.suppress(KeepError):  # somebody is stopped with a lock: later, then
                await limits.tend()

    tending = asyncio.create_task(tend())
    await asyncio.gather(*(caller() for _ in range(8)))
    tending.cancel()
    await limits.close()


if __name__ == "__main__":
    table, log_path, told, wanted_s = sys.argv[1:]
    opened = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    asyncio.run(main(Path(table), opened, LimitSettings(**json.loads(told)), float(wanted_s)))
