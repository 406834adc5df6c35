"""The ledger at a pace, and what its readers cost."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from ledger_log import Log, access_to

from benchmarks import ledger as benchmark
from modelkeep.flows.ledger_read import tail_entries
from modelkeep.testing.memory import MemoryStore

PACE_PER_S = 10_000
ACKNOWLEDGED_MS_MAX = 20.0


class CountingStore(MemoryStore):
    gets = 0

    def get(self, name, **where):
        self.gets += 1
        return super().get(name, **where)


def test_the_last_entries_of_a_long_log_cost_a_few_objects():
    log = Log(5_000)
    store = CountingStore()
    store.objects = log.store.objects
    log.append(5_010)
    last = list(tail_entries(access_to(store, log.journal), count=100))
    assert [index for index, _ in last] == list(range(4_910, 5_010))
    assert store.gets < 10


@pytest.mark.slow
@pytest.mark.verify("ledger-paced")
def test_ten_thousand_a_second_are_acknowledged_in_time_and_none_is_lost(count):
    """Ten minutes of it with `./run verify ledger-paced`; its times are judged only there."""
    seconds = count(2, full=600)
    benchmark.PLACE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=benchmark.PLACE) as folder:
        run = benchmark.served(Path(folder) / "paced", seconds=seconds, per_s=PACE_PER_S)
    times = {share: round(run.percentile(share), 1) for share in (0.5, 0.99, 0.999, 1.0)}
    what = f"{times} ms, {run.acknowledged_per_s:.0f}/s, load {os.getloadavg()}"
    assert run.lost == 0, what
    assert run.records == pytest.approx(seconds * PACE_PER_S, rel=0.02), what
    if seconds > 2:
        assert times[0.99] <= ACKNOWLEDGED_MS_MAX, what
