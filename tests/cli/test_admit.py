"""`modelkeep admit`: sound models get in once, others not at all, and the ledger knows of both."""

import json
import os
import pickle

import numpy as np
import pytest
from command import PASSPHRASE, modelkeep
from onnx_models import trained_models, two_models

from modelkeep.sdk.keep import Keep


def test_admit_registers_a_version_and_says_what_it_takes(desk):
    said = desk.run("admit", two_models()[0], "--name", "digits")
    assert said.out.startswith("admitted digits:1  blake3:")
    assert "takes   pixels FP32[?,64]" in said.out
    assert "gives   label INT64[?], probabilities FP32[?,10]" in said.out
    assert desk.kinds() == ["keep.created", "model.admitted", "vault.committed"]


def test_the_next_file_of_a_name_is_the_next_version(desk):
    first, second = desk.admit(1), desk.admit(2)
    assert [(each["version"], each["is_new"]) for each in (first, second)] == [(1, True), (2, True)]
    assert first["digest"] != second["digest"]
    assert first["verdict"] == {"decision": "allow", "findings": []}


def test_the_same_file_again_changes_nothing(one):
    before, kinds = one.files(), one.kinds()
    again = one.admit()
    assert (again["version"], again["is_new"]) == (1, False)
    assert (
        "holds exactly this file already"
        in one.run("admit", two_models()[0], "--name", "digits").out
    )
    assert one.kinds() == kinds
    packs = {path for path in one.files() if "pack" in path.parts}
    assert packs == {path for path in before if "pack" in path.parts}


def test_the_same_file_under_another_name_costs_no_second_copy(one):
    packs = sum("pack" in path.parts for path in one.files())
    assert one.admit(name="other")["version"] == 1
    assert sum("pack" in path.parts for path in one.files()) == packs


def test_a_refused_file_leaves_no_trace_but_its_ledger_entry(desk, tmp_path):
    evil = tmp_path / "evil.pkl"
    evil.write_bytes(pickle.dumps(os.system))
    code = desk.refusal("admit", evil, "--name", "digits", wanted=3)
    assert code == "verdict.deny"
    assert desk.kinds() == ["keep.created", "model.refused", "model.refused"]
    assert desk.json("models") == []
    assert not [path for path in desk.files() if "pack" in path.parts]
    facts = desk.entries("model.refused")[0]["facts"]
    assert facts["rules"][0].startswith("scan.pickle")


def test_a_cut_model_is_refused(desk, tmp_path):
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(two_models()[0].read_bytes()[:-100])
    assert desk.refusal("admit", cut, "--name", "digits", wanted=3).startswith("verdict.")


def test_a_missing_file_is_missing(desk, tmp_path):
    assert desk.refusal("admit", tmp_path / "no", "--name", "digits", wanted=5) == "file.missing"


def test_a_folder_is_no_model(desk, tmp_path):
    assert desk.refusal("admit", tmp_path, "--name", "digits", wanted=2) == "file.read"


def test_an_empty_file_is_refused(desk, tmp_path):
    (tmp_path / "empty.onnx").write_bytes(b"")
    desk.refusal("admit", tmp_path / "empty.onnx", "--name", "digits", wanted=3)


@pytest.mark.parametrize("name", ["", "Digits", "a b", "../x", "a/b", "digits:1", "-x", "x" * 101])
def test_a_name_that_is_unsafe_is_refused(desk, name):
    assert desk.refusal("admit", two_models()[0], f"--name={name}", wanted=2) == "model.name"
    assert desk.kinds() == ["keep.created"]


def test_a_base_that_is_no_reference_is_refused(desk):
    desk.refusal("admit", two_models()[0], "--name", "digits", "--base", "no:such:thing", wanted=2)
    assert desk.json("models") == []


def test_a_wrong_passphrase_is_refused(desk, tmp_path):
    (tmp_path / "wrong").write_text("not the passphrase")
    words = ("--keep", desk.keep, "--passphrase-file", tmp_path / "wrong", "--json")
    refused = modelkeep(*words, "admit", two_models()[0], "--name", "digits", wanted=3)
    assert refused.error["code"] == "keys.passphrase"
    assert desk.kinds() == ["keep.created"]


def test_no_keep_is_said_before_any_passphrase_is_asked_for(tmp_path):
    words = ("--keep", tmp_path, "--json", "admit", two_models()[0], "--name", "digits")
    refused = modelkeep(*words, wanted=5)
    assert refused.error["code"] == "keep.missing"
    assert "--keep" in refused.error["hint"]


def test_the_keep_may_be_named_by_the_environment(desk, monkeypatch):
    monkeypatch.setenv("MODELKEEP_KEEP", str(desk.keep))
    assert modelkeep("models", "--json", "--passphrase-file", desk.passphrase_file).json == []


def test_options_may_stand_before_or_after_the_verb(desk):
    own = ("--keep", desk.keep, "--passphrase-file", desk.passphrase_file, "--json")
    assert modelkeep(*own, "models").json == modelkeep("models", *own).json == []


def test_other_formats_are_kept_too(desk, tmp_path):
    np.save(tmp_path / "weights.npy", np.arange(1000, dtype=np.float32))
    done = desk.json("admit", tmp_path / "weights.npy", "--name", "weights")
    assert done["version"] == 1
    assert done["schema"] is None


# ---- what comes with the model -------------------------------------------------------------------


def canary(**changes):
    text = json.loads(trained_models()[1][0].canary.read_text())
    for path, value in changes.items():
        side, field = path.split("_")
        text[side][0][field] = value
    return json.dumps(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"inputs":[],"outputs":[],"more":1}',
        '{"inputs":[],"outputs":[]}',
        canary(inputs_name="nobody"),
        canary(inputs_dtype="FP99"),
        canary(inputs_dtype="INT64"),
        canary(inputs_shape=[1, 63]),
        canary(inputs_values=[0.0]),
        canary(outputs_name="nobody"),
        canary(outputs_values=[]),
        canary(outputs_shape=[-1]),
    ],
    ids=[
        "empty",
        "cut",
        "list",
        "unknown-field",
        "no-inputs",
        "input-name",
        "unknown-dtype",
        "other-dtype",
        "shape",
        "too-few-values",
        "output-name",
        "no-values",
        "free-shape",
    ],
)
def test_a_canary_that_could_never_be_asked_is_refused_at_the_door(desk, tmp_path, text):
    """A recovery would stumble over it on the worst of days."""
    (tmp_path / "canary.json").write_text(text)
    words = ("admit", two_models()[0], "--name", "digits", "--canary", tmp_path / "canary.json")
    desk.refusal(*words, wanted=2)
    assert desk.json("models") == []


def test_a_missing_canary_is_missing(desk, tmp_path):
    words = ("--name", "digits", "--canary", tmp_path / "no")
    assert desk.refusal("admit", two_models()[0], *words, wanted=5) == "file.missing"
    assert desk.json("models") == []


def test_a_note_and_a_file_name_that_are_not_text_are_refused_or_kept(desk, tmp_path):
    """What a shell hands over need not be UTF-8; it is no bug of ours."""
    odd = tmp_path / os.fsdecode(b"\xff.onnx")
    odd.write_bytes(two_models()[0].read_bytes())
    for words in ((odd,), (two_models()[0], "--note", os.fsdecode(b"\xff"))):
        said = desk.run("admit", *words, "--name", "digits", "--json", wanted=None)
        assert said.status in (0, 2), said.err


def test_what_is_stored_is_neither_the_weights_nor_the_passphrase(desk):
    """Scan every file of the keep and its stores for what must not be there."""
    desk.admit(1)
    key = desk.json("tokens", "new", "alice")["api_key"]
    desk.json("backup")
    raw = two_models()[0].read_bytes()
    with Keep(desk.keep, passphrase=PASSPHRASE) as keep:
        tensors = keep.manifest("digits:1").files[0].tensors
        keys, domain = keep.opened.keys, keep.opened.domains.named("default")
        secrets = [
            *(each.reveal() for each in (domain.chunk_ids, domain.packs, domain.blobs)),
            *(each.reveal() for each in (keys.ledger_seed, keys.ledger_body, keys.own.blobs)),
            *(each.reveal() for each in (keys.config, keys.commitments)),
            keep.opened.authority.key.reveal(),
            keep.opened.ring.body.identity,
            *(each.key for each in keep.opened.ring.body.domains),
        ]
    canaries = [PASSPHRASE.encode(), key.encode(), key.split("_", 2)[2].encode(), *secrets]
    canaries += [raw[t.offset : t.offset + 64] for t in tensors if t.length >= 64]
    assert len(canaries) > 14
    for path, held in desk.files().items():
        hits = [number for number, canary in enumerate(canaries) if canary in held]
        assert not hits, (path, hits)
