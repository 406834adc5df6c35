"""A claim holds for whoever checks it with a key and the suspect; no forged one does.

One keep registers a weight mark and a trigger set; claims of them are attacked in every way that
docs/design/watermarks.md lists.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from command import CHEAP, PASSPHRASE
from marked_models import arrays, marked, read, safetensors, tensors

from modelkeep.core.errors import IntegrityError, KeepError, MissingError, RefusedError, UsageError
from modelkeep.core.record import replaced
from modelkeep.flows.marking import weights_read
from modelkeep.flows.watermark import registrations, seed_of
from modelkeep.kernels.weight_mark import chosen_parameters, hits_in
from modelkeep.ledger.checkpoint import parsed_verifier_key, verifier_key
from modelkeep.ledger.proof_file import proof_bytes
from modelkeep.sdk.keep import Keep
from modelkeep.sdk.suspects import files_at, suspect_digest
from modelkeep.sdk.watermarks import Watermarks, checked
from modelkeep.seal.marks import Reading, claim_bytes, commitment_of, judged, parsed_claim

LATER_NS = 2**62


class Scene:
    """A keep with two marks, its marked model, and claims about it."""

    def __init__(self, folder):
        self.folder = folder
        self.original = self.file("original.safetensors", safetensors(arrays()))
        np.save(folder / "examples.npy", np.random.default_rng(0).random((50, 64)))
        self.stolen = folder / "stolen.safetensors"
        Keep.create(folder / "keep", passphrase=PASSPHRASE, port=0, argon2=CHEAP).close()
        with self.keep() as keep:
            marks = Watermarks(keep)
            marks.new_weights("w1", self.original, model="digits")
            marks.new_triggers(
                "t1", folder / "examples.npy", folder / "triggers.npz", classes=10, model="digits"
            )
            self.done = marks.embed("w1", self.original, self.stolen)
            self.keys = [keep.ledger.verifier_key()]
        with np.load(folder / "triggers.npz") as triggers:
            self.labels = triggers["labels"]
        self.answers = folder / "answers.npy"
        np.save(self.answers, self.labels)
        with self.keep() as keep:
            marks = Watermarks(keep)
            marks.verify("w1", self.stolen, claim=folder / "w1.json")
            marks.verify("t1", self.answers, claim=folder / "t1.json")
            self.entries = list(keep.ledger.entries())
        self.claim = parsed_claim((folder / "w1.json").read_bytes())
        self.other = parsed_claim((folder / "t1.json").read_bytes())

    def keep(self):
        return Keep(self.folder / "keep", passphrase=PASSPHRASE)

    def file(self, name, raw):
        path = self.folder / name
        path.write_bytes(raw)
        return path

    def check(self, claim, suspect=None, **options):
        return checked(
            claim, suspect or self.stolen, keys=options.pop("keys", self.keys), **options
        )

    def refused(self, claim, suspect=None, **options):
        with pytest.raises(KeepError) as caught:
            self.check(claim, suspect, **options)
        return caught.value.code


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return Scene(tmp_path_factory.mktemp("claims"))


def test_an_honest_claim_holds_for_a_stranger(scene):
    found = scene.check(scene.claim)
    assert found.judgement.is_found
    assert found.judgement.hits == found.judgement.trials == 64
    assert found.is_beyond_trial
    assert (found.registration.mark, found.registration.model) == ("w1", "digits")
    assert scene.check(claim_bytes(scene.claim)) == found
    assert scene.check(scene.other, scene.answers).judgement.p_value == pytest.approx(1e-100)


def test_answers_in_a_file_are_never_beyond_trial(scene):
    """Who has the seed writes them down; here the liar's file has all labels right."""
    found = scene.check(scene.other, scene.answers)
    assert found.judgement.is_found
    assert found.judgement.tries_log2 > 300
    assert not found.is_model
    assert not found.is_beyond_trial
    assert "without asking anybody" in " ".join(found.judgement.assumptions)


def test_the_owners_reading_is_corrected_by_all_marks_and_not_by_those_before_it(scene):
    with scene.keep() as keep:
        marks = Watermarks(keep)
        first = marks.list()[0]
        assert (first.mark, first.registration.ordinal) == ("w1", 1)
        found = marks.verify("w1", scene.stolen)
        assert found.tests == len(marks.list()) >= 2
        assert found.corrected_p == pytest.approx(found.tests * found.p_value)


def test_the_correction_needs_nobody_to_be_believed(scene):
    found = scene.check(scene.claim)
    assert found.judgement.tests == found.index + 1 >= 1


def test_the_ledger_knows_of_registrations_and_claims(scene):
    kinds = [entry.kind for _, entry in scene.entries if entry.kind.startswith("watermark.")]
    assert kinds == ["watermark.registered"] * 2 + ["watermark.claimed"] * 2
    text = " ".join(str(entry.facts) for _, entry in scene.entries)
    assert scene.claim.seed.hex() not in text
    (facts,) = [
        entry.facts
        for _, entry in scene.entries
        if entry.kind == "watermark.claimed" and entry.facts["mark"] == "w1"
    ]
    assert facts["suspect"] == scene.claim.suspect
    assert facts["p_value"] == pytest.approx(2 * 2.0**-64)  # of two marks


def test_a_mark_is_committed_to_before_the_model_that_names_it(scene):
    with scene.keep() as keep:
        first, second = registrations(keep.opened)[:2]
        assert (first.registration.ordinal, second.registration.ordinal) == (1, 2)
        seed = seed_of(keep.opened, "w1")
        assert first.registration.commitment == commitment_of(
            "w1", "weights", first.registration.parameters, seed.reveal()
        )


# ---- forged claims ------------------------------------------------------------------------------


def test_a_seed_that_was_chosen_afterwards_is_not_the_committed_one(scene):
    """Whatever it reads: here even a seed that is hit in every bit."""
    seed = b"x" * 32
    parameters = chosen_parameters(tensors(scene.original.read_bytes()))
    copy, _ = marked(scene.original.read_bytes(), seed, parameters)
    suspect = scene.file("fitted.safetensors", copy)
    forged = replaced(scene.claim, seed=seed)
    assert scene.refused(forged, suspect) == "mark.commitment"


def test_a_registration_after_the_suspect_appeared_does_not_count(scene):
    found = scene.check(scene.claim, before_ns=LATER_NS)
    assert found.registered_ns < LATER_NS
    assert scene.refused(scene.claim, before_ns=found.registered_ns) == "mark.priority"


def test_the_word_of_the_log_does_not_do_where_witnesses_are_asked_for(scene):
    witness = "example.org/witness+00000000+AA=="
    with scene.keep() as keep:
        witness = keep.ledger.evidence.witness_key()
    refused = scene.refused(scene.claim, witnesses=[witness], before_ns=LATER_NS)
    assert refused == "mark.priority"


@pytest.mark.parametrize(
    ("name", "value"),
    [("bits", 63), ("positions", 73), ("margin", 0.5), ("tensors", [{"name": "w1", "items": 640}])],
)
def test_changed_parameters_are_not_what_the_log_holds(scene, name, value):
    proof = json.loads(scene.claim.proof)
    body = json.loads(proof["body"])
    parameters = json.loads(body["facts"]["parameters"]) | {name: value}
    body["facts"]["parameters"] = json.dumps(parameters)
    forged = replaced(scene.claim, proof=json.dumps(proof | {"body": json.dumps(body)}))
    assert scene.refused(forged) == "ledger.inclusion"


def test_an_earlier_time_in_the_entry_is_not_what_the_log_holds(scene):
    proof = json.loads(scene.claim.proof)
    body = json.loads(proof["body"]) | {"at_ns": 1}
    forged = replaced(scene.claim, proof=json.dumps(proof | {"body": json.dumps(body)}))
    assert scene.refused(forged) == "ledger.inclusion"


def test_another_suspect_is_not_the_claimed_one(scene):
    assert scene.refused(scene.claim, scene.original) == "mark.suspect"
    innocent = scene.file("innocent.safetensors", safetensors(arrays(7)))
    assert scene.refused(scene.claim, innocent) == "mark.suspect"


def test_a_claim_about_an_innocent_model_is_read_again(scene):
    """The forger puts the innocent's digest in: what was read in the copy is not read in it."""
    innocent = scene.file("innocent2.safetensors", safetensors(arrays(8)))
    with files_at(innocent) as files:
        digest = suspect_digest(files)
        again = weights_read(scene.check(scene.claim).registration, scene.claim.seed, files)
    assert scene.refused(replaced(scene.claim, suspect=digest), innocent) == "mark.differs"
    honest = replaced(scene.claim, suspect=digest, reading=again)
    assert not scene.check(honest, innocent).judgement.is_found


@pytest.mark.parametrize("changes", [{"hits": 63}, {"trials": 65}, {"chance": 0.1}])
def test_a_reading_that_is_not_what_is_read_is_refused(scene, changes):
    forged = replaced(scene.claim, reading=replaced(scene.claim.reading, **changes))
    assert scene.refused(forged) == "mark.differs"


def test_a_proof_of_another_registration_does_not_fit_the_seed(scene):
    assert scene.refused(replaced(scene.claim, proof=scene.other.proof)) == "mark.commitment"


def test_a_proof_of_something_else_registers_nothing(scene):
    with scene.keep() as keep:
        proof, _ = keep.ledger.evidence.prove("0")
    forged = replaced(scene.claim, proof=proof_bytes(proof).decode())
    assert scene.refused(forged) == "mark.entry"
    for nothing in ("", "{}", "[]", '{"format":"modelkeep/consistency/v0"}'):
        assert scene.refused(replaced(scene.claim, proof=nothing)) == "ledger.proof_file"


def test_a_claim_of_another_keeps_log_needs_that_logs_key(scene, tmp_path):
    with Keep.create(tmp_path / "keep", passphrase=PASSPHRASE, port=0, argon2=CHEAP) as theirs:
        keys = [theirs.ledger.verifier_key()]
    assert scene.refused(scene.claim, keys=keys) == "ledger.key_of_other"
    # A key under the right name that is not the log's:
    name, _, rest = keys[0].partition("+")
    origin = scene.check(scene.claim).origin
    wrong = verifier_key(origin, parsed_verifier_key(f"{name}+{rest}")[1])
    assert scene.refused(scene.claim, keys=[wrong]) == "ledger.checkpoint"


def test_no_flipped_byte_of_a_claim_changes_what_it_proves(scene, count):
    raw = claim_bytes(scene.claim)
    wanted = scene.check(scene.claim)
    random = np.random.default_rng(count(1, full=2))
    for _ in range(count(60, full=5_000)):
        changed = bytearray(raw)
        changed[random.integers(len(raw))] ^= 1 << random.integers(8)
        try:
            found = scene.check(bytes(changed))
        except (IntegrityError, UsageError):
            continue
        assert found == wanted


# ---- ambiguity ----------------------------------------------------------------------------------


def test_of_two_marks_in_a_copy_the_older_ones_owner_shows_an_original_without_the_other(
    scene, tmp_path
):
    """A thief marks the copy again. Only our mark is in both parties' originals."""
    copy = tmp_path / "thief.safetensors"
    with Keep.create(tmp_path / "keep", passphrase=PASSPHRASE, port=0, argon2=CHEAP) as theirs:
        marks = Watermarks(theirs)
        marks.new_weights("mine", scene.stolen)
        marks.embed("mine", scene.stolen, copy)
        assert marks.verify("mine", copy).is_found
        assert not marks.verify("mine", scene.stolen).is_found
    with scene.keep() as keep:
        ours = Watermarks(keep).verify("w1", copy)
        assert ours.is_found
        assert ours.hits >= 60


def test_one_who_tried_many_keys_says_so_by_where_the_registration_stands(scene):
    """A forger who registers until one key fits: the position multiplies the p-value."""
    suspect = tensors(safetensors(arrays(9)))
    parameters = chosen_parameters(suspect)
    tries = 500
    best = max(hits_in(suspect, number.to_bytes(32, "big"), parameters) for number in range(tries))
    reading = Reading(hits=best, trials=64, chance=0.5)
    registration = scene.check(scene.claim).registration
    assert judged(registration, reading, tests=1).corrected_p < 0.02
    assert judged(registration, reading, tests=tries).corrected_p > 0.02


# ---- the owner's side ---------------------------------------------------------------------------


def test_an_id_is_taken_for_ever(scene):
    with scene.keep() as keep, pytest.raises(UsageError, match=r"mark\.exists"):
        Watermarks(keep).new_weights("w1", scene.original)


def test_nothing_is_claimed_of_a_suspect_without_the_mark(scene, tmp_path):
    with scene.keep() as keep:
        marks = Watermarks(keep)
        with pytest.raises(RefusedError, match=r"mark\.weak"):
            marks.verify("w1", scene.original, claim=tmp_path / "c.json")
        with pytest.raises(MissingError, match=r"mark\.unknown"):
            marks.verify("w2", scene.original)
        with pytest.raises(UsageError, match=r"mark\.method"):
            marks.embed("t1", scene.original, tmp_path / "out")
        with pytest.raises(UsageError, match=r"mark\.suspect_form"):
            marks.verify("w1", scene.answers.with_name("w1.json"))
        with pytest.raises(UsageError, match=r"file\.exists"):
            marks.verify("w1", scene.stolen, claim=scene.answers)
    assert not (tmp_path / "c.json").exists()


def test_triggers_come_again_from_the_same_examples_only(scene, tmp_path):
    with scene.keep() as keep:
        marks = Watermarks(keep)
        found = marks.triggers("t1", scene.folder / "examples.npy", tmp_path / "again.npz")
        assert np.array_equal(found.labels, scene.labels)
        assert (tmp_path / "again.npz").read_bytes() == (scene.folder / "triggers.npz").read_bytes()
        np.save(tmp_path / "other.npy", np.zeros((50, 64)))
        with pytest.raises(UsageError, match=r"mark\.triggers"):
            marks.triggers("t1", tmp_path / "other.npy", tmp_path / "more.npz")
    assert not (tmp_path / "more.npz").exists()


def test_nothing_is_registered_or_claimed_in_a_file_that_cannot_be_written(scene, tmp_path):
    examples = scene.folder / "examples.npy"
    with scene.keep() as keep:
        marks = Watermarks(keep)
        before = marks.list()
        with pytest.raises(KeepError, match=r"file\."):
            marks.new_triggers("t2", examples, tmp_path / "no" / "t2.npz", classes=10)
        with pytest.raises(UsageError, match=r"file\.exists"):
            marks.new_triggers("t2", examples, examples, classes=10)
        assert marks.list() == before
        entries = len(list(keep.ledger.entries()))
        with pytest.raises(KeepError, match=r"file\."):
            marks.verify("w1", scene.stolen, claim=tmp_path / "no" / "claim.json")
        assert len(list(keep.ledger.entries())) == entries


def test_a_folder_of_shards_is_marked_and_found(scene, tmp_path):
    whole = tmp_path / "model"
    (whole / "deep").mkdir(parents=True)
    parts = arrays(4)
    (whole / "a.safetensors").write_bytes(safetensors({"w0": parts["w0"]}))
    (whole / "deep" / "b.safetensors").write_bytes(safetensors({"w1": parts["w1"]}))
    (whole / "README").write_text("hello")
    (whole / "README").chmod(0o640)
    (whole / "empty").mkdir(mode=0o750)
    (whole / "model.safetensors").symlink_to("a.safetensors")
    with scene.keep() as keep:
        marks = Watermarks(keep)
        if "folder" not in {each.mark for each in marks.list()}:
            marks.new_weights("folder", whole)
        done = marks.embed("folder", whole, tmp_path / "marked")
        assert marks.verify("folder", tmp_path / "marked").hits == 64
        assert not marks.verify("folder", whole).is_found
    assert (tmp_path / "marked" / "README").read_text() == "hello"
    assert (tmp_path / "marked" / "README").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "marked" / "empty").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "marked" / "model.safetensors").readlink().name == "a.safetensors"
    assert done.relative_change < 0.25
    assert read((tmp_path / "marked" / "a.safetensors").read_bytes())["w0"].shape == (64, 64)


def test_the_log_dates_a_claim_no_earlier_than_its_checkpoint(scene, tmp_path):
    """A checkpoint that others have had for longer proves more than today's."""
    with scene.keep() as keep:
        old = keep.ledger.checkpoint()
        keep.ledger.append("note.more", {"a": 1})
    with scene.keep() as keep:
        marks = Watermarks(keep)
        marks.verify("w1", scene.stolen, claim=tmp_path / "old.json", checkpoint=old.raw)
        claim = parsed_claim((tmp_path / "old.json").read_bytes())
        newest = keep.ledger.checkpoint()
    assert old.size < newest.size
    assert f"\n{old.size}\n" in json.loads(claim.proof)["tlog_proof"]
    assert scene.check(claim).judgement.is_found
