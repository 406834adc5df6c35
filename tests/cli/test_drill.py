"""`modelkeep drill`: a rehearsal that shares its code with reality and changes nothing."""

import pytest
from command import Desk


def moving(path):
    """The ledger, and statements of how current a store is: they grow with every verb."""
    return {"ledger", "alive"} & set(path.parts)


@pytest.mark.slow
def test_a_drill_measures_and_leaves_everything_as_it_was(one):
    one.run("backup")
    before = {path: raw for path, raw in one.files().items() if not moving(path)}
    result = one.json("drill")["result"]
    assert result["kind"] == "drill"
    assert result["missed"] == []
    assert result["probes"] == [{"model": "digits:1", "is_proven": True}]
    assert not (one.keep / "drill").exists()
    after = {path: raw for path, raw in one.files().items() if not moving(path)}
    changed = {path for path in before if after.get(path) != before[path]}
    assert all(
        path.name.startswith("state.db") for path in changed | (after.keys() - before.keys())
    )
    entry = one.entries("drill.measured")[-1]["facts"]
    assert (entry["kind"], entry["met"]) == ("drill", True)
    assert [each["principal"] for each in one.json("tokens", "list")] == []
    assert one.json("check", "--read-data")["findings"] == []
    assert all(each["is_whole"] for each in one.json("ledger", "verify"))


@pytest.mark.slow
def test_a_drill_of_a_stale_copy_says_what_it_found_and_people_can_read_it(one):
    one.run("backup")
    one.admit(2)
    said = one.run("drill", wanted=4)
    assert "drill: RTO" in said.out
    assert "LOST: digits:2" in said.out
    assert "digits:1: its canary answer is right" in said.out
    assert "serving at" not in said.out


@pytest.mark.slow
def test_a_drill_serves_what_the_service_would(one, tmp_path):
    import numpy as np  # noqa: PLC0415

    np.save(tmp_path / "weights.npy", np.arange(1000, dtype=np.float32))
    one.json("admit", tmp_path / "weights.npy", "--name", "weights")
    one.configure("replicas = 2", 'replicas = 2\nmodels = ["digits"]')
    one.run("backup")
    result = one.json("drill")["result"]
    assert [each["model"] for each in result["probes"]] == ["digits:1"]
    assert result["objectives"]["rto_s_max"] == 60.0


def test_a_keep_with_one_store_cannot_rehearse(tmp_path):
    desk = Desk.made(tmp_path, second=False)
    desk.admit()
    assert desk.refusal("drill", wanted=2) == "drill.store"


def test_a_drill_before_the_first_backup_is_a_clear_refusal(one):
    refused = one.run("drill", "--json", wanted=None)
    assert refused.status in (2, 4, 5)
    assert refused.error["hint"]
    assert refused.error["code"] != "store.missing"
    assert not (one.keep / "drill").exists()
