"""Call records go when they were kept long enough; what they were stays proven."""

from __future__ import annotations

import contextlib
from itertools import islice
from pathlib import Path

import pytest

from modelkeep.adapters.journal_file import JournalFile
from modelkeep.core.call_record import CallRecord, encoded_record
from modelkeep.core.entry import Entry
from modelkeep.core.errors import MissingError
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import Signer
from modelkeep.flows.ledger import Sequencer
from modelkeep.flows.ledger_read import LogAccess, covered_positions, entry_proof, read_entries
from modelkeep.ledger.batch import batch_entry, batch_of, prove_record, verify_record
from modelkeep.ledger.log import LogReader
from modelkeep.ledger.proof import verified_proof_text
from modelkeep.ledger.settings import LedgerSettings
from modelkeep.ledger.tree import leaf_hash
from modelkeep.testing.memory import MemoryStore, SeededEntropy
from modelkeep.testing.power import Fuse, PowerCut, SimulatedDisk
from modelkeep.workers.tailing import COVERED_ENTRIES, DAY_NS, CallTails

ORIGIN = "example.org/keep/main"
SIGNER = Signer(Secret(b"s" * 32))
BODY_KEY = Secret(b"b" * 32)
WAL, CALLS = Path("/wal"), Path("/journals")
SETTINGS = LedgerSettings(journals_keep_days=1, batch_records_max=7)


def frame(number):
    record = CallRecord(
        call_id=number.to_bytes(8, "big"),
        at_ns=number,
        principal="alice",
        tenant="default",
        model="digits",
        version=1,
        status=200,
        code="",
        nonce=bytes(16),
        input_commitment=b"",
        output_commitment=b"",
        latency_us=1,
    )
    return encoded_record(record)


class World:
    """A recorder's loop over a simulated disk, one gateway's journal beside it."""

    def __init__(self, disk, store=None, *, entropy=0, settings=SETTINGS):
        self.disk = disk
        self.store = store or MemoryStore()
        self.wal = JournalFile(disk, WAL, segment_bytes_max=2_000, writable=True)
        self.sequencer = Sequencer(
            origin=ORIGIN,
            journal=self.wal,
            stores=[self.store],
            signer=SIGNER,
            body_key=BODY_KEY,
            entropy=SeededEntropy(entropy),
        )
        self.access = LogAccess(self.store, ORIGIN, SIGNER.public, BODY_KEY, self.wal)
        self.tails = CallTails(
            CALLS,
            covered=lambda: covered_positions(self.access),
            settings=settings,
            disk=disk,
            changed_ns=lambda path: int(path.stem) * DAY_NS,  # a segment a day for each position
        )

    def journal(self, *, writable=False, name="gateway-0"):
        folder = CALLS / name
        return JournalFile(self.disk, folder, segment_bytes_max=400, writable=writable)

    def commit(self, now_ns=0):
        while steps := self.tails.steps(now_ns):
            self.sequencer.append([step.entry for step in steps])
            self.tails.done(steps)

    def expire(self, now_ns):
        expiries = self.tails.expiries(now_ns)
        if expiries:
            self.sequencer.append([each.entry for each in expiries])
            self.tails.let_go(expiries)

    def batches(self):
        found = ((index, batch_of(entry)) for index, entry in read_entries(self.access))
        return [(index, batch) for index, batch in found if batch is not None]

    def kinds(self):
        return [entry.kind for _, entry in read_entries(self.access)]


def test_old_records_go_and_their_batch_is_still_proven():
    world = World(SimulatedDisk())
    calls = world.journal(writable=True)
    for number in range(40):
        calls.append([frame(number)])
    world.commit()
    world.sequencer.publish()
    [(index, batch), *_] = world.batches()
    path = prove_record([frame(number) for number in range(batch.count)], position=3)
    world.expire(21 * DAY_NS)
    world.sequencer.publish()
    first = world.journal().first_position()
    assert 15 < first <= 21
    assert world.kinds().count("calls.expired") == 1
    world.expire(21 * DAY_NS)
    assert world.kinds().count("calls.expired") == 1  # said once
    with pytest.raises(MissingError) as expired:
        list(world.journal().read(3))
    assert expired.value.code == "journal.expired"
    # Who kept the record and its path in the batch can still prove both.
    leaf = LogReader(world.store, ORIGIN).leaves(world.sequencer.size, index=0)[index]
    text = entry_proof(world.access, index)
    verified_proof_text(text, hashed_leaf=leaf_hash(leaf), origin=ORIGIN, public=SIGNER.public)
    [(_, entry)] = islice(read_entries(world.access, index), 1)
    root = bytes.fromhex(entry.facts["root"])
    verify_record(frame(3), position=3, count=batch.count, proof=path, root=root)


def test_what_no_batch_covers_and_the_last_segment_stay():
    world = World(SimulatedDisk())
    calls = world.journal(writable=True)
    for number in range(40):
        calls.append([frame(number)])
    world.expire(999 * DAY_NS)
    assert world.journal().first_position() == 0
    world.commit()
    for number in range(40, 60):
        calls.append([frame(number)])
    world.expire(999 * DAY_NS)
    assert 30 < world.journal().first_position() <= 40
    world.commit()
    world.expire(999 * DAY_NS)
    assert 50 < world.journal().first_position() < 60
    assert calls.append([frame(60)]) == 60  # the writer noticed nothing
    world.commit()
    assert "calls.gap" not in world.kinds()
    assert [batch.first for _, batch in world.batches()][1:] == [
        batch.end for _, batch in world.batches()
    ][:-1]


def test_a_large_journal_loses_its_oldest_records_first():
    world = World(SimulatedDisk(), settings=LedgerSettings(journals_keep_bytes=1_500))
    calls = world.journal(writable=True)
    for number in range(60):
        calls.append([frame(number)])
    world.commit()
    world.expire(0)
    assert sum(size for _, size in world.disk.walk(CALLS)) <= 1_500
    assert world.journal().next_position() == 60


def retention_story(disk, store, entropy):
    """Record calls, commit, publish and expire; how many calls were acknowledged."""
    told = [0]
    with contextlib.suppress(PowerCut):
        world = World(disk, store, entropy=entropy)
        calls = world.journal(writable=True)
        told[0] = calls.next_position()
        for days in (10, 20, 30):
            while told[0] < days + 5:
                calls.append([frame(told[0])])
                told[0] += 1
            world.commit()
            world.expire(days * DAY_NS)
            world.sequencer.publish()
    return told[0]


def test_a_power_cut_before_any_change_of_retention_loses_nothing():
    whole = SimulatedDisk()
    assert retention_story(whole, MemoryStore(), 1) == 35
    assert whole.fuse.count > 150
    for at in range(whole.fuse.count):
        disk, store = SimulatedDisk(Fuse(at)), MemoryStore()
        told = retention_story(disk, store, 1)
        left = disk.after_power_cut()
        if left.walk(CALLS / "gateway-0"):
            kept = World(left, store).journal()
            positions = [position for position, _ in kept.read(kept.first_position())]
            assert positions == list(range(kept.first_position(), kept.next_position()))
            assert kept.next_position() >= told - 1  # the last mark may be lost, no frame is
        assert retention_story(left, store, 2) == 35
        world = World(left, store, entropy=3)
        kinds = world.kinds()
        assert "calls.gap" not in kinds
        assert "calls.damaged" not in kinds
        ends = [batch.end for _, batch in world.batches()]
        assert [batch.first for _, batch in world.batches()] == [0, *ends[:-1]]
        assert ends[-1] == 35
        assert world.journal().first_position() > 20


# ---- journals whose gateway is gone --------------------------------------------------------------


def test_journals_without_a_gateway_are_committed_once_and_never_again():
    disk, store = SimulatedDisk(), MemoryStore()
    world = World(disk, store)
    world.journal(writable=True, name="gateway-0-0").append([frame(0)] * 3)
    world.commit()
    world.journal(writable=True, name="gateway-0-1").append([frame(1)] * 9)  # and it died
    for entropy in range(1, 4):
        again = World(disk, store, entropy=entropy)
        again.commit()
        again.sequencer.publish()
    found = [(batch.journal, batch.first, batch.count) for _, batch in again.batches()]
    assert found == [("gateway-0-0", 0, 3), ("gateway-0-1", 0, 7), ("gateway-0-1", 7, 2)]
    assert again.kinds() == ["calls.batch"] * 3


def test_a_start_reads_back_to_the_last_word_on_all_journals_only():
    world = World(SimulatedDisk())
    world.journal(writable=True, name="old").append([frame(0)] * 5)
    world.journal(writable=True, name="gone").append([frame(0)] * 2)
    world.commit()
    assert world.tails.coverage(0, size=COVERED_ENTRIES - 1) is None
    said = world.tails.coverage(0, size=COVERED_ENTRIES)
    at = world.sequencer.append([said])
    filler = [Entry(kind="x", at_ns=n, actor="x") for n in range(5_000)]
    world.sequencer.append(filler)
    world.sequencer.append([batch_entry([b"x"], journal="new", first=0, at_ns=0)])
    world.sequencer.append(
        [Entry(kind="calls.gap", at_ns=0, actor="x", facts={"journal": "old", "next": 8})]
    )
    found = covered_positions(world.access)
    assert found.at == at
    assert found.positions == {"old": 8, "gone": 2, "new": 1}
    again = World(world.disk, world.store, entropy=9)
    assert [step.name for step in again.tails.steps(0)] == []
    assert again.tails.covered_at == at
