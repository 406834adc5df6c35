"""Calls to an upstream that are made again, a bounded number of times, after a growing pause.

An error may say how long to wait (`retry_after_s` of its context); else waits grow and are drawn at
random, so that many callers of a server that comes back do not all come at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from modelkeep.core.errors import KeepError

PAUSE_S_FIRST = 0.1
PAUSE_S_MAX = 2.0
T = TypeVar("T")


async def tried(
    call: Callable[[], Awaitable[T]],
    *,
    retries: int,
    is_worth_another: Callable[[BaseException], bool],
) -> T:
    """What a call brings in the end; raises what its last try raised."""

    async def once() -> T:  # what is no coroutine function is not awaited by the library
        return await call()

    retrying = AsyncRetrying(
        stop=stop_after_attempt(retries + 1),
        wait=_pause_s,
        retry=retry_if_exception(is_worth_another),
        reraise=True,
    )
    return await retrying(once)


_GROWING = wait_random_exponential(multiplier=PAUSE_S_FIRST, max=PAUSE_S_MAX)


def _pause_s(state: RetryCallState) -> float:
    """As long as the server says, else a little longer each time."""
    error = state.outcome.exception() if state.outcome is not None else None
    told = error.context.get("retry_after_s", 0) if isinstance(error, KeepError) else 0
    return max(float(told), _GROWING(state))
