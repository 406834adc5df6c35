"""Goal: SIGKILL at any point of a recorder loses nothing acknowledged, and it is back soon.

Method: producers record all the time, a gateway's journal grows, and the recorder process is killed
again and again after a random time: while it starts, records, publishes, removes or rolls over.
"""

from __future__ import annotations

import contextlib
import random
import signal
import statistics
import threading
import time

import pytest
from recorder_service import ORIGIN, PUBLIC, Service

from modelkeep.adapters.disk import RealDisk
from modelkeep.adapters.journal_file import JournalFile
from modelkeep.core.entry import Entry
from modelkeep.core.errors import UnavailableError
from modelkeep.flows.ledger_read import read_entries
from modelkeep.ledger.batch import batch_of, prove_record, verify_record
from modelkeep.ledger.log import LogReader
from modelkeep.ledger.settings import LedgerSettings

REOPENED_S_MAX = 2.0
# Small enough that segments roll over, batches are parted and checkpoints go away all the time.
SETTINGS = LedgerSettings(
    publish_interval_s=0.05,
    batch_interval_s=0.05,
    batch_records_max=50,
    wal_segment_bytes_max=100_000,
    reserve_bytes=64 * 1024,
    checkpoints_kept=3,
)


class Producer:
    """Records without end; knows what was acknowledged."""

    def __init__(self, service, name, stop, seed):
        self.told = {}
        self._service, self._name, self._stop = service, name, stop
        self._rng = random.Random(seed)  # noqa: S311 - sizes of batches
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        client, number = self._service.client(timeout_s=5), 0
        while not self._stop.is_set():
            count = self._rng.choice([1, 2, 7, 40])
            entries = [
                Entry(kind="x.done", at_ns=n, actor=self._name, facts={})
                for n in range(number, number + count)
            ]
            number += count  # also of those that a kill leaves unanswered
            with contextlib.suppress(UnavailableError):
                first = client.record(entries)
                self.told.update({first + at: entry for at, entry in enumerate(entries)})
            time.sleep(0.002)


def until_it_answers(service):
    """Seconds from now until somebody else's record is acknowledged."""
    started = time.monotonic()
    service.client().record([Entry(kind="x.asked", at_ns=0, actor="test")])
    return time.monotonic() - started


@pytest.mark.slow
@pytest.mark.verify("ledger")
def test_no_kill_loses_what_was_acknowledged(tmp_path, count):
    seed = time.time_ns()
    rng = random.Random(seed)  # noqa: S311 - instants of kills
    service = Service(tmp_path, labels=("main",), settings=SETTINGS)
    calls = tmp_path / "journals" / "gateway-0"
    journal = JournalFile(RealDisk(), calls, segment_bytes_max=5_000, writable=True)
    frames, seen, reopened = [], [], []
    stop = threading.Event()
    producers = [Producer(service, name, stop, seed) for name in "abc"]
    try:
        for number in range(count(20, full=200)):
            fresh = [b"record %d" % (len(frames) + at) for at in range(rng.randrange(1, 30))]
            journal.append(fresh)
            frames += fresh
            service.start()
            if number % 5 == 4:  # killed while it starts
                time.sleep(rng.uniform(0, 0.4))
            else:
                reopened.append(until_it_answers(service))
                time.sleep(rng.expovariate(1 / 0.1))
            assert service.ended(signal.SIGKILL) == -signal.SIGKILL
            latest = LogReader(service.store("main"), ORIGIN).latest(public=PUBLIC)
            seen += [latest.checkpoint] if latest.checkpoint else []
        service.start()
        reopened.append(until_it_answers(service))
        time.sleep(4 * SETTINGS.batch_interval_s)
    finally:
        stop.set()
        for producer in producers:
            producer.thread.join()
        code = service.ended()
        service.close()
    assert code == 0
    demand_nothing_lost(service, producers, f"seed {seed}")
    demand_one_history(service, seen)
    demand_batches(service, frames)
    # The median: this process shares the machine with others, the bar is on what opening costs.
    assert statistics.median(reopened) < REOPENED_S_MAX, f"at most {max(reopened):.2f} s"


def demand_nothing_lost(service, producers, what):
    found = dict(read_entries(service.access()))
    assert list(found) == list(range(len(found))), what
    told = {index: entry for each in producers for index, entry in each.told.items()}
    assert len(told) == sum(len(each.told) for each in producers) > 100, what
    assert {index: found.get(index) for index in told} == told, what
    assert service.report("main").is_whole, what


def demand_one_history(service, seen):
    size = service.report("main").size
    root = LogReader(service.store("main"), ORIGIN).range_root(size)
    assert len(seen) > 5
    for checkpoint in seen:
        assert root(0, checkpoint.size) == checkpoint.root


def demand_batches(service, frames):
    at = 0
    for _, entry in read_entries(service.access()):
        batch = batch_of(entry)
        if batch is not None:
            assert (batch.journal, batch.first) == ("gateway-0", at)
            inside, root = frames[batch.first : batch.end], bytes.fromhex(batch.root)
            proof = prove_record(inside, position=0)
            verify_record(inside[0], position=0, count=batch.count, proof=proof, root=root)
            at = batch.end
    assert at == len(frames)
