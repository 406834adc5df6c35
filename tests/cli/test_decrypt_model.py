"""`modelkeep decrypt` of an exported model: whole, one file of it, a folder of it, one tensor."""

import numpy as np
import pytest
from command import modelkeep
from portable_files import FILES, ME, SENDER, TENSORS, front_bytes, manifest_of, portable, table_of

from modelkeep.core.policy import Policy, Use
from modelkeep.crypto.key_files import identity_file
from modelkeep.crypto.keytext import verifier_text

SENT_BY = verifier_text(SENDER.public)


def sealed_to_me(**facts):
    return portable(table=table_of(manifest_of(**facts)), locks=[ME.recipient])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.model").write_bytes(sealed_to_me())
    (tmp_path / "me.key").write_bytes(identity_file(ME).reveal())
    (tmp_path / "me.key").chmod(0o600)
    return tmp_path


def decrypt(*words, wanted=0):
    return modelkeep("decrypt", "m.model", "-i", "me.key", *words, "--json", wanted=wanted)


def test_all_of_it_comes_with_bits_and_links(folder):
    done = decrypt("--from", SENT_BY, "-o", "out").json
    assert (done["form"], done["name"], done["version"]) == ("model", "digits", 3)
    assert (done["signer"], done["signer_trusted"]) == (SENT_BY, True)
    for path, plain in FILES.items():
        assert (folder / "out" / path).read_bytes() == plain
        assert (folder / "out" / path).stat().st_mode & 0o777 == 0o640
    assert (folder / "out/again").read_bytes() == FILES["sub/words.txt"]
    assert "did not demand" in modelkeep("decrypt", "m.model", "-i", "me.key", "-o", "o2").out


def test_a_part_of_it_comes_alone(folder):
    assert decrypt("--path", "sub/words.txt", "-o", "words").json["size_bytes"] == 19
    assert (folder / "words").read_bytes() == FILES["sub/words.txt"]
    inside = table_of(manifest_of(), links=(("sub/again", "words.txt"),))
    (folder / "m.model").write_bytes(portable(table=inside, locks=[ME.recipient]))
    decrypt("--path", "sub", "-o", "part")
    names = sorted(each.name for each in (folder / "part").iterdir())
    assert names == ["again", "empty", "words.txt"]
    assert (folder / "part/again").read_bytes() == FILES["sub/words.txt"]
    decrypt("--tensor", "last", "-o", "last.npy")
    assert np.load(folder / "last.npy").tobytes() == TENSORS["last"]
    decrypt("--tensor", "last", "--path", "model.bin", "-o", "last.bin")
    assert (folder / "last.bin").read_bytes() == TENSORS["last"]


def test_a_part_whose_links_would_lead_out_of_it_is_refused(folder):
    found = decrypt("--path", "sub", "-o", "part", wanted=3)  # sub/up says ../model.bin
    assert found.error["code"] == "restore.link"
    assert not (folder / "part").exists()


def test_a_part_comes_out_of_a_file_that_is_damaged_elsewhere(folder):
    raw = bytearray(sealed_to_me())
    raw[front_bytes(raw) + 40] ^= 1  # in the first tensor
    (folder / "m.model").write_bytes(raw)
    decrypt("--tensor", "last", "-o", "last.bin")
    assert decrypt("-o", "out", wanted=4).error["code"] == "portable.segment"
    assert decrypt("--tensor", "first", "-o", "first", wanted=4).error["code"] == "portable.segment"
    assert not (folder / "out").exists()
    assert not (folder / "first").exists()


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        (("-o", "m.model"), 2, "restore.exists"),
        ((), 2, "files.output"),
        (("-o", "-"), 2, "files.output"),
        (("-o", "o", "--path", "nothing"), 5, "restore.path"),
        (("-o", "o", "--tensor", "nothing"), 5, "tensor.unknown"),
        (("-o", "o", "--from", "me.key"), 2, ""),
    ],
)
def test_what_cannot_be_done_is_said(folder, words, status, code):
    assert decrypt(*words, wanted=status).error["code"].startswith(code)
    assert not (folder / "o").exists()


def test_a_policy_that_forbids_it_is_obeyed(folder):
    raw = sealed_to_me(policy=Policy(uses=(Use.SERVE,)))
    (folder / "m.model").write_bytes(raw)
    assert decrypt("-o", "out", wanted=3).error["code"] == "policy.use"


def test_only_a_model_has_parts(folder):
    (folder / "m.model").write_bytes(b"x")
    assert decrypt("-o", "o", "--path", "x", wanted=2).error["code"] == "files.part"
