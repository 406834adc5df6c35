"""A page that costs much to make, such as the metrics: asking for it often slows nobody else.

It is made for all who wait for it together, never before they asked, and making it takes a
twentieth of the loop's time at most: after each one nothing is made for nineteen times as long as
it took. Then it is handed to one of them in a turn of the loop, since what is sent is encrypted.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

# Of the loop's time one part in so many goes into making it.
PARTS = 20


class Paced:
    """One page.

    Args:
        make: writes it.
        now_s: a clock that only goes forward.
    """

    def __init__(
        self, make: Callable[[], bytes], *, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._make = make
        self._now_s = now_s
        self._rests_until_s = 0.0
        self._waiting: deque[asyncio.Future[bytes]] = deque()
        self._served: deque[asyncio.Future[bytes]] = deque()  # those it is made for
        self._making: asyncio.Task[bytes] | None = None

    async def page(self) -> bytes:
        """The page as it is now or a moment later; raises what `make` does."""
        turn: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        if self._making is None:
            self._begin()
        return await turn

    def _begin(self) -> None:
        self._making = asyncio.get_running_loop().create_task(self._made())
        self._making.add_done_callback(self._hand_out)

    async def _made(self) -> bytes:
        rest_s = self._rests_until_s - self._now_s()
        if rest_s > 0:
            await asyncio.sleep(rest_s)
        self._served, self._waiting = self._waiting, deque()
        begun_s = self._now_s()
        try:
            return self._make()
        finally:
            now_s = self._now_s()
            self._rests_until_s = now_s + (PARTS - 1) * (now_s - begun_s)

    def _hand_out(self, made: asyncio.Task[bytes]) -> None:
        """Give it to the next who waits; the others have their turns."""
        if made.cancelled():  # the loop ends
            return
        fault = made.exception()
        while self._served:
            turn = self._served.popleft()
            if not turn.done():  # else who asked has gone
                turn.set_exception(fault) if fault is not None else turn.set_result(made.result())
                break
        if self._served:
            made.get_loop().call_soon(self._hand_out, made)
        elif self._waiting:
            self._begin()
        else:
            self._making = None
