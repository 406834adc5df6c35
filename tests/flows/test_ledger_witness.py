"""Whoever has the signing key can write another history; witnesses find it, and say no more.

One keep is the witness. The log that it watches is first a bare sequencer over memory (so that a
thief of its key can be played), then a whole keep whose stores and journal are rolled back.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from command import wait_until
from scenes import Scene

from modelkeep.adapters.journal_file import JournalFile
from modelkeep.core.entry import Entry
from modelkeep.core.errors import IntegrityError, MissingError, UnavailableError
from modelkeep.core.record import replaced
from modelkeep.core.verdict import Severity
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import Signer
from modelkeep.flows.ledger import Sequencer
from modelkeep.flows.witness import COSIGNATURES_KEPT, cosigned_log, witness_of
from modelkeep.flows.witnessed import (
    NEW_LOG_ENTRIES,
    Poster,
    announce,
    demand_witnessed,
    quorum_size,
    witnessed,
)
from modelkeep.ledger.beside import COSIGNATURE, abroad_prefix
from modelkeep.ledger.checkpoint import verified_checkpoint
from modelkeep.ledger.cosignature import verified_cosignatures
from modelkeep.ledger.log import LogReader
from modelkeep.ledger.settings import WitnessSettings, WitnessStore
from modelkeep.ledger.tiles import log_prefix
from modelkeep.ledger.verify import verified_log
from modelkeep.testing.memory import MemoryStore, SeededEntropy, SteppingClock
from modelkeep.testing.power import SimulatedDisk
from modelkeep.workers.posting import Posting

ORIGIN = "example.org/watched"
SIGNER = Signer(Secret(b"s" * 32))
BODY_KEY = Secret(b"b" * 32)


@pytest.fixture
def keep(tmp_path):
    with Scene(tmp_path).create() as made:
        yield made.opened


class Log:
    """A log of somebody else; two with different seeds are two histories under one key."""

    def __init__(self, seed=1, signer=SIGNER):
        self.store = MemoryStore("theirs")
        self.signer = signer
        self.sequencer = Sequencer(
            origin=ORIGIN,
            journal=JournalFile(SimulatedDisk(), Path("/wal"), writable=True),
            stores=[self.store],
            signer=signer,
            body_key=BODY_KEY,
            entropy=SeededEntropy(seed),
        )

    def grow(self, size):
        fresh = range(self.sequencer.size, size)
        self.sequencer.append([Entry(kind="x.y", at_ns=n, actor="x") for n in fresh])
        self.sequencer.publish()
        return self

    def cosigned(self, keep):
        return cosigned_log(keep, self.store, origin=ORIGIN, public=self.signer.public)

    def verified(self):
        public = self.signer.public
        return verified_log(self.store, origin=ORIGIN, public=public, body_key=BODY_KEY)


def entries(keep, kind):
    return [entry for _, entry in keep.history(0) if entry.kind == kind]


# ---- being a witness ----------------------------------------------------------------------------


def test_a_log_that_grows_is_cosigned_every_time(keep):
    log = Log()
    before = 0
    for size in (1, 7, 256, 300, 513, 1024):
        done = log.grow(size).cosigned(keep)
        assert (done.size, done.before) == (size, before)
        before = size
        raw = log.store.get(done.object)
        assert raw == done.note.encode()
        witness = witness_of(keep.keep_id, keep.keys)
        _, (found,) = verified_cosignatures(
            raw, origin=ORIGIN, public=SIGNER.public, witnesses=[witness]
        )
        assert found.at_s == done.at_s
    assert log.verified().findings == ()
    assert [each.facts["size"] for each in entries(keep, "witness.cosigned")] == [
        1, 7, 256, 300, 513, 1024,
    ]  # fmt: skip


def test_the_same_checkpoint_is_cosigned_again_with_a_newer_time_and_recorded_once(keep):
    log = Log().grow(5)
    first = log.cosigned(keep)
    for _ in range(2 * COSIGNATURES_KEPT):
        keep.clock.monotonic_ns()
        keep.clock._at_ns += 10**9
        last = log.cosigned(keep)
    assert last.at_s > first.at_s
    assert len(entries(keep, "witness.cosigned")) == 1
    held = [name for name in log.store.objects if f"/{COSIGNATURE}/" in name]
    assert len(held) == COSIGNATURES_KEPT
    assert last.object in held
    assert log.verified().findings == ()


def test_a_thief_of_the_signing_key_gets_no_cosignature_for_another_history(keep):
    """Shorter, as long, longer: whatever does not begin with what was witnessed is refused."""
    Log().grow(300).cosigned(keep)
    for size, code in ((200, "witness.rolled_back"), (300, "witness.fork"), (700, "witness.fork")):
        forged = Log(seed=9).grow(size)
        with pytest.raises(IntegrityError) as refused:
            forged.cosigned(keep)
        assert refused.value.code == code
        assert not any(COSIGNATURE in name for name in forged.store.objects)
    assert Log().grow(301).cosigned(keep).before == 300


def test_a_refusal_is_recorded_with_both_notes_once(keep):
    Log().grow(30).cosigned(keep)
    forged = Log(seed=9).grow(40)
    for _ in range(3):
        with pytest.raises(IntegrityError):
            forged.cosigned(keep)
    (entry,) = entries(keep, "witness.refused")
    assert (entry.facts["origin"], entry.facts["reason"]) == (ORIGIN, "fork")
    notes = [
        verified_checkpoint(str(entry.facts[name]).encode(), origin=ORIGIN, public=SIGNER.public)
        for name in ("seen", "got")
    ]
    assert [each.size for each in notes] == [30, 40]  # both signed: evidence against the signer


@pytest.mark.parametrize("size", [1, 2, 256])
def test_a_fork_of_a_log_whose_size_is_a_power_of_two_is_refused_too(keep, size):
    """RFC 9162 leaves the old root out of such a proof: it must not be taken on trust."""
    Log().grow(size).cosigned(keep)
    forged = Log(seed=9).grow(2 * size + 1)
    with pytest.raises(IntegrityError, match=r"witness\.fork"):
        forged.cosigned(keep)


def test_damaged_tiles_are_refused_and_accuse_nobody(keep):
    Log().grow(300).cosigned(keep)
    log = Log().grow(700)
    for name in [name for name in log.store.objects if "/tile/0/" in name]:
        right = log.store.objects[name]
        log.store.objects[name] = right[:32] + bytes(32) + right[64:]
    with pytest.raises(IntegrityError, match=r"witness\.unproven"):
        log.cosigned(keep)
    assert entries(keep, "witness.refused") == []


def test_a_log_without_a_valid_checkpoint_is_not_cosigned(keep):
    with pytest.raises(MissingError, match=r"ledger\.none"):
        cosigned_log(keep, MemoryStore(), origin=ORIGIN, public=SIGNER.public)
    stranger = Log(signer=Signer(Secret(b"x" * 32))).grow(5)
    with pytest.raises(MissingError, match=r"ledger\.none"):
        cosigned_log(keep, stranger.store, origin=ORIGIN, public=SIGNER.public)


def test_a_log_cannot_change_its_key(keep):
    Log().grow(5).cosigned(keep)
    with pytest.raises(IntegrityError, match=r"ledger\.checkpoint"):
        Log(signer=Signer(Secret(b"x" * 32))).grow(6).cosigned(keep)


def test_what_was_witnessed_is_remembered_by_a_keep_that_was_closed(tmp_path):
    scene = Scene(tmp_path)
    with scene.create() as keep:
        Log().grow(30).cosigned(keep.opened)
    with scene.open() as keep, pytest.raises(IntegrityError, match=r"witness\.fork"):
        Log(seed=9).grow(40).cosigned(keep.opened)


def test_a_store_that_was_rolled_back_is_found_by_the_notes_that_lie_there(keep):
    """As long as the cosigned notes survive beside the checkpoints, no witness has to be asked."""
    log = Log().grow(40)
    before = dict(log.store.objects)
    done = log.grow(60).cosigned(keep)
    note = log.store.get(done.object)
    log.store.objects = {**before, done.object: note}
    (finding,) = log.verified().findings
    assert (finding.rule, finding.subject) == ("ledger.rollback", done.object)
    forged = Log(seed=9).grow(70)
    forged.store.put(done.object, note)
    assert {each.rule for each in forged.verified().findings} == {"ledger.fork"}


def test_a_note_beside_the_checkpoints_that_is_damaged_is_found(keep):
    log = Log().grow(40)
    done = log.cosigned(keep)
    raw = log.store.objects[done.object]
    log.store.objects[done.object] = raw[:30] + bytes([raw[30] ^ 1]) + raw[31:]
    (finding,) = log.verified().findings
    assert (finding.rule, finding.subject) == ("ledger.checkpoint", done.object)


# ---- being witnessed ----------------------------------------------------------------------------


class Watched:
    """A whole keep, a store elsewhere that keeps its checkpoints, and another keep that cosigns."""

    def __init__(self, folder):
        self.scene = Scene(folder / "a")
        self.scene.create().close()
        self.abroad = MemoryStore("abroad")
        self.other = Scene(folder / "b", seed=77)
        with self.other.create() as other:
            self.witness = witness_of(other.keep_id, other.opened.keys)

    def lived(self, *, cosigned=True):
        """Something happens; what was published is seen by both witnesses."""
        with self.scene.open() as keep:
            keep.ledger.append("note.day", {"n": 1})
        with self.scene.open() as keep:
            opened = keep.opened
            checkpoint = keep.ledger.checkpoint()
            poster = Poster([self.abroad], interval_s=60, clock=SteppingClock())
            assert poster.post(lambda: checkpoint) == ()
            if cosigned:
                with self.other.open() as other:
                    cosigned_log(
                        other.opened,
                        opened.store,
                        origin=opened.origin,
                        public=Signer(opened.keys.ledger_seed).public,
                    )
        return checkpoint

    def journal(self, keep):
        """Its write-ahead journal, to read."""
        folder = keep.ledger._folder.wal_folder(keep.opened.epochs[-1])
        return JournalFile(self.scene.disk, folder, writable=False)

    def seen(self, keep):
        return witnessed(keep.opened, trusted=[self.witness], abroad=[self.abroad])


@pytest.fixture
def watched(tmp_path):
    return Watched(tmp_path)


def test_an_honest_keep_agrees_with_its_witnesses(watched):
    watched.lived()
    newest = watched.lived()
    with watched.scene.open() as keep:
        seen = watched.seen(keep)
        assert [each.witness for each in seen] == [watched.witness.name, "abroad"]
        assert all(each.is_whole and not each.findings for each in seen)
        assert {each.size for each in seen} == {newest.size}
        stores = keep.opened.stores
        demand_witnessed(keep.opened, stores, [watched.abroad])
        at_s = seen[0].at_s
        origin = keep.opened.origin
        assert quorum_size(seen, origin=origin, quorum=1, since_s=at_s) == newest.size
        assert quorum_size(seen, origin=origin, quorum=1, since_s=at_s + 1) == -1
        assert quorum_size(seen, origin=origin, quorum=2, since_s=0) == -1
        twice = [seen[0], replaced(seen[0], witness="another/name")]  # one key is one witness
        assert quorum_size(twice, origin=origin, quorum=2, since_s=0) == -1
        twice[1] = replaced(seen[0], key="00")
        assert quorum_size(twice, origin=origin, quorum=2, since_s=0) == newest.size


def test_a_rollback_of_all_our_own_stores_journal_and_state_is_found(watched):
    """Everything that is ours goes back to yesterday; only what lies elsewhere knows."""
    watched.lived()
    yesterday = watched.scene.image()
    watched.lived()
    watched.scene.show(yesterday)
    with watched.scene.open() as keep:
        opened = keep.opened
        with pytest.raises(IntegrityError, match=r"ledger\.rolled_back"):
            demand_witnessed(opened, opened.stores, [watched.abroad])
        (_, abroad) = watched.seen(keep)
        assert not abroad.is_whole
        assert {each.rule for each in abroad.findings} == {"ledger.rollback"}
        assert all(report.is_whole for _, report in keep.ledger.verify())  # ours alone know nothing


def test_a_thief_of_the_signing_key_who_rewrites_history_is_found(watched):
    """The thief has every key and every store of the keep, but not the store elsewhere."""
    watched.lived()
    yesterday = watched.scene.image()
    watched.lived()
    watched.scene.show(yesterday)
    for _ in range(6):  # go on from yesterday, with other entries, beyond what was seen
        with watched.scene.open() as keep:
            keep.ledger.append("note.forged", {"n": 2})
    with watched.scene.open() as keep:
        with pytest.raises(IntegrityError, match=r"ledger\.forked"):
            demand_witnessed(keep.opened, keep.opened.stores, [watched.abroad])
        (_, abroad) = watched.seen(keep)
        assert {each.rule for each in abroad.findings} == {"ledger.fork"}
        opened = keep.opened
        public = Signer(opened.keys.ledger_seed).public
        with watched.other.open() as other, pytest.raises(IntegrityError, match=r"witness\.fork"):
            cosigned_log(other.opened, opened.store, origin=opened.origin, public=public)


def test_forged_checkpoints_abroad_do_not_hide_the_true_ones_from_a_verification(watched):
    """Whoever may add to the store elsewhere can bury its newest; a verification reads them all."""
    watched.lived()
    yesterday = watched.scene.image()
    watched.lived()
    watched.scene.show(yesterday)
    for _ in range(6):
        with watched.scene.open() as keep:
            keep.ledger.append("note.forged", {"n": 2})
    with watched.scene.open() as keep:
        log = LogReader(keep.opened.store, keep.opened.origin)
        public = Signer(keep.opened.keys.ledger_seed).public
        for size in log.checkpoint_sizes():
            poster = Poster([watched.abroad], interval_s=0, clock=SteppingClock())
            poster.post(partial(log.checkpoint, size, public=public))
        (_, abroad) = watched.seen(keep)
        assert {each.rule for each in abroad.findings} == {"ledger.fork"}


def test_a_witness_that_does_not_answer_is_said_and_stops_nobody(watched):
    class Away(MemoryStore):
        def list(self, _):
            raise UnavailableError("store.read", "gone")

        def put(self, _, __):
            raise UnavailableError("store.write", "gone")

    watched.lived()
    said = []
    with watched.scene.open() as keep:
        away = Away("away")
        demand_witnessed(keep.opened, keep.opened.stores, [away], warn=said.append)
        assert len(said) == 1
        (seen,) = witnessed(keep.opened, trusted=[], abroad=[away])
        assert seen.is_whole
        assert seen.findings[0].severity is Severity.MEDIUM
        poster = Poster([away, watched.abroad], interval_s=0, clock=SteppingClock())
        ((label, _),) = poster.post(keep.ledger.checkpoint)
        assert label == "away"


def test_rubbish_in_a_store_that_witnesses_is_said_and_accuses_nobody(watched):
    watched.lived()
    with watched.scene.open() as keep:
        prefix = abroad_prefix(keep.opened.origin)
        watched.abroad.put(f"{prefix}000000000003", b"rubbish")
        watched.abroad.put(f"{prefix}x", b"of somebody else")
        demand_witnessed(keep.opened, keep.opened.stores, [watched.abroad])
        (_, abroad) = watched.seen(keep)
        assert abroad.is_whole
        assert [each.rule for each in abroad.findings] == ["ledger.witness"]


def test_a_checkpoint_that_only_the_journal_has_yet_is_no_rollback(watched):
    watched.lived()
    with watched.scene.open() as keep:
        opened, index = keep.opened, keep.ledger.append("note.day", {"n": 3})
        first = LogReader(opened.store, opened.origin)
        size = first.latest(public=Signer(opened.keys.ledger_seed).public).size
        assert size <= index
        empty, journal = MemoryStore("replaced"), watched.journal(keep)
        demand_witnessed(opened, [empty], [watched.abroad], journal=journal)
        with pytest.raises(IntegrityError, match=r"ledger\.rolled_back"):
            demand_witnessed(opened, [empty], [watched.abroad])


def test_a_journal_that_was_rewritten_is_found_before_it_is_published(watched):
    """The stores are rolled back and the journal has as many entries as were seen, but others."""
    watched.lived()
    yesterday = watched.scene.image()
    seen = watched.lived()
    watched.scene.show(yesterday)
    with watched.scene.open() as keep:
        opened, log = keep.opened, LogReader(keep.opened.store, keep.opened.origin)
        while watched.journal(keep).next_position() < seen.size:
            keep.ledger.append("note.forged", {"n": 2})
        assert log.latest(public=Signer(opened.keys.ledger_seed).public).size < seen.size
        journal = watched.journal(keep)
        with pytest.raises(IntegrityError, match=r"ledger\.forked"):
            demand_witnessed(opened, opened.stores, [watched.abroad], journal=journal)


def test_a_log_that_cannot_be_compared_does_not_open(watched):
    """Who damages our tiles must not get another history past the witnesses so."""
    watched.lived()
    watched.lived()
    with watched.scene.open() as keep:
        opened = keep.opened
        whole, damaged = MemoryStore("whole"), MemoryStore("main")
        names = [stat.name for stat in opened.store.list("")]
        whole.objects = {name: opened.store.get(name) for name in names}
        tiles = f"{log_prefix(opened.origin)}tile/"
        damaged.objects = {
            name: raw for name, raw in whole.objects.items() if not name.startswith(tiles)
        }
        with pytest.raises(IntegrityError, match=r"ledger\.unproven"):
            demand_witnessed(opened, [damaged], [watched.abroad])
        demand_witnessed(opened, [damaged, whole], [watched.abroad])  # one good copy is enough


def test_a_witness_that_is_not_mounted_is_said_and_not_written_to():
    """Its mount point is an empty folder: what is put there witnesses nothing."""
    log, point, clock = Log(), MemoryStore("mount point"), SteppingClock()
    poster = Poster([point], interval_s=0, clock=clock)
    reader = LogReader(log.grow(NEW_LOG_ENTRIES).store, ORIGIN)
    newest = reader.latest(public=SIGNER.public).checkpoint
    ((label, error),) = poster.post(lambda: newest)
    assert (label, error.code, point.objects) == ("mount point", "witness.empty", {})
    announce(point, newest)
    later = LogReader(log.grow(NEW_LOG_ENTRIES + 1).store, ORIGIN)
    assert poster.post(lambda: later.latest(public=SIGNER.public).checkpoint) == ()
    assert len(point.objects) == 2


def test_an_opening_says_that_a_witness_holds_nothing_unless_the_log_is_new(watched, monkeypatch):
    watched.lived()
    said = []
    with watched.scene.open() as keep:
        known = {"stores": keep.opened.stores, "warn": said.append}
        demand_witnessed(keep.opened, abroad=[MemoryStore("away")], **known)
        assert said == []
        monkeypatch.setattr("modelkeep.flows.witnessed.NEW_LOG_ENTRIES", 2)
        demand_witnessed(keep.opened, abroad=[MemoryStore("away"), watched.abroad], **known)
    assert said == ["the witness away holds nothing of this log: is it mounted?"]


def test_a_store_gets_at_most_one_checkpoint_in_an_interval():
    log, store, clock = Log(), MemoryStore("abroad"), SteppingClock()
    poster = Poster([store], interval_s=3600, clock=clock)
    reader = LogReader(log.store, ORIGIN)
    for size in (1, 2, 3):
        log.grow(size)
        poster.post(partial(reader.checkpoint, size, public=SIGNER.public))
    assert list(store.objects) == [f"{abroad_prefix(ORIGIN)}000000000001"]
    clock._at_ns += 3600 * 10**9
    poster.post(partial(reader.checkpoint, 3, public=SIGNER.public))
    assert len(store.objects) == 2
    assert poster.post(lambda: None) == ()
    assert log_prefix(ORIGIN).removeprefix("ledger/") in next(iter(store.objects))


def test_verify_fails_when_the_quorum_is_not_met_in_time(watched):
    watched.lived()
    path = watched.scene.keep_path / "modelkeep.toml"
    text = watched.scene.disk.read(path).decode()
    keys = json.dumps([watched.witness.verifier_key])

    def report(quorum, later_s):
        settings = f"\n[ledger.witness]\nkeys = {keys}\nquorum = {quorum}\nage_s_max = 1000.0\n"
        watched.scene.disk.rewrite(path, (text + settings).encode())
        with watched.scene.open() as keep:
            keep.opened.clock._at_ns += later_s * 10**9
            return keep.ledger.evidence.witnessed()

    met = report(1, 990)
    assert met.is_whole
    assert met.size > 0
    assert met.covered_ns > 0
    for each in (report(1, 1010), report(2, 0)):
        assert not each.is_whole
        assert [finding.rule for finding in each.findings] == ["ledger.quorum"]


def test_a_running_recorder_posts_at_intervals_and_when_it_ends(tmp_path):
    """However long a witness takes: the thread needs nothing of the sequencer."""
    log = Log().grow(3)
    abroad = WitnessStore(label="abroad", path="abroad")
    settings = WitnessSettings(stores=(abroad,), interval_s=3600.0)
    known = {"origin": ORIGIN, "public": SIGNER.public, "root": tmp_path}
    posting = Posting(log.store, settings=settings, **known)
    posting.start()
    folder = tmp_path / "abroad"
    wait_until(lambda: list(folder.rglob("000000000003")))
    log.grow(5)
    posting.stop(10.0)
    names = sorted(path.name for path in folder.rglob("0*"))
    assert names == ["000000000003", "000000000005"]
    Posting(log.store, settings=WitnessSettings(), **known).stop(1.0)
