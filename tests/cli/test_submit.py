"""`modelkeep submit`: a process without keep and passphrase hands in; it can do nothing else."""

import json
import os
import shutil

import pytest
from command import Process, modelkeep

from modelkeep.core.errors import UsageError
from modelkeep.sdk.inbox import _found


@pytest.fixture
def client(desk):
    desk.run("clients", "add", "trainer", "--out", desk.folder / "trainer.client")
    return desk.folder / "trainer.client"


@pytest.fixture
def run(tmp_path):
    """What a training left."""
    folder = tmp_path / "run"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(bytes(range(256)) * 5000)
    (folder / "deep" / "er" / "log.txt").write_text("loss 0.1\n")
    (folder / "empty").touch()
    return folder


def refused(*words, wanted):
    found = modelkeep("submit", *words, "--json", wanted=wanted)
    assert not found.out
    return found.error["code"]


def inbox_of(desk):
    return [path for path in (desk.main / "inbox").rglob("*") if path.is_file()]


def test_a_process_with_nothing_but_the_client_file_hands_in(desk, client, run, running):
    """No passphrase, no keep in sight, the keep's folder not even readable by name."""
    process = running(
        Process(
            *("submit", run, "--client", client, "--name", "run-7", "--json"),
            cwd=run,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
        )
    )
    done = process.ended()
    assert done.status == 0, done
    said = json.loads(done.out)
    assert (said["name"], said["files"], said["size_bytes"]) == ("run-7", 3, 1_280_009)
    assert len(inbox_of(desk)) == said["objects"] == 2
    (row,) = desk.json("inbox", "list")["submissions"]
    assert (row["state"], row["submission"]) == ("whole", said["submission"])


def test_what_it_writes_shows_nothing_of_what_it_is(desk, client, run):
    modelkeep("submit", run, "--client", client, "--name", "run-7")
    raw = b"".join(path.read_bytes() for path in inbox_of(desk))
    assert b"loss" not in raw
    assert b"weights" not in raw
    assert b"run-7" not in raw
    assert b"trainer" not in raw


def test_it_says_what_to_do_next(client, run):
    said = modelkeep("submit", run / "weights.bin", "--client", client, "--name", "one").out
    assert "1 files" in said
    assert "modelkeep inbox accept" in said


def test_a_store_that_is_mounted_elsewhere_can_be_named(desk, client, run, tmp_path):
    shutil.move(desk.main, tmp_path / "moved")
    words = (run, "--client", client, "--name", "x")
    assert refused(*words, wanted=6) == "store.empty"
    assert not inbox_of(desk)
    modelkeep("submit", *words, "--store", tmp_path / "moved")
    shutil.move(tmp_path / "moved", desk.main)
    assert len(desk.json("inbox", "list")["submissions"]) == 1


def test_the_store_of_another_keep_takes_nothing(desk, client, run, tmp_path):
    other = type(desk).made(tmp_path / "other")
    words = (run, "--client", client, "--name", "x", "--store", other.main)
    assert refused(*words, wanted=6) == "store.foreign"


@pytest.mark.parametrize("kind", ["link", "link to a folder", "pipe"])
def test_what_is_no_file_of_the_folder_is_not_handed_in(desk, client, run, kind, tmp_path):
    (tmp_path / "secret").mkdir()
    if kind == "pipe":
        os.mkfifo(run / "deep" / "x")
    else:
        target = tmp_path / "secret" if "folder" in kind else client
        (run / "deep" / "x").symlink_to(target)
    assert refused(run, "--client", client, "--name", "x", wanted=2) == "inbox.kind"
    assert not inbox_of(desk)


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        (("--name", "Not A Name"), 2, "model.name"),
        (("--name", "x", "--store", "gopher://x"), 2, "store.url"),
    ],
)
def test_nonsense_is_refused(client, run, words, status, code):
    assert refused(run, "--client", client, *words, wanted=status) == code


def test_what_is_not_there_cannot_be_handed_in(desk, client, run, tmp_path):
    (tmp_path / "nothing").mkdir()
    words = ("--client", client, "--name", "x")
    assert refused(tmp_path / "nothing", *words, wanted=2) == "inbox.path"
    assert refused(tmp_path / "not", *words, wanted=5) == "file.missing"
    assert refused(run, "--client", tmp_path / "not", "--name", "x", wanted=5) == "file.missing"
    assert not inbox_of(desk)


def test_a_client_file_that_others_can_read_or_that_was_changed_is_refused(client, run):
    words = (run, "--client", client, "--name", "x")
    client.chmod(0o644)
    assert refused(*words, wanted=3) == "file.readable"
    client.chmod(0o600)
    client.write_text(client.read_text().replace('"seed":"', '"seed":"A', 1))
    assert refused(*words, wanted=2) == "client.file"


def test_a_link_that_is_named_like_its_folder_is_not_followed(tmp_path):
    secret, runs = tmp_path / "secret", tmp_path / "runs"
    secret.write_text("nobody meant to hand this in")
    runs.mkdir()
    (runs / "runs").symlink_to(secret)
    with pytest.raises(UsageError) as refused:
        list(_found(runs))
    assert refused.value.code == "inbox.kind"
    assert [size for _, _, size in _found(secret)] == [28]
