"""`modelkeep state rebuild`: what is true now is what the ledger says; nothing else is touched."""

import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
from command import PASSPHRASE, modelkeep, wait_until

from modelkeep.adapters.locks import held
from modelkeep.core.errors import UnavailableError
from modelkeep.sdk.keep import means_of
from modelkeep.wiring import KeepFolder, removed_state


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


def opened_times(path):
    """How many descriptors of this process are of a file."""
    return sum(link.resolve() == path.resolve() for link in Path("/proc/self/fd").iterdir())


def test_a_service_that_starts_while_the_rebuild_waits_keeps_its_state(kept):
    folder, codes = KeepFolder(kept.keep), []
    folder.run_folder_ready()
    before = (kept.keep / "state.db").read_bytes()

    def rebuild():
        with pytest.raises(UnavailableError) as refused:
            removed_state(folder, means_of(PASSPHRASE))
        codes.append(refused.value.code)

    thread = threading.Thread(target=rebuild)
    with ExitStack() as service:
        with held(folder.writer_lock, wait_s=0.0, what="this test"):
            thread.start()
            wait_until(lambda: opened_times(folder.writer_lock) == 2)  # it waits for the lock
            service.enter_context(held(folder.serve_lock, wait_s=0.0, what="a service"))
        thread.join()
    assert codes == ["state.served"]
    assert (kept.keep / "state.db").read_bytes() == before
