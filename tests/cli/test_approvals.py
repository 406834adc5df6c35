"""`modelkeep approvals`: what one person alone may not do."""

import os
import pwd

import pytest


@pytest.fixture
def guarded(desk):
    """A keep with one approver, whose key lies in a file, and approvals switched on."""
    desk.run("principals", "new", "ann", "--role", "approver")
    key = desk.json("tokens", "new", "ann")["api_key"]
    (desk.folder / "ann.key").write_text(key + "\n")
    desk.config.write_text(desk.config.read_text() + "\n[approvals]\nneeded = 1\n")
    return desk


def test_a_second_person_agrees_and_the_verb_goes_on_once(guarded):
    words = ("principals", "new", "bob", "--role", "approver")
    assert guarded.refusal(*words, wanted=3) == "approval.needed"
    (row,) = guarded.json("approvals", "list")
    assert (row["verb"], row["subject"], row["status"]) == ("principals.new", "bob", "open")
    assert row["approval_id"] in guarded.run("approvals", "list").out
    give = ("approvals", "give", row["approval_id"], "--token-file", guarded.folder / "ann.key")
    assert "1 of 1 agreed" in guarded.run(*give).out
    guarded.run(*words)
    assert [each["status"] for each in guarded.json("approvals", "list")] == ["used"]
    assert guarded.refusal(*give, wanted=3) == "approval.closed"


def test_who_asks_is_the_user_that_runs_it_whatever_the_environment_says(guarded, monkeypatch):
    for name in ("USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "mallory")
    guarded.run("principals", "new", "bob", "--role", "approver", wanted=3)
    (row,) = guarded.json("approvals", "list")
    assert row["requested_by"] == f"cli:{pwd.getpwuid(os.getuid()).pw_name}"


def test_a_no_is_a_no(guarded):
    words = ("principals", "new", "bob", "--role", "approver")
    guarded.run(*words, wanted=3)
    (row,) = guarded.json("approvals", "list")
    refuse = ("approvals", "refuse", row["approval_id"], "--token-file", guarded.folder / "ann.key")
    assert "refused by ann" in guarded.run(*refuse).out
    assert "refused by ann" in guarded.run("approvals", "list").out
    guarded.run(*words, wanted=3)
    assert [each["status"] for each in guarded.json("approvals", "list")] == ["refused", "open"]


@pytest.mark.parametrize("raw", [None, b"", b"\xff\0", b"mk_0_0", b"x" * 2000])
def test_a_file_that_holds_no_key_agrees_to_nothing(desk, raw):
    path = desk.folder / "key"
    if raw is not None:
        path.write_bytes(raw)
    words = ("approvals", "give", "0" * 16, "--token-file", path)
    wanted = "auth.invalid" if raw is not None and len(raw) < 1000 else "token.file"
    assert desk.refusal(*words, wanted=2) == wanted
