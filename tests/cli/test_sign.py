"""`modelkeep sign` and `modelkeep verify`: three lines beside a file, of those whom one names."""

import pytest
from command import modelkeep


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A file that `me` signed."""
    monkeypatch.chdir(tmp_path)
    for name in ("me", "you"):
        public = modelkeep("identity", "new", "--output", f"{name}.key").out
        (tmp_path / f"{name}.pub").write_text(public)
    (tmp_path / "weights.bin").write_bytes(bytes(3_000_000))
    assert modelkeep("sign", "weights.bin", "-i", "me.key").out == "signed: weights.bin.sig\n"
    return tmp_path


def refusal(*words, wanted):
    found = modelkeep(*words, "--json", wanted=wanted)
    assert not found.out
    return found.error["code"]


def test_a_signature_is_three_lines_beside_the_file(folder):
    first, verifier, signature, end = (folder / "weights.bin.sig").read_text().split("\n")
    assert first == "modelkeep signature v0"
    assert verifier in (folder / "me.pub").read_text()
    assert len(signature) == 88
    assert not end


def test_it_verifies_against_those_one_names(folder):
    verifier = (folder / "weights.bin.sig").read_text().split("\n")[1]
    for key in ("me.pub", verifier):
        said = modelkeep("verify", "weights.bin", "--key", key)
        assert said.out == f"good: weights.bin is what {verifier} signed\n"
    found = modelkeep("verify", "weights.bin", "--key", "you.pub", "--key", "me.pub", "--json").json
    assert found == {"file": "weights.bin", "size_bytes": 3_000_000, "signer": verifier}


@pytest.mark.usefixtures("folder")
def test_a_signature_of_somebody_else_is_refused():
    assert refusal("verify", "weights.bin", "--key", "you.pub", wanted=3) == "signature.signer"


def test_a_changed_file_is_found(folder):
    with (folder / "weights.bin").open("r+b") as stream:
        stream.seek(1_500_000)
        stream.write(b"\1")
    assert refusal("verify", "weights.bin", "--key", "me.pub", wanted=4) == "signature.bad"


def test_a_changed_signature_is_found(folder):
    raw = bytearray((folder / "weights.bin.sig").read_bytes())
    raw[-20] ^= 1
    (folder / "other.sig").write_bytes(raw)
    words = ("verify", "weights.bin", "--signature", "other.sig", "--key", "me.pub")
    modelkeep(*words, wanted=4)
    (folder / "other.sig").write_bytes(b"x" * 100)
    assert refusal(*words, wanted=4) == "signature.form"


def test_a_signature_that_exists_stays_unless_forced(folder):
    before = (folder / "weights.bin.sig").read_bytes()
    assert refusal("sign", "weights.bin", "-i", "you.key", wanted=2) == "file.exists"
    assert (folder / "weights.bin.sig").read_bytes() == before
    modelkeep("sign", "weights.bin", "-i", "you.key", "--force")
    assert (folder / "weights.bin.sig").read_bytes() != before


@pytest.mark.usefixtures("folder")
def test_what_is_missing_is_missing():
    assert refusal("sign", "none", "-i", "me.key", wanted=5) == "file.missing"
    assert refusal("verify", "me.pub", "--key", "me.pub", wanted=5) == "file.missing"
    assert refusal("verify", "-", "--key", "me.pub", wanted=2) == "files.signature"
    assert refusal("verify", "weights.bin", "--key", "me.key", wanted=2) == "key.recipient"
