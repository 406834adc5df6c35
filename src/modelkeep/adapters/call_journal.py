"""Group commit: many callers wait for one fsync.

One batch at a time is written by the loop and made durable aside (`adapters.sync_aside`). What is
recorded meanwhile is the next batch. It is written when the last one is durable, or up to a
millisecond later if as many more are likely to come (`adapters.gathering`). A fixed timer of 50 ms
was measured at 564 calls a second where this does over 10,000. A thread that did the writing too
had to take the interpreter from the loop for each batch, which cost more than the fsync.

A record that is alone, with no other call under way, is synced by the loop itself: there is nobody
whom that could hold up. A disk that was slow the last time, or a second call, goes aside again.

A failed write fails every call of its batch (UnavailableError `journal.write`); the next batch
tries again. After `close` nothing is accepted.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from modelkeep.adapters.gathering import WAIT_S, Gathering
from modelkeep.adapters.sync_aside import SyncAside
from modelkeep.core.errors import KeepError, UnavailableError

# A disk that syncs this fast may be waited for by the loop itself, while one call is under way.
QUICK_SYNC_S = 0.001
# Frames of one fsync: bounds the memory of a batch; what waits is bounded by calls in flight.
BATCH_FRAMES_MAX = 4096


class HalfJournal(Protocol):
    """A journal whose appends can be made durable by somebody else; see `JournalFile`."""

    def append(self, frames: Sequence[bytes]) -> int:
        """Make frames durable; the first one's position."""
        ...

    def begin(self, frames: Sequence[bytes]) -> int:
        """Write frames; the descriptor to sync."""
        ...

    def finish(self, error: OSError | None) -> int:
        """Believe in what was begun, or cut it off; the first position."""
        ...

    def close(self) -> None:
        """Release it."""
        ...


class CallJournal:
    """An awaitable front of a journal, for one event loop.

    Args:
        on_batch: called after each fsync with its records and seconds.
        on_foreign: called when somebody else wrote to the journal; it takes nothing any more.
        in_flight: calls under way, those that are being recorded too.
    """

    def __init__(
        self,
        journal: HalfJournal,
        *,
        name: str,
        on_batch: Callable[[int, float], None] = lambda _records, _seconds: None,
        on_foreign: Callable[[], None] = lambda: None,
        in_flight: Callable[[], int] = lambda: 2,
    ) -> None:
        self.name = name
        self._journal = journal
        self._on_batch = on_batch
        self._on_foreign = on_foreign
        self._in_flight = in_flight
        self._gathering = Gathering()
        self._wait: asyncio.TimerHandle | None = None
        self._last_sync_s = QUICK_SYNC_S  # the first one shows how fast the disk is
        self._loop = asyncio.get_running_loop()
        self._frames: list[bytes] = []
        self._futures: list[asyncio.Future[int]] = []
        self._batch: list[asyncio.Future[int]] = []  # what is being made durable
        self._began_s = 0.0
        self._is_writing = False
        self._is_closed = False
        self._aside = SyncAside(self._synced)

    def record(self, frame: bytes) -> asyncio.Future[int]:
        """Queue one frame; the future's result is its position, once it is durable.

        Raises:
            UnavailableError: `journal.write`, when the journal is closed.
        """
        if self._is_closed:
            raise UnavailableError("journal.write", "the call journal is closed")
        future: asyncio.Future[int] = self._loop.create_future()
        self._frames.append(frame)
        self._futures.append(future)
        if not self._is_writing:
            self._is_writing = True
            # At the end of this turn of the loop, so that its other calls share the fsync.
            self._loop.call_soon(self._gather)
        elif self._wait is not None and self._is_enough():
            self._wait.cancel()
            self._wait = None
            self._loop.call_soon(self._gather)
        return future

    async def close(self) -> None:
        """Write what is queued, then release the journal; idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        while self._batch or self._futures:
            await asyncio.gather(*self._batch, *self._futures, return_exceptions=True)
        self._aside.close()
        self._journal.close()

    def _is_enough(self) -> bool:
        return self._is_closed or self._gathering.is_enough(len(self._frames), self._in_flight())

    def _gather(self) -> None:
        """Write the next batch, or wait for more if that is worth it."""
        count = len(self._frames)
        if count and not self._is_enough():
            self._is_writing = True
            self._wait = self._loop.call_later(WAIT_S, self._gave_up)
            return
        if count:
            self._gathering.came(count)
        self._write()

    def _gave_up(self) -> None:
        self._wait = None
        self._gathering.gave_up(len(self._frames))
        self._write()

    def _write(self) -> None:
        """Write what is queued as the next batch, and have it made durable."""
        frames, self._batch = self._frames[:BATCH_FRAMES_MAX], self._futures[:BATCH_FRAMES_MAX]
        self._frames = self._frames[BATCH_FRAMES_MAX:]
        self._futures = self._futures[BATCH_FRAMES_MAX:]
        self._is_writing = bool(frames)
        if not frames:
            return
        self._began_s = time.perf_counter()
        is_alone = len(frames) == 1 and self._in_flight() == 1
        try:
            if is_alone and self._last_sync_s < QUICK_SYNC_S:
                self._end(self._journal.append(frames), None)
            else:
                self._aside.sync(self._journal.begin(frames))
        except KeepError as error:
            self._end(-1, error)
        except Exception as error:  # noqa: BLE001  # every caller of the batch must hear of it
            self._end(-1, UnavailableError("journal.write", f"the call journal failed: {error}"))

    def _synced(self, error_number: int) -> None:
        """The batch is durable, or it is known why not."""
        error = OSError(error_number, os.strerror(error_number)) if error_number else None
        try:
            self._end(self._journal.finish(error), None)
        except KeepError as failure:
            self._end(-1, failure)

    def _end(self, first: int, failure: KeepError | None) -> None:
        futures, self._batch = self._batch, []
        self._last_sync_s = seconds = time.perf_counter() - self._began_s
        self._gather()  # the disk is to work while the answers leave
        if failure is None:
            self._on_batch(len(futures), seconds)
        elif failure.code == "journal.foreign":
            self._on_foreign()
        for position, future in enumerate(futures, first):
            if future.done():
                continue
            if failure is None:
                future.set_result(position)
            else:
                future.set_exception(failure)
