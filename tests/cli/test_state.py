"""`modelkeep state rebuild`: what is true now is what the ledger says; nothing else is touched."""

import pytest
from command import modelkeep


@pytest.fixture
def kept(one):
    one.admit(2)
    one.run("alias", "digits:prod", "2")
    token = one.json("tokens", "new", "alice")
    one.json("tokens", "new", "bob")
    one.run("tokens", "revoke", token["token_id"])
    return one


def test_a_rebuilt_state_says_what_it_said_before(kept):
    before = kept.json("tokens", "list"), kept.json("models"), kept.json("status")["head"]
    facts = kept.json("state", "rebuild")
    assert (facts["tokens"], facts["head"]) == (2, 2)
    assert (kept.json("tokens", "list"), kept.json("models"), kept.json("status")["head"]) == before
    assert "State rebuilt from" in kept.run("state", "rebuild").out


@pytest.mark.parametrize("what", ["gone", "damaged", "empty", "old"])
def test_a_state_that_was_lost_or_changed_is_made_anew(kept, what):
    wanted = kept.json("tokens", "list")
    state = kept.keep / "state.db"
    if what == "gone":
        state.unlink()
    else:
        state.write_bytes({"damaged": b"rubbish" * 1000, "empty": b"", "old": b"\0" * 8192}[what])
    kept.run("state", "rebuild")
    assert kept.json("tokens", "list") == wanted


def test_a_folder_that_is_no_keep_loses_no_file(tmp_path):
    """`--keep` defaults to where one stands, and others call their databases state.db too."""
    (tmp_path / "state.db").write_bytes(b"somebody else's")
    modelkeep("--keep", tmp_path, "state", "rebuild", wanted=5)
    assert (tmp_path / "state.db").read_bytes() == b"somebody else's"


def test_a_wrong_passphrase_leaves_state_as_it_is(kept, tmp_path):
    (tmp_path / "wrong").write_text("not the passphrase")
    before = (kept.keep / "state.db").read_bytes()
    words = ("--keep", kept.keep, "--passphrase-file", tmp_path / "wrong")
    modelkeep(*words, "state", "rebuild", wanted=3)
    assert (kept.keep / "state.db").read_bytes() == before
