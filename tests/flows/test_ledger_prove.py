"""A caller can prove a call by its receipt: in this log, and in those before a recovery."""

from __future__ import annotations

import pytest
from scenes import Scene

from modelkeep.core.call_record import CallRecord, encoded_record
from modelkeep.core.errors import IntegrityError, MissingError, UsageError
from modelkeep.crypto.signatures import Signer
from modelkeep.flows.create import origin_of
from modelkeep.flows.keep import LogEpoch
from modelkeep.flows.witness import cosigned_log, witness_of
from modelkeep.ledger.batch import batch_entry
from modelkeep.ledger.checkpoint import verifier_key
from modelkeep.ledger.find import Query
from modelkeep.ledger.proof_file import proof_bytes
from modelkeep.sdk.evidence import verified_proof
from modelkeep.vault.objects import series_member
from modelkeep.wiring import open_journal

JOURNAL = "gateway-0-0"


def call(number, principal="alice"):
    return encoded_record(
        CallRecord(
            call_id=bytes(8),
            at_ns=number,
            principal=principal,
            tenant="default",
            model="fraud",
            version=1,
            status=200,
            code="",
            input_commitment=b"i",
            output_commitment=b"o",
            latency_us=1,
            nonce=bytes(16),
        )
    )


class Called:
    """A keep that answered calls: their journal, and the batches that commit to it."""

    def __init__(self, folder):
        self.scene = Scene(folder)
        self.scene.create().close()
        self.frames = []

    @property
    def folder(self):
        return self.scene.keep_path / "journals" / JOURNAL

    def journal(self):
        return open_journal(self.folder, writable=True, disk=self.scene.disk)

    def answered(self, count, principal="alice"):
        first = len(self.frames)
        frames = [call(first + number, principal) for number in range(count)]
        journal = self.journal()
        assert journal.append(frames) == first
        journal.close()
        self.frames += frames
        entry = batch_entry(frames, journal=JOURNAL, first=first, at_ns=1)
        with self.scene.open() as keep:
            keep.opened.recorder.record([entry])

    def recovered(self):
        """The keep goes on as a new log; whoever recovers it begins new journals."""
        with self.scene.open() as keep:
            opened, checkpoint = keep.opened, keep.ledger.checkpoint()
            applied = opened.state.applied()
            epoch = LogEpoch(
                number=1,
                origin=origin_of(opened.keep_id, 1),
                base=checkpoint.size,
                resumed=checkpoint.raw.decode(),
                head=applied.head,
                snapshot=applied.snapshot,
            )
            name, raw = series_member("log", epoch, signer=opened.keys.signer)
            for store in opened.stores:
                store.put(name, raw)
        for path, _ in list(self.scene.disk.walk(self.scene.keep_path / "ledger")):
            self.scene.disk.unlink(path)
        for path in self.scene.keep_path.glob("state.db*"):
            path.unlink()


@pytest.fixture
def called(tmp_path):
    return Called(tmp_path)


def shown(keep, receipt):
    """What a stranger sees who has nothing but the proof and the verifier keys of all logs."""
    proof, _ = keep.ledger.evidence.prove(receipt)
    public = Signer(keep.opened.keys.ledger_seed).public
    keys = [verifier_key(epoch.origin, public) for epoch in keep.opened.epochs]
    return verified_proof(proof_bytes(proof), keys=keys)


def test_every_call_of_several_batches_is_proven(called):
    called.answered(3)
    called.answered(1)
    called.answered(5)
    with called.scene.open() as keep:
        for position in range(9):
            found = shown(keep, f"{JOURNAL}:{position}")
            assert found.record.at_ns == position
            assert found.receipt == f"{JOURNAL}:{position}"


def test_a_receipt_that_was_never_given_is_unknown(called):
    called.answered(3)
    with called.scene.open() as keep:
        for receipt in (f"{JOURNAL}:3", "gateway-1-0:0", f"{JOURNAL}:{'9' * 18}"):
            with pytest.raises(MissingError, match=r"receipt\.unknown"):
                keep.ledger.evidence.prove(receipt)
        for receipt in (f"{JOURNAL}:{'9' * 19}", "x", "", "../../etc:1", "9" * 19):
            with pytest.raises(UsageError):
                keep.ledger.evidence.prove(receipt)


def test_a_record_that_retention_took_is_said_to_be_gone(called):
    called.answered(3)
    for path, _ in list(called.scene.disk.walk(called.folder)):
        called.scene.disk.unlink(path)
    with called.scene.open() as keep, pytest.raises(MissingError, match=r"receipt\.gone"):
        keep.ledger.evidence.prove(f"{JOURNAL}:1")


def test_a_record_that_was_exchanged_is_not_proven(called):
    called.answered(3)
    for path, _ in list(called.scene.disk.walk(called.folder)):
        called.scene.disk.unlink(path)
    journal = called.journal()
    journal.append([call(number, "mallory") for number in range(3)])
    journal.close()
    with called.scene.open() as keep, pytest.raises(IntegrityError, match=r"ledger\.inclusion"):
        keep.ledger.evidence.prove(f"{JOURNAL}:1")


def test_receipts_from_before_a_recovery_are_proven_as_well(called):
    """Their journal came along; the new log has entries of its own, but no such batch."""
    called.answered(3)
    with called.scene.open() as keep:
        index = next(i for i, entry in keep.ledger.entries() if entry.kind == "calls.batch")
    called.recovered()
    with called.scene.open() as keep:
        assert len(keep.opened.epochs) == 2
        keep.ledger.append("note.later", {})
    with called.scene.open() as keep:
        found = shown(keep, f"{JOURNAL}:1")
        assert (found.checkpoint.origin, found.index) == (keep.opened.epochs[0].origin, index)
        assert found.record.at_ns == 1
        ((later, _),) = keep.ledger.tail(1, Query(kind="note."))
        assert shown(keep, str(later)).checkpoint.origin == keep.opened.epochs[1].origin
        old = keep.opened.epochs[1].resumed.encode()
        assert keep.ledger.evidence.consistency(old)[1].old.size == keep.opened.epochs[1].base


def test_of_two_records_with_one_receipt_the_one_that_is_here_is_proven(called):
    """A recovered keep begins new journals under the old names."""
    called.answered(3)
    old = [
        (path, called.scene.disk.read(path)) for path, _ in called.scene.disk.walk(called.folder)
    ]
    called.recovered()
    for path, _ in old:
        called.scene.disk.unlink(path)
    called.frames = []
    called.answered(3, "bob")
    with called.scene.open() as keep:
        assert shown(keep, f"{JOURNAL}:1").record.principal == "bob"
        assert shown(keep, f"{JOURNAL}:1").checkpoint.origin == keep.opened.epochs[1].origin
    for path, raw in old:
        called.scene.disk.rewrite(path, raw)
    with called.scene.open() as keep:
        assert shown(keep, f"{JOURNAL}:1").record.principal == "alice"
        assert shown(keep, f"{JOURNAL}:1").checkpoint.origin == keep.opened.epochs[0].origin


def test_a_proof_leads_to_the_checkpoint_that_witnesses_have_cosigned(called, tmp_path):
    called.answered(3)
    other = Scene(tmp_path / "other", seed=7)
    with called.scene.open() as keep, other.create() as watching:
        opened = keep.opened
        public = Signer(opened.keys.ledger_seed).public
        done = cosigned_log(watching.opened, opened.store, origin=opened.origin, public=public)
        witness = witness_of(watching.keep_id, watching.opened.keys)
    path = called.scene.keep_path / "modelkeep.toml"
    settings = f'\n[ledger.witness]\nkeys = ["{witness.verifier_key}"]\n'
    called.scene.disk.rewrite(path, called.scene.disk.read(path) + settings.encode())
    for _ in range(20):  # the partial tiles of that checkpoint are long gone
        with called.scene.open() as keep:
            keep.ledger.append("note.later", {})
    with called.scene.open() as keep:
        proof, _ = keep.ledger.evidence.prove(f"{JOURNAL}:2")
        key = keep.ledger.verifier_key()
        raw = proof_bytes(proof)
        found = verified_proof(raw, keys=[key], witnesses=[witness.verifier_key], quorum=1)
        assert found.checkpoint.size == done.size
        assert found.cosignatures[0].at_s == done.at_s
