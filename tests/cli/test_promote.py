"""`modelkeep promote`: an alias moves to what may be served, with the approval of others."""

import pytest


@pytest.fixture
def guarded(three):
    """A keep with an approver, whose key lies in a file; promotions need approval."""
    three.run("principals", "new", "ann", "--role", "approver")
    key = three.json("tokens", "new", "ann")["api_key"]
    (three.folder / "ann.key").write_text(key + "\n")
    three.config.write_text(three.config.read_text() + "\n[approvals]\nneeded = 1\n")
    return three


def test_an_alias_moves_and_the_ledger_says_from_where_to_where(three):
    assert "lm:prod is version 1;" in three.run("promote", "lm:1", "--to", "prod").out
    done = three.json("promote", "lm:3", "--to", "prod", "--note", "better")
    assert (done["version"], done["previous"], done["is_new"]) == (3, 1, True)
    assert "is version 3 already" in three.run("promote", "lm:3", "--to", "prod").out
    first, second = (each["facts"] for each in three.entries("model.promoted"))
    assert (first["previous"], second["previous"], second["note"]) == (0, 1, "better")
    assert second["manifest"] == three.json("models")[2]["digest"]
    assert three.json("promote", "lm:prod", "--to", "old")["version"] == 3


def test_somebody_else_agrees_first_and_alias_is_no_way_around(guarded):
    words = ("promote", "lm:2", "--to", "prod")
    assert guarded.refusal(*words, wanted=3) == "approval.needed"
    assert guarded.refusal("alias", "lm:prod", "1", wanted=3) == "approval.needed"
    rows = guarded.json("approvals", "list")
    assert {each["subject"] for each in rows} == {
        "lm:prod to version 1",
        "lm:prod to version 2",
    }
    wanted = next(each for each in rows if each["subject"].endswith("2"))
    guarded.run(
        "approvals", "give", wanted["approval_id"], "--token-file", guarded.folder / "ann.key"
    )
    assert guarded.json(*words)["version"] == 2
    assert guarded.refusal("promote", "lm:3", "--to", "prod", wanted=3) == "approval.needed"
    assert guarded.json("models")[1]["aliases"] == ["prod"]


def test_what_is_deprecated_is_refused_unless_it_is_forced_and_then_warned_of(three):
    three.run("deprecate", "lm:1", "--note", "leaks")
    assert three.refusal("promote", "lm:1", "--to", "prod", wanted=3) == "promote.deprecated"
    done = three.run("promote", "lm:1", "--to", "prod", "--force")
    assert "warning: lm:1 is deprecated (leaks)" in done.err


def test_what_makes_no_sense_is_refused_and_recorded_nowhere(three):
    for words, status, code in (
        (("lm", "--to", "prod"), 2, "promote.version"),
        (("lm:1", "--to", "7"), 2, "model.alias"),
        (("lm:1", "--to", "PROD"), 2, "model.name"),
        (("lm:1", "--to", "prod", "--note", "x" * 1001), 2, "version.note"),
        (("lm:9", "--to", "prod"), 5, "model.unknown"),
    ):
        done = three.run("promote", *words, "--json", wanted=status)
        assert done.error["code"] == code
    assert "model.promoted" not in three.kinds()
