"""Goal: whenever the power fails, nothing acknowledged is lost and no checkpoint is contradicted.

Method: journal, reserve and two stores on one simulated disk; entries are recorded and published so
that segments roll over and are dropped, tiles fill up and checkpoints go away. The power is cut
before every single change of that disk, and everything starts again on what is left.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from ledger_log import ORIGIN, SIGNER, access_to, entry, numbers, sequencer_over, verified

from modelkeep.adapters.journal_file import JournalFile
from modelkeep.adapters.store_folder import FolderStore
from modelkeep.core.errors import KeepError
from modelkeep.ledger.checkpoint import verified_checkpoint
from modelkeep.ledger.log import LogReader
from modelkeep.testing.memory import SeededEntropy
from modelkeep.testing.power import Fuse, PowerCut, SimulatedDisk

STEPS = (1, 3, 60, 254, 258, 259, 300, 301, 302, 303, 304, 305)


def world_on(disk, *, seed):
    journal = JournalFile(
        disk, Path("/wal"), segment_frames_max=40, reserve_bytes=100, writable=True
    )
    stores = [FolderStore(Path("/main"), "main", disk), FolderStore(Path("/off"), "off", disk)]
    return journal, stores, sequencer_over(journal, stores, entropy=SeededEntropy(seed))


def story(disk, *, seed):
    """Record and publish as STEPS say, going on from what is there; what was acknowledged."""
    told = 0
    with contextlib.suppress(PowerCut):
        _, _, sequencer = world_on(disk, seed=seed)
        for size in STEPS:
            size_now = sequencer.size
            if size > size_now:
                sequencer.append([entry(n) for n in range(size_now, size)])
            told = max(told, size, size_now)
            sequencer.publish()
    return told


def checkpoints_on(disk):
    return [
        verified_checkpoint(disk.read(path), origin=ORIGIN, public=SIGNER.public)
        for path, _ in disk.walk(Path("/"))
        if "checkpoint" in path.parts and ".tmp" not in path.parts
    ]


@pytest.mark.slow
@pytest.mark.verify("ledger")
def test_a_power_cut_before_any_change_of_the_disk_loses_nothing(count):
    whole = SimulatedDisk()
    assert story(whole, seed=1) == STEPS[-1]
    journal, _, _ = world_on(whole, seed=1)
    assert journal.first_position() > 0, "segments were dropped"
    every = count(11, full=1)
    for at in range(0, whole.fuse.count, every):
        disk = SimulatedDisk(Fuse(at))
        acknowledged = story(disk, seed=1)
        left = disk.after_power_cut()
        seen = checkpoints_on(left)
        journal, stores, _ = world_on(left, seed=2)
        for store in stores:  # what a crash leaves is never taken for damage
            with contextlib.suppress(KeepError):
                assert verified(store).is_whole
        found = numbers(access_to(stores[0], journal))
        assert found == [(n, n) for n in range(len(found))], at
        assert len(found) >= acknowledged, at
        assert story(left, seed=2) == STEPS[-1]
        for store in stores:
            report = verified(store)
            assert (report.size, report.findings) == (STEPS[-1], ()), at
            root = LogReader(store, ORIGIN).range_root(report.size)
            assert all(root(0, each.size) == each.root for each in seen), at
