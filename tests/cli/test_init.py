"""`modelkeep init`: a keep is made whole or not at all, and never over another one."""

import os
import stat

import pytest
from command import PASSPHRASE, Desk, Process, modelkeep

from modelkeep.config import parsed_config
from modelkeep.crypto.secret import Secret
from modelkeep.sdk.keep import Keep


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "passphrase.txt"
    path.write_text(PASSPHRASE + "\n")
    path.chmod(0o600)
    return path


def init(secret, *words, wanted=0):
    return modelkeep("init", *words, "--passphrase-file", secret, wanted=wanted)


def test_init_makes_a_keep_that_opens_and_says_what_comes_next(tmp_path, secret):
    keep, offsite = tmp_path / "keep", tmp_path / "offsite"
    said = init(secret, keep, "--store", f"offsite={offsite}", "--port", "0")
    assert "main, offsite" in said.out
    assert "write it down" in said.out
    assert "admit FILE --name NAME" in said.out
    with Keep(keep, passphrase=PASSPHRASE) as opened:
        kinds = [entry.kind for _, entry in opened.ledger.entries()]
        assert kinds == ["keep.created", "key.used", "key.used"]  # once by init, once now
    config = parsed_config((keep / "modelkeep.toml").read_bytes(), what="it")
    assert [(each.label, each.path) for each in config.stores] == [
        ("main", "stores/main"),
        ("offsite", str(offsite)),
    ]


def test_init_says_the_same_to_programs(tmp_path, secret):
    facts = init(secret, tmp_path / "keep", "--port", "0", "--json").json
    assert facts["stores"] == ["main"]
    assert facts["folder"] == str(tmp_path / "keep")
    assert (tmp_path / "keep" / "ca.pem").read_text().startswith("-----BEGIN CERTIFICATE")


def test_everything_that_init_writes_is_readable_by_its_owner_only(tmp_path, secret):
    init(secret, tmp_path / "keep", "--store", f"offsite={tmp_path / 'offsite'}")
    for root in (tmp_path / "keep", tmp_path / "offsite"):
        for path in (root, *root.rglob("*")):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_passphrase_may_come_through_a_descriptor(tmp_path):
    reading, writing = os.pipe()
    os.write(writing, PASSPHRASE.encode())
    os.close(writing)
    modelkeep("init", tmp_path / "keep", "--passphrase-fd", reading)
    Keep(tmp_path / "keep", passphrase=PASSPHRASE).close()


def test_a_second_init_in_the_same_folder_is_refused_and_changes_nothing(tmp_path, secret):
    desk = Desk.made(tmp_path)
    before = desk.files()
    refused = init(secret, desk.keep, "--json", wanted=2)
    assert refused.error["code"] == "keep.exists"
    assert desk.files() == before


def test_a_store_that_holds_another_keep_is_refused_and_stays_as_it_was(tmp_path, secret):
    desk = Desk.made(tmp_path / "first")
    before = desk.files()
    words = (tmp_path / "second", "--store", f"offsite={desk.offsite}")
    refused = init(secret, *words, "--json", wanted=2)
    assert refused.error["code"] == "keep.store_taken"
    assert desk.files() == before
    assert not (tmp_path / "second" / "modelkeep.toml").exists()
    init(secret, tmp_path / "second", "--store", f"offsite={tmp_path / 'free'}")


def test_a_folder_of_other_files_is_no_store(tmp_path, secret):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"meow")
    refused = init(
        secret, tmp_path / "keep", "--store", f"b={tmp_path / 'photos'}", "--json", wanted=2
    )
    assert refused.error["code"] == "keep.store_taken"
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat.jpg"]


@pytest.mark.parametrize("store", ["offsite", "={}", "offsite=", "a\nb={}", "a:b={}", "main={}"])
def test_a_store_that_cannot_be_named_is_refused(tmp_path, secret, store):
    """A ':' would be taken for the end of the label where objects of a store are named."""
    init(secret, tmp_path / "keep", "--store", store.format(tmp_path / "x"), wanted=2)
    assert not (tmp_path / "keep" / "modelkeep.toml").exists()


def test_two_stores_with_one_label_are_refused(tmp_path, secret):
    words = ("--store", f"a={tmp_path / 'a'}", "--store", f"a={tmp_path / 'b'}")
    assert init(secret, tmp_path / "keep", *words, "--json", wanted=2).error["code"] == "init.store"


def test_two_stores_in_one_folder_are_refused_because_neither_survives_alone(tmp_path, secret):
    keep = tmp_path / "keep"
    for store in (keep / "stores" / "main", keep / "stores" / ".." / "stores" / "main"):
        init(secret, keep, "--store", f"offsite={store}", wanted=2)
    twice = ("--store", f"a={tmp_path / 'a'}", "--store", f"b={tmp_path / 'a'}")
    init(secret, keep, *twice, wanted=2)


@pytest.mark.parametrize("passphrase", [b"", b"\n", b"short\n", b"1234567", b"x" * 4097])
def test_a_passphrase_that_is_too_short_or_too_long_is_refused(tmp_path, passphrase):
    secret = tmp_path / "passphrase.txt"
    secret.write_bytes(passphrase)
    refused = init(secret, tmp_path / "keep", "--json", wanted=2)
    assert refused.error["code"] == "passphrase.length"
    assert not (tmp_path / "keep").exists()


def test_the_shortest_passphrase_that_counts_has_eight_bytes(tmp_path):
    secret = tmp_path / "passphrase.txt"
    secret.write_bytes(b"12345678\r\n")
    init(secret, tmp_path / "keep")
    Keep(tmp_path / "keep", passphrase=Secret(b"12345678")).close()


@pytest.mark.parametrize("port", ["-1", "65536"])
def test_a_port_that_is_none_is_refused(tmp_path, secret, port):
    refused = init(secret, tmp_path / "keep", f"--port={port}", "--json", wanted=2)
    assert refused.error["code"] == "config.value"
    assert not (tmp_path / "keep" / "modelkeep.toml").exists()


def test_a_port_that_is_no_number_is_a_usage_error(tmp_path, secret):
    init(secret, tmp_path / "keep", "--port", "https", wanted=2)


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path, secret):
    (tmp_path / "file").write_bytes(b"")
    refused = init(secret, tmp_path / "file" / "keep", "--json", wanted=None)
    assert refused.status in (2, 6)
    assert refused.error["code"]


@pytest.mark.slow
def test_without_a_terminal_and_without_a_file_there_is_nobody_to_ask(tmp_path, running):
    ended = running(Process("init", tmp_path / "keep", "--json")).ended()
    assert ended.status == 2
    assert ended.error["code"] == "passphrase.none"
    assert "--passphrase-file" in ended.error["hint"]
    assert not (tmp_path / "keep").exists()
