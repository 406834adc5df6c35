"""`modelkeep watermark`: register, mark, find, claim; and check a claim without a keep."""

import json

import numpy as np
import pytest
from command import PASSPHRASE, Desk, modelkeep
from marked_models import arrays, pruned, read, safetensors

from modelkeep.core.instant import rfc3339
from modelkeep.sdk.keep import Keep


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A keep with one weight mark, w1; the tests of this file share it."""
    made = Desk.made(tmp_path_factory.mktemp("marks"), second=False)
    model_of(made).write_bytes(safetensors(arrays()))
    words = ("--method", "weights", "--model", model_of(made), "--for", "digits")
    made.run("watermark", "new", "w1", *words)
    done = made.json(
        "watermark", "embed", model_of(made), "--mark", "w1", "--output", marked_of(made)
    )
    assert done["changed"] <= done["weights"] == 4736
    assert 0.0 < done["relative_change"] < 0.25
    return made


def model_of(desk):
    return desk.folder / "m.safetensors"


def marked_of(desk):
    return desk.folder / "marked.safetensors"


@pytest.fixture
def model(desk):
    return model_of(desk)


@pytest.fixture
def marked(desk):
    return marked_of(desk)


def key_of(desk):
    return desk.run("ledger", "key").out.split()[-1]


def test_a_model_is_given_its_mark_at_the_door(desk, model, marked, tmp_path):
    done = desk.json("admit", model, "--name", "m", "--watermark", "w1")
    desk.run("restore", "m", "--to", tmp_path / "restored")
    assert (tmp_path / "restored").read_bytes() == marked.read_bytes() != model.read_bytes()
    assert not desk.json("admit", model, "--name", "m", "--watermark", "w1")["is_new"]
    assert done["is_new"]
    refused = desk.run("admit", model, "--name", "m", "--watermark", "w9", wanted=5).err
    assert "mark.unknown" in refused


def test_a_stolen_copy_is_found_and_another_model_is_not(desk, model, marked, tmp_path):
    stolen = tmp_path / "stolen.safetensors"
    stolen.write_bytes(safetensors(pruned(read(marked.read_bytes()))))
    found = desk.json("watermark", "verify", "w1", stolen)
    assert found["is_found"]
    assert found["p_value"] < 1e-15
    assert len(found["assumptions"]) == 3
    said = desk.run("watermark", "verify", "w1", model, wanted=3).out
    assert said.startswith("not found: p = ")
    assert desk.json("watermark", "verify", "w1", model, wanted=3)["is_found"] is False


def test_a_stranger_checks_a_claim_with_a_key(desk, marked, tmp_path):
    claim = tmp_path / "claim.json"
    desk.run("watermark", "verify", "w1", marked, "--claim", claim)
    words = ("watermark", "check-claim", claim, marked, "--key", key_of(desk))
    out = modelkeep(*words).out
    assert out.startswith("the claim holds")
    assert "by no witness named here" in out
    facts = modelkeep(*words, "--json", "--before", "2200-01-01").json
    assert facts["is_found"]
    assert facts["is_beyond_trial"]
    late = modelkeep(*words, "--before", facts["registered"], "--json", wanted=4)
    assert late.error["code"] == "mark.priority"
    changed = json.loads(claim.read_text()) | {"suspect": "blake3:00"}
    (tmp_path / "forged.json").write_text(json.dumps(changed))
    forged = modelkeep(*words[:2], tmp_path / "forged.json", *words[3:], "--json", wanted=4)
    assert forged.error["code"] == "mark.suspect"


def test_a_witness_dates_a_claim(desk, marked, tmp_path):
    """The witness's cosignature, not the log's own clock, is compared with the suspect's time."""
    other = Desk.made(tmp_path / "other", second=False)
    with Keep(other.keep, passphrase=PASSPHRASE) as keep:
        witness = keep.ledger.evidence.witness_key()
    before = desk.config.read_text()
    desk.config.write_text(before + f'\n[ledger.witness]\nkeys = ["{witness}"]\n')
    other.run("ledger", "cosign", "--store", desk.main, "--key", key_of(desk))
    claim = tmp_path / "claim.json"
    desk.run("watermark", "verify", "w1", marked, "--claim", claim)
    desk.config.write_text(before)
    words = ("watermark", "check-claim", claim, marked, "--key", key_of(desk), "--witness", witness)
    facts = modelkeep(*words, "--before", "2200-01-01", "--json").json
    assert facts["witnessed"][:19] >= facts["registered"][:19]  # witnesses say whole seconds
    refused = modelkeep(*words, "--before", facts["witnessed"], "--json", wanted=4)
    assert refused.error["code"] == "mark.priority"


def test_triggers_are_written_answered_and_found(desk, tmp_path):
    examples, file = tmp_path / "x.npy", tmp_path / "t.npz"
    np.save(examples, np.random.default_rng(0).random((60, 16)))
    words = ("--method", "triggers", "--examples", examples, "--classes", 10, "--output", file)
    desk.run("watermark", "new", "t1", *words)
    desk.run("watermark", "triggers", "t1", "--examples", examples, "--output", tmp_path / "u.npz")
    assert (tmp_path / "u.npz").read_bytes() == file.read_bytes()
    with np.load(file) as found:
        labels = found["labels"]
    np.save(tmp_path / "answers.npy", labels)
    assert desk.json("watermark", "verify", "t1", tmp_path / "answers.npy")["hits"] == 100
    claim = tmp_path / "claim.json"
    desk.run("watermark", "verify", "t1", tmp_path / "answers.npy", "--claim", claim)
    words = ("check-claim", claim, tmp_path / "answers.npy", "--key", key_of(desk))
    assert "whoever has the seed can write such answers" in modelkeep("watermark", *words).out
    facts = modelkeep("watermark", *words, "--json").json
    assert (facts["is_found"], facts["is_model"], facts["is_beyond_trial"]) == (True, False, False)
    np.save(tmp_path / "others.npy", np.roll(labels, 1))
    assert not desk.json("watermark", "verify", "t1", tmp_path / "others.npy", wanted=3)["is_found"]
    np.save(tmp_path / "few.npy", labels[:99])
    few = ("watermark", "verify", "t1", tmp_path / "few.npy")
    assert desk.refusal(*few, wanted=2) == "mark.answers"


def test_the_list_shows_what_is_registered_and_no_seed(desk, marked):
    row = desk.json("watermark", "list")[0]
    assert (row["mark"], row["method"], row["model"]) == ("w1", "weights", "digits")
    assert row["at"] <= rfc3339(2**62)
    assert desk.run("watermark", "list").out.splitlines()[1].startswith("w1")
    assert marked.exists()


@pytest.mark.parametrize(
    ("words", "code", "status"),
    [
        (("new", "w2", "--method", "weights"), "mark.options", 2),
        (("new", "t1", "--method", "triggers", "--classes", "10"), "mark.options", 2),
        (("new", "w2", "--method", "weights", "--model", "nothing"), "file.missing", 5),
        (("verify", "w9", "nothing"), "mark.unknown", 5),
        (("embed", "nothing", "--mark", "w1", "--output", "o"), "file.missing", 5),
    ],
)
def test_what_cannot_be_done_is_said(desk, words, code, status):
    assert desk.refusal("watermark", *words, wanted=status) == code


def test_a_file_is_not_replaced_unless_told(desk, model, marked):
    words = ("watermark", "embed", model, "--mark", "w1", "--output", marked)
    assert desk.refusal(*words, wanted=2) == "restore.exists"
    desk.run(*words, "--force")
    assert desk.json("watermark", "verify", "w1", marked)["is_found"]
