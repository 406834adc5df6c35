"""`modelkeep prune`: says what would go, then takes just that, and nothing that is needed."""

import pytest


@pytest.fixture
def pruned(one):
    """Two versions in both stores; the first one was removed."""
    one.admit(2)
    one.run("remove", "digits:1")
    one.run("backup")
    return one


def stored(desk):
    """Every object of both stores but for the ledger's."""
    return {
        path: raw
        for path, raw in desk.files().items()
        if {"ledger", "alive", "run"}.isdisjoint(path.parts) and "state.db" not in path.name
    }


def test_a_dry_run_says_what_would_go_and_changes_nothing(pruned):
    before = stored(pruned)
    report = pruned.json("prune", "--keep-last", "1", "--dry-run")
    assert stored(pruned) == before
    assert (report["kept"], report["dropped"]) == (1, 2)
    assert all(each["freed_bytes"] > 0 for each in report["stores"])
    assert "would be dropped" in pruned.run("prune", "--keep-last", "1", "--dry-run").out


def test_what_only_dropped_snapshots_need_goes_from_every_store(pruned):
    size_bytes = sum(map(len, stored(pruned).values()))
    report = pruned.json("prune", "--keep-last", "1")
    assert all(not each["error"] and each["freed_bytes"] > 0 for each in report["stores"])
    freed = sum(each["freed_bytes"] for each in report["stores"])
    assert abs(size_bytes - sum(map(len, stored(pruned).values())) - freed) < 5000  # new snapshots
    assert pruned.json("check", "--read-data")["findings"] == []
    pruned.run("restore", "digits:2", "--to", pruned.folder / "out.onnx")
    (entry,) = pruned.entries("vault.pruned")
    assert entry["facts"]["snapshots"] == 2


def test_a_prune_that_finds_nothing_changes_nothing(pruned):
    pruned.run("prune", "--keep-last", "1")
    before = stored(pruned)
    report = pruned.json("prune", "--keep-last", "1")
    assert report["dropped"] == 0
    assert stored(pruned) == before


def test_what_is_within_the_time_stays(pruned):
    report = pruned.json("prune", "--keep-within", "30d")
    assert (report["kept"], report["dropped"]) == (3, 0)
    assert pruned.json("check", "--read-data")["findings"] == []


def test_a_store_that_lacks_something_is_passed_over_and_named(one):
    one.run("backup")
    one.admit(2)
    report = one.json("prune", "--keep-last", "1", wanted=6)
    main, offsite = report["stores"]
    assert not main["error"]
    assert "backup" in offsite["error"] or "lacks" in offsite["error"]
    one.run("backup")
    assert not any(each["error"] for each in one.json("prune", "--keep-last", "1")["stores"])
    assert one.json("check", "--read-data")["findings"] == []


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--keep-within", "soon"), "usage.time"),
        (("--keep-last", "-1"), "prune.policy"),
        (("--waste", "lots"), "usage.share"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused(one, words, code):
    assert one.refusal("prune", *words, wanted=2) == code
