"""The ledger from append to proof: crashes, stores that fail, journals that are rolled back."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from ledger_log import (
    BODY_KEY,
    ORIGIN,
    PREFIX,
    SIGNER,
    Log,
    access_to,
    entry,
    numbers,
    sequencer_over,
    verified,
    wal_on,
)

from modelkeep.adapters.journal_file import JournalFile
from modelkeep.core.entry import Entry
from modelkeep.core.errors import IntegrityError, KeepError, UnavailableError, UsageError
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import Signer
from modelkeep.flows.ledger import Sequencer
from modelkeep.flows.ledger_read import (
    covered_positions,
    entry_proof,
    find_entries,
    history_proof,
    latest_checkpoint,
    log_size,
    tail_entries,
)
from modelkeep.ledger.batch import batch_entry
from modelkeep.ledger.checkpoint import verified_checkpoint
from modelkeep.ledger.log import LogReader
from modelkeep.ledger.proof import consistency_proof, verified_proof_text, verify_consistency
from modelkeep.ledger.tiles import parsed_checkpoint_size
from modelkeep.ledger.tree import leaf_hash
from modelkeep.ledger.verify import demand_whole
from modelkeep.testing.memory import MemoryStore, SeededEntropy
from modelkeep.testing.power import Fuse, PowerCut, SimulatedDisk

# ---- what is recorded is read, published or not ---------------------------------------------


def test_what_was_appended_is_read_before_and_after_publishing():
    log = Log()
    log.append(300)
    access = access_to(log.store, log.journal)
    assert numbers(access) == [(n, n) for n in range(300)]
    log.sequencer.publish()
    log.append(700)
    for start in (0, 1, 255, 256, 299, 300, 699):
        assert numbers(access, start) == [(n, n) for n in range(start, 700)]
    assert numbers(access, 700) == []
    assert numbers(access_to(log.store)) == [(n, n) for n in range(300)]
    assert log_size(access) == 700


def test_entries_are_found_by_kind_actor_and_time():
    log = Log(10)
    log.sequencer.append([entry(10, kind="models.other"), entry(11, kind="token.issued")])
    access = access_to(log.store, log.journal)
    assert [index for index, _ in find_entries(access, kind="model")] == list(range(10))
    assert [index for index, _ in find_entries(access, kind="token.issued")] == [11]
    assert [index for index, _ in find_entries(access, since_ns=5, until_ns=8)] == [5, 6, 7]
    assert list(find_entries(access, actor="nobody")) == []
    assert [index for index, _ in tail_entries(access, count=3)] == [9, 10, 11]


def test_a_log_of_any_size_verifies_in_every_store():
    log = Log(stores=2)
    for size in (1, 2, 255, 256, 257, 511, 512, 600, 1024):
        log.grow(size)
        for store in log.stores:
            report = verified(store)
            assert (report.size, report.findings) == (size, ())
            demand_whole(report)


def test_nothing_readable_lies_in_store_or_journal():
    log = Log(30)
    log.append(40)
    everything = b"".join(log.store.objects.values()) + b"".join(
        log.disk.read(path) for path, _ in log.disk.walk(Path("/wal"))
    )
    assert b"admitted" not in everything
    assert b"cli:root" not in everything


def test_only_eight_checkpoints_and_their_tiles_stay():
    log = Log()
    for size in range(1, 40):
        log.grow(size)
    names = set(log.store.objects)
    sizes = sorted(filter(None, (parsed_checkpoint_size(PREFIX, name) for name in names)))
    assert sizes == list(range(32, 40))
    assert {name.rpartition("/")[2] for name in names if ".p/" in name} == set(map(str, sizes))
    log.grow(300)
    assert verified(log.store).findings == ()


def test_every_entry_is_proven_offline():
    log = Log(700)
    access = access_to(log.store)
    leaves = [
        leaf for index in range(3) for leaf in LogReader(log.store, ORIGIN).leaves(700, index=index)
    ]
    for index in (0, 1, 255, 256, 511, 512, 699):
        text = entry_proof(access, index)
        hashed = leaf_hash(leaves[index])
        found = verified_proof_text(text, hashed_leaf=hashed, origin=ORIGIN, public=SIGNER.public)
        assert found == (index, latest_checkpoint(access))
    with pytest.raises(UsageError):
        entry_proof(access, 700)


def test_history_is_proven_between_checkpoints():
    log = Log(100)
    access = access_to(log.store)
    before = latest_checkpoint(access)
    log.grow(700)
    now, proof = history_proof(access, 100)
    verify_consistency(old=100, old_root=before.root, size=now.size, root=now.root, proof=proof)


def test_covered_positions_are_those_of_the_last_batches():
    log = Log()
    for number in range(3):
        log.sequencer.append(
            [
                batch_entry([b"x"] * 5, journal="gateway-0", first=5 * number, at_ns=0),
                batch_entry([b"x"] * 7, journal="gateway-1", first=7 * number, at_ns=0),
            ]
        )
    log.sequencer.append([entry(n) for n in range(5000)])
    log.sequencer.publish()
    log.sequencer.append([batch_entry([b"x"], journal="gateway-0", first=15, at_ns=0)])
    access = access_to(log.store, log.journal)
    assert covered_positions(access).positions == {"gateway-0": 16, "gateway-1": 21}


def test_an_entry_that_is_too_long_records_nothing():
    log = Log(1)
    long = Entry(kind="x", at_ns=0, actor="x", facts={"text": "a" * 70_000})
    with pytest.raises(UsageError):
        log.sequencer.append([entry(1), long])
    assert log.sequencer.size == 1


# ---- crashes ----------------------------------------------------------------------------------


class CuttingStore(MemoryStore):
    """A store whose power fails before one of its changes; what was put is durable."""

    def __init__(self, fuse, left=None):
        super().__init__("store")
        self.objects = dict(left or {})
        self.fuse = fuse

    def put(self, name, raw):
        if name not in self.objects:
            self.fuse.spend()
        super().put(name, raw)

    def delete(self, name):
        if name in self.objects:
            self.fuse.spend()
        super().delete(name)


STEPS = (1, 3, 254, 258, 259, 520)


def story(disk, stores, *, entropy):
    """Append and publish as STEPS say, going on from what is there; what was acknowledged."""
    told = []
    try:
        journal = wal_on(disk)
        sequencer = sequencer_over(journal, stores, entropy=entropy)
        for size in STEPS:
            size_now = sequencer.size
            if size > size_now:
                sequencer.append([entry(n) for n in range(size_now, size)])
            told.append(max(size, size_now))
            sequencer.publish()
    except PowerCut:
        pass
    return told


def checkpoints_in(stores):
    return {
        verified_checkpoint(raw, origin=ORIGIN, public=SIGNER.public)
        for store in stores
        for name, raw in store.objects.items()
        if "/checkpoint/" in name
    }


def assert_one_history(store, seen):
    log = LogReader(store, ORIGIN)
    size = log.latest(public=SIGNER.public).size
    root = log.range_root(size)
    for each in seen:
        assert each.size <= size
        proof = consistency_proof(each.size, size=size, range_root=root)
        verify_consistency(
            old=each.size, old_root=each.root, size=size, root=root(0, size), proof=proof
        )


def cut_once(at):
    """Cut the power before change `at`, start again, compare; whether the cut came at all."""
    fuse = Fuse(at)
    disk = SimulatedDisk(fuse)
    stores = [CuttingStore(fuse), CuttingStore(fuse)]
    acknowledged = [0, *story(disk, stores, entropy=SeededEntropy(1))][-1]
    seen = checkpoints_in(stores)
    was_cut = fuse.count >= at
    disk = disk.after_power_cut()
    stores = [CuttingStore(Fuse(), store.objects) for store in stores]
    for store in stores:
        for size in [each.size for each in seen]:
            assert size <= wal_on(disk).next_position()
        if store.objects:  # what a crash leaves is never taken for damage
            with contextlib.suppress(KeepError):
                assert verified(store).is_whole
    assert len(numbers(access_to(stores[0], wal_on(disk)))) >= acknowledged
    story(disk, stores, entropy=SeededEntropy(2))
    for store in stores:
        report = verified(store)
        assert (report.size, report.findings) == (STEPS[-1], ())
        assert numbers(access_to(store)) == [(n, n) for n in range(STEPS[-1])]
        assert_one_history(store, seen)
    return was_cut


def changes_in_story():
    fuse = Fuse()
    assert story(
        SimulatedDisk(fuse),
        [CuttingStore(fuse), CuttingStore(fuse)],
        entropy=SeededEntropy(1),
    ) == list(STEPS)
    return fuse.count


def test_a_power_cut_before_any_change_loses_nothing_and_forks_nothing():
    changes = changes_in_story()
    assert changes > 80
    for at in range(changes):
        assert cut_once(at)


# ---- stores that fail ---------------------------------------------------------------------------


class FailingStore(MemoryStore):
    fails = False

    def put(self, name, raw):
        if self.fails:
            raise UnavailableError("store.write", "the store is away")
        super().put(name, raw)


def test_a_failing_second_store_stops_nobody_and_catches_up():
    disk = SimulatedDisk()
    stores = [MemoryStore("first"), FailingStore("second"), MemoryStore("third")]
    journal = wal_on(disk, segment_bytes_max=2_000)
    sequencer = sequencer_over(journal, stores)
    stores[1].fails = True
    for at in range(0, 600, 20):
        sequencer.append([entry(n) for n in range(at, at + 20)])
        reports = sequencer.publish()
        assert [report.size for report in reports] == [at + 20, 0, at + 20]
        assert [bool(report.error) for report in reports] == [False, True, False]
    assert next(iter(journal.read(0)))[0] == 0  # kept for the store that lacks it
    stores[1].fails = False
    assert [report.size for report in sequencer.publish()] == [600, 600, 600]
    assert stores[0].objects.keys() >= stores[1].objects.keys()
    assert verified(stores[1]).findings == ()


def test_the_journal_lets_go_of_what_every_store_has():
    log = Log(stores=2)
    log.journal = wal_on(log.disk, segment_bytes_max=2_000)
    log.sequencer = sequencer_over(log.journal, log.stores)
    for size in range(50, 2_001, 50):
        log.grow(size)
    assert log.journal.first_position() > 1_000
    again = sequencer_over(wal_on(log.disk), log.stores)
    assert [report.size for report in again.publish()] == [2_000, 2_000]


def test_a_new_store_is_filled_from_the_first_one():
    log = Log(stores=1)
    log.journal = wal_on(log.disk, segment_bytes_max=2_000)
    log.sequencer = sequencer_over(log.journal, log.stores)
    for size in range(50, 1_001, 50):
        log.grow(size)
    assert log.journal.first_position() > 0
    stores = [log.store, MemoryStore("new")]
    sequencer = sequencer_over(wal_on(log.disk), stores)
    assert [report.error for report in sequencer.publish()] == [None, None]
    assert verified(stores[1]).findings == ()
    assert numbers(access_to(stores[1])) == [(n, n) for n in range(1_000)]


def test_a_journal_that_was_rolled_back_is_refused():
    log = Log(10, stores=2)
    before = log.disk.after_power_cut()
    log.grow(20)
    for stores in ([log.stores[0]], [MemoryStore("fresh"), log.stores[1]]):
        with pytest.raises(IntegrityError, match=r"ledger\.behind"):
            sequencer_over(wal_on(before), stores)


def test_a_store_with_another_history_is_not_written_to():
    log = Log(10)
    other = MemoryStore("other")
    stranger = sequencer_over(wal_on(SimulatedDisk()), [other], entropy=SeededEntropy(9))
    stranger.append([entry(n) for n in range(5)])
    stranger.publish()
    before = dict(other.objects)
    both = sequencer_over(log.journal, [log.store, other])
    [first, second] = both.publish()
    assert first.error is None
    assert second.error is not None
    assert second.error.code == "ledger.fork"
    assert other.objects == before


def test_checkpoints_of_another_key_are_never_replaced():
    log = Log(10)
    before = dict(log.store.objects)
    stranger = Sequencer(
        origin=ORIGIN,
        journal=log.journal,
        stores=[log.store],
        signer=Signer(Secret(b"x" * 32)),
        body_key=BODY_KEY,
        entropy=SeededEntropy(),
    )
    with pytest.raises(IntegrityError, match=r"ledger\.checkpoint"):
        stranger.publish()
    assert log.store.objects == before


def test_a_latest_checkpoint_that_was_damaged_is_written_anew():
    log = Log(5, 10)
    name = f"{PREFIX}checkpoint/{10:012d}"
    right = log.store.objects[name]
    log.store.objects[name] = right[:-9] + right[-8:]
    [report] = sequencer_over(log.journal, [log.store]).publish()
    assert report.healed == (name,)
    assert log.store.objects[name] == right


def test_a_log_with_a_new_origin_lies_beside_the_old_one():
    log = Log(10)
    before = dict(log.store.objects)
    fresh = sequencer_over(
        JournalFile(SimulatedDisk(), Path("/wal"), writable=True),
        [log.store],
        origin="example.org/keep/recovered",
    )
    fresh.append([entry(0, kind="ledger.resumed")])
    fresh.publish()
    assert {name: log.store.objects[name] for name in before} == before
    assert verified(log.store).size == 10
