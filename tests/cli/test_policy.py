"""`modelkeep policy`: who may do what with a version, shown and changed; never lost by accident."""

import pytest
from tensor_files import tensors, written


@pytest.fixture
def model(desk):
    return written(desk.folder / "m.safetensors", tensors(1, count=1, items=4))


@pytest.fixture
def strict(desk, model, tmp_path):
    """A keep whose `m:1` may be served, and nothing else."""
    path = tmp_path / "policy.toml"
    path.write_text('uses = ["serve"]\n')
    desk.run("admit", model, "--name", "m", "--policy", path)
    return desk


def test_the_same_bytes_get_another_policy_though_nobody_has_the_file(strict, model, tmp_path):
    assert strict.refusal("restore", "m:1", "--to", tmp_path / "out", wanted=3) == "policy.use"
    stored = strict.json("stats")["stores"][0]["packs"]
    wider = tmp_path / "wider.toml"
    wider.write_text('uses = ["serve", "restore"]\n')
    assert "same bytes as m:1" in strict.run("policy", "m:1", "--set", wider).out
    assert strict.json("policy", "m:2", "--set", wider)["is_new"] is False
    assert strict.json("stats")["stores"][0]["packs"] == stored
    strict.run("restore", "m:2", "--to", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == model.read_bytes()
    assert strict.refusal("restore", "m:1", "--to", tmp_path / "no", wanted=3) == "policy.use"
    assert "uses: serve, restore" in strict.run("policy", "m").out
    assert "model.policy_set" in strict.kinds()
    lineage = strict.json("lineage", "m:2")
    assert "m:1" in str(lineage)


def test_a_new_version_is_under_the_policy_of_the_one_before(strict, model):
    again = strict.run("admit", model, "--name", "m", "--note", "another day").out
    assert "uses: serve" in again
    assert strict.json("policy", "m:2")["policy"]["uses"] == ["serve"]
    strict.run("admit", model, "--name", "m", "--policy", "none")
    assert "permits everything" in strict.run("policy", "m:3").out
    assert strict.json("policy", "m:1", "--set", "none")["version"] == 4


def test_others_are_asked_where_approvals_say_so(strict):
    strict.configure("[serve]", '[approvals]\nneeded = 1\nverbs = ["models.policy"]\n\n[serve]')
    assert strict.refusal("policy", "m:1", "--set", "none", wanted=3) == "approval.needed"
    assert strict.json("policy", "m:1")["policy"]["uses"] == ["serve"]


def test_a_policy_that_says_nothing_sensible_is_refused(strict, tmp_path):
    bad = tmp_path / "bad.toml"
    bad.write_text("decimals = 99\n")
    assert strict.refusal("policy", "m:1", "--set", bad, wanted=2) == "policy.bounds"
    assert (
        strict.refusal("policy", "m:1", "--set", tmp_path / "nstrict.toml", wanted=5)
        == "file.missing"
    )
