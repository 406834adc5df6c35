"""`modelkeep encrypt`: to people or under a passphrase, never half a file, nothing overwritten."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from command import modelkeep

PLAIN = bytes(range(256)) * 800


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where somebody works: a file, an identity and its public file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "me.pub").write_text(modelkeep("identity", "new", "--output", "me.key").out)
    (tmp_path / "weights.bin").write_bytes(PLAIN)
    (tmp_path / "words.txt").write_text("correct horse battery\n")
    return tmp_path


def refusal(*words, wanted):
    found = modelkeep(*words, "--json", wanted=wanted)
    assert not found.out
    return found.error["code"]


def piped(*words, given=b"", wanted=0):
    """A process of its own with bytes on both sides."""
    command = [sys.executable, "-P", "-m", "modelkeep", *map(str, words)]
    found = subprocess.run(command, input=given, capture_output=True, check=False)
    assert found.returncode == wanted, found
    return found.stdout


def test_a_file_is_encrypted_beside_itself_for_its_owner_only(folder):
    said = modelkeep("encrypt", "weights.bin", "--to", "me.pub")
    assert said.out == "encrypted weights.bin.sealed (200.0 KiB) for 1 recipient(s)\n"
    made = folder / "weights.bin.sealed"
    assert made.read_bytes().startswith(b"modelkeep sealed file v0\n")
    assert made.stat().st_mode & 0o777 == 0o600
    assert PLAIN[:64] not in made.read_bytes()
    assert (folder / "weights.bin").read_bytes() == PLAIN


@pytest.mark.usefixtures("folder")
def test_programs_are_told_what_was_made():
    words = ("encrypt", "weights.bin", "--to", "me.pub", "--sign", "me.key", "--json")
    assert modelkeep(*words).json == {
        "file": "weights.bin.sealed",
        "form": "modelkeep",
        "recipients": 1,
        "size_bytes": len(PLAIN),
        "signed": True,
    }


def test_a_recipient_is_a_text_too_and_there_may_be_several(folder):
    text = (folder / "me.pub").read_text().splitlines()[2]
    words = ("--to", text, "--to", "me.pub", "--output", "out")
    assert modelkeep("encrypt", "weights.bin", *words, "--json").json["recipients"] == 2


def test_a_passphrase_will_do(folder):
    words = ("encrypt", "weights.bin", "--passphrase-file", "words.txt")
    assert modelkeep(*words).out.endswith("for a passphrase\n")
    back = ("decrypt", "weights.bin.sealed", "-o", "back", "--passphrase-file", "words.txt")
    modelkeep(*back)
    assert (folder / "back").read_bytes() == PLAIN
    (folder / "words.txt").write_text("correct horse battered\n")
    assert refusal(*back, "--force", wanted=3) == "sealed.key"
    assert (folder / "back").read_bytes() == PLAIN


@pytest.mark.skipif(not shutil.which("age"), reason="the age program is not installed")
def test_what_is_for_an_age_recipient_opens_with_age(folder):
    words = [shutil.which("age-keygen") or "", "-o", "age.key"]
    subprocess.run(words, check=True, capture_output=True)
    text = (folder / "age.key").read_text()
    recipient = text[text.index("age1") :].split()[0]
    (folder / "age.pub").write_text(recipient + "\n")
    for to in (recipient, "age.pub"):
        said = modelkeep("encrypt", "weights.bin", "--to", to, "--force", "--json").json
        assert (said["file"], said["form"]) == ("weights.bin.age", "age")
        words = [shutil.which("age") or "", "-d", "-i", "age.key", "weights.bin.age"]
        assert subprocess.run(words, check=True, capture_output=True).stdout == PLAIN


def test_an_output_that_exists_stays_unless_forced(folder):
    words = ("encrypt", "weights.bin", "--to", "me.pub")
    modelkeep(*words)
    before = (folder / "weights.bin.sealed").read_bytes()
    assert refusal(*words, wanted=2) == "file.exists"
    assert (folder / "weights.bin.sealed").read_bytes() == before
    modelkeep(*words, "--force")
    assert (folder / "weights.bin.sealed").read_bytes() != before


@pytest.mark.usefixtures("folder")
def test_streams_go_through():
    sealed = piped("encrypt", "--to", "me.pub", given=PLAIN)
    assert sealed.startswith(b"modelkeep sealed file v0\n")
    assert piped("decrypt", "-", "--identity", "me.key", given=sealed) == PLAIN
    assert piped("encrypt", "weights.bin", "-o", "-", "--to", "me.pub")[:25] == sealed[:25]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((), "passphrase.none"),
        (("--to", "me.pub", "--passphrase-file", "words.txt"), "files.both"),
        (("--to", "mkr1"), "key.recipient"),
        (("--to", "me.key"), "key.recipient"),
        (("--to", "weights.bin"), "key.file"),
        (("--to", "me.pub", "--output", "-"), "files.output"),
        (("--to", "me.pub", "--sign", "me.pub"), "file.readable"),
    ],
)
def test_what_makes_no_sense_is_refused_and_leaves_nothing(folder, words, code):
    before = sorted(folder.iterdir())
    wanted = 3 if code == "file.readable" else 2
    assert refusal("encrypt", "weights.bin", *words, wanted=wanted) == code
    assert sorted(folder.iterdir()) == before


def test_a_missing_file_is_missing_and_a_folder_is_no_file(folder):
    assert refusal("encrypt", "none", "--to", "me.pub", wanted=5) == "file.missing"
    assert refusal("encrypt", "weights.bin", "--to", "none.pub", wanted=5) == "file.missing"
    assert refusal("encrypt", folder, "--to", "me.pub", wanted=2) == "file.read"


def test_an_interrupt_leaves_no_partial_file(folder):
    """Ctrl-C while a stream still comes."""
    before = sorted(folder.iterdir())
    command = [sys.executable, "-P", "-m", "modelkeep", "encrypt", "--to", "me.pub", "-o", "out"]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )
    assert process.stdin is not None
    process.stdin.write(bytes(300_000))
    process.stdin.flush()
    deadline_s = time.monotonic() + 20
    while sorted(folder.iterdir()) == before:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"nothing is half-written" in err
    assert sorted(folder.iterdir()) == before
