"""`modelkeep approve`: what the scan holds is let in for a while, by somebody, with a reason."""

import os
import pwd

import pytest

SOON = "2999-01-31"


def held_bytes(number=1):
    """A pickle of a global that is unknown, not dangerous."""
    return b"\x80\x02cacme_models.forest\nForest\n)\x81" + b"K%c" % number + b"b."


@pytest.fixture
def model(desk):
    path = desk.folder / "forest.pkl"
    path.write_bytes(held_bytes())
    return path


def park(desk, model, name="forest"):
    """Try to admit; the id that the refusal says."""
    said = desk.run("admit", model, "--name", name, "--json", wanted=3).error
    assert said["code"] == "verdict.hold"
    assert said["context"]["hold_id"] in said["hint"]
    return said["context"]["hold_id"]


def test_what_is_held_waits_is_approved_and_comes_in(desk, model):
    hold_id = park(desk, model)
    assert park(desk, model) == hold_id
    (row,) = desk.json("approve")
    assert (row["hold_id"], row["model"], row["status"]) == (hold_id, "forest", "waiting")
    assert row["rules"]
    assert hold_id in desk.run("approve").out
    said = desk.run("approve", "forest", "--why", "ours, reviewed", "--until", SOON)
    assert "modelkeep admit" in said.out
    done = desk.json("admit", model, "--name", "forest")
    assert (done["version"], done["approval"]) == (1, hold_id)
    assert done["verdict"]["decision"] == "hold"
    (entry,) = desk.entries("admission.approved")
    assert entry["actor"] == f"cli:{pwd.getpwuid(os.getuid()).pw_name}"
    kinds = [each for each in desk.kinds() if each.startswith(("admission", "model"))]
    assert kinds == [
        *("model.refused", "admission.held", "model.refused"),
        *("admission.approved", "model.admitted", "admission.used"),
    ]
    assert "let in by the approval" in desk.run("admit", model, "--name", "forest").out


def test_an_approval_is_of_these_bytes_under_this_name_only(desk, model):
    park(desk, model)
    desk.run("approve", "forest", "--why", "reviewed", "--until", SOON)
    model.write_bytes(held_bytes(2))
    other = park(desk, model)
    assert other != desk.json("approve")[1]["hold_id"]
    model.write_bytes(held_bytes())
    assert park(desk, model, name="woods")
    assert desk.json("admit", model, "--name", "forest")["version"] == 1


def test_what_is_denied_is_never_parked_and_no_approval_helps(desk, model):
    hold_id = park(desk, model)
    desk.run("approve", hold_id, "--why", "reviewed", "--until", SOON)
    model.write_bytes(held_bytes() + b"cos\nsystem\n(S'true'\ntR.")
    assert desk.refusal("admit", model, "--name", "forest", wanted=3) == "verdict.deny"
    assert len(desk.json("approve")) == 1


def test_a_withdrawn_approval_lets_nothing_in_and_what_waited_waits_anew(desk, model):
    hold_id = park(desk, model)
    desk.run("approve", hold_id, "--why", "reviewed", "--until", SOON)
    assert "is withdrawn" in desk.run("approve", hold_id, "--withdraw").out
    refused = desk.refusal("approve", hold_id, "--why", "y", "--until", SOON, wanted=3)
    assert refused == "admission.withdrawn"
    assert park(desk, model) == hold_id
    assert [each["status"] for each in desk.json("approve")] == ["waiting"]


def test_an_approval_ends(desk, model):
    hold_id = park(desk, model)
    for until, code in (("2001-01-31", "admission.until"), ("soon", "time.form")):
        words = ("approve", hold_id, "--why", "reviewed", "--until", until)
        assert desk.refusal(*words, wanted=2) == code
    for words in (("--why", "reviewed"), ("--until", SOON), ("--until", SOON, "--why", " ")):
        assert desk.refusal("approve", hold_id, *words, wanted=2) == "admission.why"
    assert desk.refusal("approve", "--withdraw", wanted=2) == "admission.name"
    assert desk.refusal("approve", "nobody", "--withdraw", wanted=5) == "admission.unknown"


def test_two_that_wait_under_one_name_are_told_apart_by_their_ids(desk, model):
    first = park(desk, model)
    model.write_bytes(held_bytes(2))
    second = park(desk, model)
    said = desk.run("approve", "forest", "--why", "y", "--until", SOON, "--json", wanted=2).error
    assert said["code"] == "admission.ambiguous"
    assert first in said["hint"]
    assert second in said["hint"]
    desk.run("approve", first, "--why", "y", "--until", SOON)
    desk.run("approve", "forest", "--why", "y", "--until", SOON)  # one waits
    assert {each["status"] for each in desk.json("approve")} == {"approved"}


def test_where_one_alone_may_not_another_has_to_agree_to_exactly_this(desk, model):
    desk.run("principals", "new", "ann", "--role", "approver")
    key = desk.json("tokens", "new", "ann")["api_key"]
    (desk.folder / "ann.key").write_text(key + "\n")
    desk.config.write_text(desk.config.read_text() + "\n[approvals]\nneeded = 1\n")
    hold_id = park(desk, model)
    words = ("approve", hold_id, "--why", "reviewed", "--until", SOON)
    assert desk.refusal(*words, wanted=3) == "approval.needed"
    assert desk.json("approve")[0]["status"] == "waiting"
    (row,) = desk.json("approvals", "list")
    desk.run("approvals", "give", row["approval_id"], "--token-file", desk.folder / "ann.key")
    longer = ("approve", hold_id, "--why", "reviewed", "--until", "2999-12-31")
    assert desk.refusal(*longer, wanted=3) == "approval.needed"
    desk.run(*words)
    assert desk.json("admit", model, "--name", "forest")["approval"] == hold_id


def test_state_made_anew_from_the_ledger_knows_what_is_held(desk, model):
    park(desk, model)
    desk.run("approve", "forest", "--why", "reviewed", "--until", SOON)
    before = desk.json("approve")
    desk.run("state", "rebuild")
    assert desk.json("approve") == before
