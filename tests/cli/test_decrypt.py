"""`modelkeep decrypt`: all of it or nothing, and never what somebody else signed."""

import pytest
from command import modelkeep

PLAIN = bytes(range(256)) * 800


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A file that `you` signed and sealed to `me`."""
    monkeypatch.chdir(tmp_path)
    for name in ("me", "you"):
        public = modelkeep("identity", "new", "--output", f"{name}.key").out
        (tmp_path / f"{name}.pub").write_text(public)
    (tmp_path / "plain").write_bytes(PLAIN)
    modelkeep("encrypt", "plain", "-o", "w.sealed", "--to", "me.pub", "--sign", "you.key")
    (tmp_path / "plain").unlink()
    return tmp_path


def refusal(*words, wanted):
    found = modelkeep(*words, "--json", wanted=wanted)
    assert not found.out
    return found.error["code"]


def verifier(folder, name):
    return (folder / f"{name}.pub").read_text().splitlines()[4]


def test_a_file_comes_back_without_its_suffix_for_its_owner_only(folder):
    said = modelkeep("decrypt", "w.sealed", "--identity", "me.key")
    assert (folder / "w").read_bytes() == PLAIN
    assert (folder / "w").stat().st_mode & 0o777 == 0o600
    assert verifier(folder, "you") in said.out
    assert "did not demand" in said.out


@pytest.mark.parametrize("by", ["you.pub", "verifier"])
def test_a_signature_can_be_demanded(folder, by):
    named = verifier(folder, "you") if by == "verifier" else by
    words = ("decrypt", "w.sealed", "-i", "me.key", "--from", named)
    said = modelkeep(*words, "--json").json
    assert said == {
        "file": "w",
        "form": "modelkeep",
        "size_bytes": len(PLAIN),
        "signer": verifier(folder, "you"),
        "signer_trusted": True,
    }


def test_what_another_one_signed_is_refused(folder):
    before = sorted(folder.iterdir())
    words = ("decrypt", "w.sealed", "-i", "me.key", "--from", "me.pub")
    assert refusal(*words, wanted=3) == "sealed.signer"
    assert sorted(folder.iterdir()) == before


def test_the_wrong_identity_opens_nothing(folder):
    before = sorted(folder.iterdir())
    assert refusal("decrypt", "w.sealed", "-i", "you.key", wanted=3) == "sealed.key"
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("at", [0, 30, 1000, 5000, -70, -1])
def test_a_flipped_bit_leaves_nothing(folder, at):
    raw = bytearray((folder / "w.sealed").read_bytes())
    raw[at] ^= 4
    (folder / "w.sealed").write_bytes(raw)
    before = sorted(folder.iterdir())
    found = modelkeep("decrypt", "w.sealed", "-i", "me.key", wanted=None)
    assert found.status in (3, 4)
    assert sorted(folder.iterdir()) == before


def test_an_output_that_exists_stays_unless_forced(folder):
    (folder / "w").write_bytes(b"mine")
    words = ("decrypt", "w.sealed", "-i", "me.key")
    assert refusal(*words, wanted=2) == "file.exists"
    assert (folder / "w").read_bytes() == b"mine"
    modelkeep(*words, "--force")
    assert (folder / "w").read_bytes() == PLAIN


def test_an_identity_that_others_may_read_is_refused(folder):
    (folder / "me.key").chmod(0o640)
    assert refusal("decrypt", "w.sealed", "-i", "me.key", wanted=3) == "file.readable"
    assert "chmod 600" in modelkeep("decrypt", "w.sealed", "-i", "me.key", wanted=3).err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("me.pub", "-i", "me.key"), "files.output"),
        (("w.sealed",), "passphrase.none"),
        (("w.sealed", "-i", "me.key", "--passphrase-file", "me.pub"), "files.both"),
        (("w.sealed", "-i", "me.key", "--output", "-"), "files.output"),
        (("w.sealed", "-i", "me.key", "--from", "me.key"), "key.recipient"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_makes_no_sense_is_refused(words, code):
    assert refusal("decrypt", *words, wanted=2) == code


@pytest.mark.usefixtures("folder")
def test_a_demanded_signature_needs_a_file():
    words = ("decrypt", "w.sealed", "-i", "me.key", "--from", "you.pub", "-o", "-")
    found = modelkeep(*words, wanted=2)
    assert not found.out
    assert "[files.unproven]" in found.err


def test_what_is_no_sealed_file_is_said_to_be_none(folder):
    (folder / "other.sealed").write_bytes(b"PK\3\4" * 100)
    assert refusal("decrypt", "other.sealed", "-i", "me.key", wanted=4) == "sealed.format"
