"""Group commit: who waits, for what, and who hears of a failure."""

import asyncio
import errno
import os

import pytest

from modelkeep.adapters.call_journal import QUICK_SYNC_S, CallJournal
from modelkeep.adapters.disk import RealDisk
from modelkeep.adapters.journal_file import JournalFile
from modelkeep.core.errors import UnavailableError


class Held:
    """Stands in for what syncs aside: a batch is durable, or not, when the test says so."""

    def __init__(self, log):
        log._aside.close()
        log._aside = self
        self._log = log
        self.asked = 0

    def sync(self, descriptor):
        os.fdatasync(descriptor)
        self.asked += 1

    def done(self, error=0):
        self._log._synced(error)

    def close(self):
        pass


def made(folder, **options):
    journal = JournalFile(RealDisk(), folder / "journal", writable=True)
    return journal, CallJournal(journal, name="g", **options)


def frames_in(folder):
    reader = JournalFile(RealDisk(), folder / "journal", writable=False)
    return [frame for _, frame in reader.read(0)]


def test_what_queues_during_a_write_is_the_next_batch(tmp_path):
    async def story():
        batches = []
        _, log = made(tmp_path, on_batch=lambda count, _: batches.append(count))
        held = Held(log)
        first = log.record(b"0")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        rest = [log.record(b"%d" % n) for n in range(1, 9)]
        await asyncio.sleep(0.02)
        assert held.asked == 1
        assert not any(each.done() for each in (first, *rest))
        held.done()
        assert await first == 0
        assert held.asked == 2
        held.done()
        assert await asyncio.gather(*rest) == list(range(1, 9))
        assert batches == [1, 8]
        await log.close()

    asyncio.run(story())
    assert frames_in(tmp_path) == [b"%d" % n for n in range(9)]


def test_a_reader_sees_nothing_that_is_not_durable(tmp_path):
    async def story():
        _, log = made(tmp_path)
        held = Held(log)
        waiting = log.record(b"x")
        await asyncio.sleep(0.01)
        assert held.asked == 1
        assert frames_in(tmp_path) == []
        held.done()
        await waiting
        assert frames_in(tmp_path) == [b"x"]
        await log.close()

    asyncio.run(story())


def test_a_batch_that_is_not_durable_is_cut_off_and_fails_its_own_calls_only(tmp_path):
    async def story():
        _, log = made(tmp_path)
        held = Held(log)
        lost = [log.record(b"lost"), log.record(b"too")]
        await asyncio.sleep(0.01)
        held.done(errno.EIO)
        for each in lost:
            with pytest.raises(UnavailableError) as raised:
                await each
            assert raised.value.code == "journal.write"
        kept = log.record(b"kept")
        await asyncio.sleep(0.01)
        held.done()
        assert await kept == 0
        await log.close()

    asyncio.run(story())
    assert frames_in(tmp_path) == [b"kept"]


def test_a_batch_that_cannot_be_written_fails_its_calls(tmp_path):
    async def story():
        journal, log = made(tmp_path)
        begin = journal.begin
        for failure in (UnavailableError("journal.write", "full"), RuntimeError("odd")):

            def fails(_frames, failure=failure):
                raise failure

            journal.begin = fails
            with pytest.raises(UnavailableError) as raised:
                await log.record(b"lost")
            assert raised.value.code == "journal.write"
        journal.begin = begin
        assert await log.record(b"kept") == 0
        await log.close()

    asyncio.run(story())
    assert frames_in(tmp_path) == [b"kept"]


def test_closing_writes_what_is_queued_and_then_accepts_nothing(tmp_path):
    async def story():
        _, log = made(tmp_path)
        waiting = [log.record(b"%d" % n) for n in range(3)]
        await log.close()
        assert await asyncio.gather(*waiting) == [0, 1, 2]
        with pytest.raises(UnavailableError):
            log.record(b"late")
        await log.close()

    asyncio.run(story())
    assert frames_in(tmp_path) == [b"0", b"1", b"2"]


def test_records_wait_for_those_that_usually_come_with_them_and_not_for_ever(tmp_path):
    async def story():
        batches = []
        _, log = made(
            tmp_path, on_batch=lambda count, _: batches.append(count), in_flight=lambda: 4
        )
        await asyncio.gather(*(log.record(b"%d" % n) for n in range(4)))
        early = log.record(b"early")
        await asyncio.sleep(0)
        await asyncio.gather(early, *(log.record(b"late %d" % n) for n in range(3)))
        await log.record(b"nobody comes with it")
        await log.record(b"and nobody is waited for")
        assert batches == [4, 4, 1, 1]
        assert log._gathering.target == 1
        await log.close()

    asyncio.run(story())


@pytest.mark.parametrize("is_native", [True, False])
def test_many_records_are_made_durable_in_order(tmp_path, is_native, monkeypatch):
    if not is_native:
        monkeypatch.setattr("modelkeep.adapters.sync_aside.LIBRARY", None)

    async def caller(log, number):
        for turn in range(20):
            await log.record(b"%d %d" % (number, turn))

    async def story():
        _, log = made(tmp_path)
        await asyncio.gather(*(caller(log, number) for number in range(16)))
        await log.close()

    asyncio.run(story())
    frames = frames_in(tmp_path)
    assert len(frames) == len(set(frames)) == 320
    for number in range(16):
        own = [frame for frame in frames if frame.startswith(b"%d " % number)]
        assert own == [b"%d %d" % (number, turn) for turn in range(20)]


def test_a_lone_record_is_synced_by_the_loop_and_with_a_second_call_or_a_slow_disk_it_is_not(
    tmp_path,
):
    async def story():
        in_flight = [1]
        _, log = made(tmp_path, in_flight=lambda: in_flight[0])
        held = Held(log)

        async def recorded():
            waiting = log.record(b"x")
            await asyncio.sleep(0.01)
            is_aside = not waiting.done()
            if is_aside:
                held.done()
            await waiting
            return is_aside

        assert await recorded(), "the first one shows how fast the disk is"
        log._last_sync_s = 0.0
        assert not await recorded()
        log._last_sync_s = 0.0
        in_flight[0] = 2
        assert await recorded()
        in_flight[0] = 1
        log._last_sync_s = QUICK_SYNC_S
        assert await recorded(), "a slow disk"
        await log.close()

    asyncio.run(story())
    assert frames_in(tmp_path) == [b"x"] * 4
