"""Group commit: who waits, for what, and who hears of a failure."""

import asyncio
import threading

import pytest

from modelkeep.adapters.call_journal import CallJournal
from modelkeep.core.errors import UnavailableError


class SlowJournal:
    """A journal in memory whose writes wait for the test, and may fail."""

    def __init__(self):
        self.batches = []
        self.gate = threading.Event()
        self.gate.set()
        self.failure = None
        self.is_closed = False

    def append(self, frames):
        assert self.gate.wait(5)
        if self.failure is not None:
            raise self.failure
        first = sum(map(len, self.batches))
        self.batches.append(list(frames))
        return first

    def close(self):
        self.is_closed = True


def test_what_queues_during_a_write_is_the_next_batch():
    async def story():
        journal = SlowJournal()
        log = CallJournal(journal, name="g")
        journal.gate.clear()
        first = log.record(b"0")
        await asyncio.sleep(0.02)
        rest = [log.record(b"%d" % n) for n in range(1, 9)]
        await asyncio.sleep(0.02)
        assert not first.done()
        assert not any(each.done() for each in rest)
        journal.gate.set()
        assert await asyncio.gather(first, *rest) == list(range(9))
        assert journal.batches == [[b"0"], [b"%d" % n for n in range(1, 9)]]
        await log.close()
        assert journal.is_closed

    asyncio.run(story())


def test_a_failed_write_fails_its_own_calls_and_no_others():
    async def story():
        journal = SlowJournal()
        log = CallJournal(journal, name="g")
        for failure in (UnavailableError("journal.write", "full"), RuntimeError("odd")):
            journal.failure = failure
            with pytest.raises(UnavailableError) as raised:
                await log.record(b"lost")
            assert raised.value.code == "journal.write"
        journal.failure = None
        assert await log.record(b"kept") == 0
        await log.close()

    asyncio.run(story())


def test_closing_writes_what_is_queued_and_then_accepts_nothing():
    async def story():
        journal = SlowJournal()
        log = CallJournal(journal, name="g")
        journal.gate.clear()
        waiting = [log.record(b"a")]
        await asyncio.sleep(0.02)
        waiting += [log.record(b"b"), log.record(b"c")]
        asyncio.get_running_loop().call_later(0.02, journal.gate.set)
        await log.close()
        assert await asyncio.gather(*waiting) == [0, 1, 2]
        with pytest.raises(UnavailableError):
            log.record(b"late")
        await log.close()

    asyncio.run(story())
