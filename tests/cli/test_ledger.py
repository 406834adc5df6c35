"""`modelkeep ledger`: the log is whole, or the place where it is not is named."""

import pytest
from command import Desk


@pytest.fixture
def kept(one):
    one.run("backup")
    one.run("tokens", "new", "alice")
    return one


def kept_tile(store, kind):
    """The tile or bundle of a checkpoint before the newest, which an opening may mend itself."""
    (folder,) = store.glob(f"ledger/*/tile/{kind}/000.p")
    return sorted(folder.iterdir(), key=lambda path: int(path.name))[-2]


def test_verify_reads_every_store(kept):
    found = kept.json("ledger", "verify")
    assert [each["store"] for each in found] == ["main", "offsite"]
    assert all(each["is_whole"] and not each["findings"] for each in found)
    assert len({(each["size"], each["root"]) for each in found}) == 1
    assert kept.run("ledger", "verify").out.count(": whole: ") == 2


def test_one_store_or_a_copy_of_one_can_be_named(kept, tmp_path):
    import shutil  # noqa: PLC0415

    shutil.copytree(kept.offsite, tmp_path / "copy")
    assert [each["store"] for each in kept.json("ledger", "verify", "--store", "offsite")] == [
        "offsite"
    ]
    (report,) = kept.json("ledger", "verify", "--store", tmp_path / "copy")
    assert report["is_whole"]
    assert kept.refusal("ledger", "verify", "--store", "nowhere", wanted=5) == "store.unknown"


def test_any_changed_object_of_the_log_is_found_and_repaired(kept):
    for kind in ("0", "entries"):
        path = kept_tile(kept.main, kind)
        good = path.read_bytes()
        path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        (main, offsite) = kept.json("ledger", "verify", wanted=4)
        assert not main["is_whole"]
        assert offsite["is_whole"]
        kept.run("ledger", "verify", "--repair")
        assert all(each["is_whole"] for each in kept.json("ledger", "verify"))


def test_a_checkpoint_that_was_saved_is_found_in_the_history_ever_after(kept, tmp_path):
    saved = tmp_path / "checkpoint.txt"
    saved.write_text(kept.run("ledger", "checkpoint").out)
    kept.run("tokens", "new", "bob")
    kept.run("ledger", "verify", "--expect", saved)


def test_a_checkpoint_of_a_fork_is_not_in_the_history(kept, tmp_path):
    """The stores are rolled back to yesterday, then something else happens."""
    yesterday = kept.files()
    kept.run("tokens", "new", "bob")
    saved = tmp_path / "checkpoint.txt"
    saved.write_text(kept.run("ledger", "checkpoint").out)
    for path in kept.files():
        path.unlink()
    for path, raw in yesterday.items():
        path.write_bytes(raw)
    kept.run("tokens", "new", "mallory")
    kept.run("ledger", "verify")
    found = kept.run("ledger", "verify", "--expect", saved, "--json", wanted=4)
    assert found.err or not all(each["is_whole"] for each in found.json)


@pytest.mark.parametrize(
    "text", [b"", b"\n", b"rubbish", b"\xff\xfe", b"modelkeep.invalid/x/0\n1\nAAAA\n\n"]
)
def test_a_checkpoint_that_is_rubbish_proves_nothing(kept, tmp_path, text):
    """An empty file is no expectation that was met: it is none that could be."""
    (tmp_path / "checkpoint.txt").write_bytes(text)
    words = ("ledger", "verify", "--expect", tmp_path / "checkpoint.txt", "--json")
    refused = kept.run(*words, wanted=None)
    assert refused.status in (2, 4)
    assert refused.error["code"]


def test_a_checkpoint_that_was_changed_proves_nothing(kept, tmp_path):
    text = kept.run("ledger", "checkpoint").out
    origin, size, rest = text.split("\n", 2)
    (tmp_path / "changed.txt").write_text(f"{origin}\n{int(size) - 1}\n{rest}")
    kept.refusal("ledger", "verify", "--expect", tmp_path / "changed.txt", wanted=4)


def test_a_missing_checkpoint_is_missing(kept, tmp_path):
    assert kept.refusal("ledger", "verify", "--expect", tmp_path / "no", wanted=5) == "file.missing"


def test_tail_shows_the_last_entries_oldest_first(kept):
    lines = kept.run("ledger", "tail", "--last", "1000").out.splitlines()
    assert "keep.created" in lines[0]
    found = kept.run("ledger", "tail", "--last", "1000", "--json").lines
    assert [each["index"] for each in found] == list(range(len(found)))
    assert len(found) >= len(lines)
    (last,) = kept.run("ledger", "tail", "--last", "1", "--kind", "token.", "--json").lines
    assert last["kind"] == "token.created"
    assert last["actor"].startswith("cli:")
    assert len(kept.run("ledger", "tail", "--last", "3").out.splitlines()) == 3


def test_tail_filters_by_the_beginning_of_the_kind(kept):
    found = kept.run("ledger", "tail", "--kind", "model.", "--json").lines
    assert [each["kind"] for each in found] == ["model.admitted"]
    assert kept.run("ledger", "tail", "--kind", "nothing.", "--json").lines == []
    assert kept.run("ledger", "tail", "--last", "0").out == ""
    assert kept.run("ledger", "tail", "--last", "-5").out == ""


def test_a_checkpoint_is_a_signed_note_and_a_key_comes_with_it(kept):
    text = kept.run("ledger", "checkpoint").out
    origin, size, _, empty, signature = text.splitlines()
    assert empty == ""
    assert signature.startswith(f"— {origin} ")
    facts = kept.json("ledger", "checkpoint")
    assert facts["checkpoint"].splitlines()[0] == origin
    assert facts["size"] >= int(size)
    assert facts["verifier_key"].startswith(f"{origin}+")
    assert facts["witness_key"].partition("+")[0].endswith("/witness")


@pytest.mark.parametrize(
    "receipt", ["", ":", "gateway-0-0", "gateway-0-0:x", "../x:1", "g:-1", "a:1:2"]
)
def test_what_is_no_receipt_is_refused(kept, receipt):
    kept.refusal("ledger", "prove", receipt, wanted=2)


def test_an_unknown_receipt_is_missing(kept):
    assert kept.refusal("ledger", "prove", "gateway-0-0:17", wanted=5) == "receipt.unknown"


def test_the_log_of_an_untouched_keep_is_whole(tmp_path):
    desk = Desk.made(tmp_path)
    assert all(each["is_whole"] for each in desk.json("ledger", "verify"))


def test_the_keys_of_all_logs_are_said(desk):
    (key,) = desk.json("ledger", "key")["verifier_keys"]
    assert key == desk.json("ledger", "checkpoint")["verifier_key"]
    assert desk.run("ledger", "key").out == key + "\n"
