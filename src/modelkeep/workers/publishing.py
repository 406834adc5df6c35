"""Threads that carry the log into the stores, so that no store delays an acknowledgement.

One thread per store, bounded by the number of stores. The first publishes; whenever it has, the
others replicate. A store that fails is tried again with growing pauses and holds up nobody. When
a store starts or stops failing, or something damaged was written anew, the loop is told and
records it; a repeated failure is not repeated there.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable

from modelkeep.core.errors import KeepError
from modelkeep.flows.ledger import Sequencer

RETRY_S_MIN = 0.5
RETRY_S_MAX = 15.0
# How often a store that holds everything is stated to do so; what an RPO can be measured to.
ALIVE_S = 1.0
# What waits to be recorded about stores: one line per change of state, so far under this.
NEWS_MAX = 1000
# Characters of a failure that nobody foresaw.
MESSAGE_MAX = 300

# (kind, facts) of an entry that the loop is to record.
News = tuple[str, dict[str, str]]


class Publishers:
    """The publishing threads of one sequencer.

    Args:
        gather_s: how long after the first new entry a checkpoint waits for more.
        alive: called once a second per store that holds everything, with the store's number, the
            log's size and the instant (ns) at which it had that size.
    """

    def __init__(
        self, sequencer: Sequencer, *, gather_s: float, alive: Callable[[int, int, int], None]
    ) -> None:
        self._sequencer = sequencer
        self._alive = alive
        self._alive_s = [0.0] * sequencer.stores_count
        self._gather_s = gather_s
        self._stops = [threading.Event() for _ in range(sequencer.stores_count)]
        self._is_failing = [False] * sequencer.stores_count
        self._news: queue.Queue[News] = queue.Queue(NEWS_MAX)
        self._wakes = [threading.Event() for _ in range(sequencer.stores_count)]
        self._threads = [
            threading.Thread(target=self._run, args=(number,), daemon=True, name=f"store-{number}")
            for number in range(sequencer.stores_count)
        ]

    def start(self) -> None:
        """Start all threads; what is not published yet is published at once."""
        for thread in self._threads:
            thread.start()
        self.wake()

    def wake(self) -> None:
        """There are new entries."""
        self._wakes[0].set()

    def is_carrying(self, number: int) -> bool:
        """Whether a store takes what it is given, as far as its last try says."""
        return not self._is_failing[number]

    def news(self) -> list[News]:
        """What is to be recorded about the stores."""
        found = []
        while not self._news.empty():
            found.append(self._news.get_nowait())
        return found

    def stop(self, *, first_s: float, others_s: float) -> None:
        """Publish the rest and end; what a slow store lacks, it gets after the next start."""
        self._end(0)
        self._threads[0].join(first_s)
        for number in range(1, len(self._threads)):  # only now: they carry what was just published
            self._end(number)
        for thread in self._threads[1:]:
            thread.join(others_s)

    def _end(self, number: int) -> None:
        self._stops[number].set()
        self._wakes[number].set()

    def _run(self, number: int) -> None:
        stop, wake = self._stops[number], self._wakes[number]
        pause_s = 0.0
        is_last = False
        while not is_last:
            wake.wait(pause_s or ALIVE_S)
            if number == 0:
                stop.wait(self._gather_s)
            wake.clear()
            is_last = stop.is_set()  # asked after clearing: a stop that comes later wakes again
            self._is_failing[number] = not self._carried(number, was_failing=pause_s > 0)
            if not self._is_failing[number]:
                pause_s = 0.0
                continue
            pause_s = min(max(2 * pause_s, RETRY_S_MIN), RETRY_S_MAX)
            if not is_last:
                stop.wait(pause_s)

    def _carried(self, number: int, *, was_failing: bool) -> bool:
        """Carry what there is to one store; whether it worked."""
        sequencer = self._sequencer
        at_ns, size = time.time_ns(), sequencer.size
        try:
            if number == 0:
                sequencer.publish_first()
                for wake in self._wakes[1:]:
                    wake.set()
            else:
                sequencer.replicate(number)
            sequencer.release()
            if sequencer.size_in(number) >= size and time.monotonic() >= self._alive_s[number]:
                self._alive(number, size, at_ns)
                self._alive_s[number] = time.monotonic() + ALIVE_S
        except KeepError as error:
            if not was_failing:
                self._tell(number, "ledger.store_failed", code=error.code, message=error.message)
            return False
        except Exception as error:  # noqa: BLE001  # a thread that ended would never carry again
            if not was_failing:
                message = f"{type(error).__name__}: {error}"[:MESSAGE_MAX]
                self._tell(number, "ledger.store_failed", code="ledger.defect", message=message)
            return False
        report = sequencer.report(number)
        for name in report.healed:
            self._tell(number, "ledger.healed", object=name)
        if was_failing:
            self._tell(number, "ledger.store_caught_up")
        return True

    def _tell(self, number: int, kind: str, **facts: str) -> None:
        label = self._sequencer.label_of(number)
        say(f"{label}: {kind} {' '.join(facts.values())}")
        try:
            self._news.put_nowait((kind, {"store": label, **facts}))
        except queue.Full:
            say("too much to record about stores: left out")


def say(message: str) -> None:
    """Write one line to the process's log."""
    print(f"modelkeep: recorder: {message}", file=sys.stderr, flush=True)  # noqa: T201  # its log
