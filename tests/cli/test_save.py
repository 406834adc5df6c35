"""`modelkeep save`: files that are no model are kept as they are; nothing new, nothing written."""

import os
import shutil
import threading

import pytest
from command import Desk, Process
from onnx_models import two_models
from trees import picture, safetensors, weights, write_tree

from modelkeep.sdk import files

SAVED = "run"


@pytest.fixture(autouse=True)
def exact_times(monkeypatch):
    """Files of a test are younger than the coarsest clock of a file system."""
    monkeypatch.setattr(files, "_TIMES_COARSE_NS", 0)


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path / "tree")


def save(desk: Desk, path, *words, name=SAVED):
    return desk.json("save", path, "--name", name, *words)


def restored(desk: Desk, reference=SAVED):
    out = desk.folder / "restored"
    shutil.rmtree(out, ignore_errors=True)
    desk.run("restore", reference, "--to", out)
    return picture(out)


def test_a_folder_comes_back_with_all_that_was_in_it(desk, tree):
    facts = save(desk, tree, "--note", "first")
    assert (facts["version"], facts["is_new"], facts["files"]) == (1, True, 6)
    assert restored(desk) == picture(tree)
    assert desk.kinds() == ["keep.created", "files.saved", "vault.committed", "model.restored"]
    assert desk.entries("files.saved")[0]["facts"]["model"] == SAVED


def test_people_are_told_the_version_and_its_digest(desk, tree):
    assert f"saved {SAVED}:1  6 files" in desk.run("save", tree, "--name", SAVED).out
    assert "nothing is new" in desk.run("save", tree, "--name", SAVED).out


def test_a_single_file_comes_back_as_a_file(desk, tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("1,2\n")
    path.chmod(0o640)
    save(desk, path)
    desk.run("restore", SAVED, "--to", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "1,2\n"
    assert (tmp_path / "out.csv").stat().st_mode & 0o777 == 0o640


def test_where_nothing_is_new_nothing_is_written_or_read(desk, tree):
    save(desk, tree)
    before = desk.files()
    for path in tree.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(path.stat().st_mode)  # another ctime: it is read again
            break
    facts = save(desk, tree)
    assert (facts["version"], facts["is_new"]) == (1, False)
    assert facts["unread"] == facts["files"] - 1
    packs = [path for path in desk.files() if "pack" in path.parts]
    assert packs == [path for path in before if "pack" in path.parts]
    assert "files.saved" not in desk.kinds()[2:]


def test_what_changed_is_the_next_version_and_the_rest_is_taken_over(desk, tree):
    save(desk, tree)
    old = picture(tree)
    (tree / "deep" / "er" / "config.json").write_text("changed")
    (tree / "run.sh").unlink()
    (tree / "new").write_bytes(b"new")
    facts = save(desk, tree)
    assert (facts["version"], facts["is_new"], facts["unread"]) == (2, True, 4)
    assert restored(desk) == picture(tree)
    assert restored(desk, f"{SAVED}:1") == old


@pytest.mark.parametrize("what", ["mode", "link", "folder", "root"])
def test_what_is_no_content_is_new_too(desk, tree, what):
    save(desk, tree)
    if what == "mode":
        (tree / "run.sh").chmod(0o700)
    elif what == "link":
        (tree / "latest").unlink()
        (tree / "latest").symlink_to("deep")
    elif what == "folder":
        (tree / "empty" / "more").mkdir()
    else:
        tree.chmod(0o711)
    assert save(desk, tree)["version"] == 2
    assert restored(desk) == picture(tree)


def test_other_times_alone_are_nothing_new(desk, tree):
    save(desk, tree)
    os.utime(tree / "run.sh", ns=(1, 1))
    assert not save(desk, tree)["is_new"]


def test_chunks_that_the_store_lost_are_stored_again(desk, tree):
    """Times say that nothing changed; the store does not hold it any more."""
    save(desk, tree)
    for path in (desk.main / "pack").rglob("*"):
        if path.is_file():
            path.unlink()
    facts = save(desk, tree)
    assert (facts["is_new"], facts["unread"]) == (False, 1)  # an empty file has no chunks
    assert restored(desk) == picture(tree)


def test_a_fine_tune_is_found_to_be_one(tmp_path):
    desk = Desk.made(tmp_path / "desk", second=False)
    desk.configure("[[stores]]", '[[stores]]\nencoding = "small"')
    sizes = []
    for step in (0.0, 0.001):
        path = tmp_path / "m.safetensors"
        path.write_bytes(safetensors(weights(step=step)))
        save(desk, path)
        sizes.append(sum(p.stat().st_size for p in (desk.main / "pack").rglob("*") if p.is_file()))
    assert sizes[1] - sizes[0] < 0.8 * sizes[0]
    desk.run("restore", SAVED, "--to", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == path.read_bytes()


def test_a_file_that_claims_to_be_a_model_and_is_none_is_kept_as_bytes(desk, tmp_path):
    path = tmp_path / "broken.safetensors"
    path.write_bytes((500).to_bytes(8, "little") + b"{" * 500 + bytes(5000))
    save(desk, path)
    desk.run("restore", SAVED, "--to", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == path.read_bytes()


def test_sockets_and_pipes_are_left_out_and_named(desk, tree):
    os.mkfifo(tree / "pipe")
    assert "pipe" in desk.run("save", tree, "--name", SAVED).err


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        (("--name", "No"), 2, "model.name"),
        (("--name", "a", "--base", "x:y:z"), 2, "model.reference"),
        (("--name", "a", "--domain", "nobody"), 5, "keys.domain"),
        (("--name", "a", "--note", os.fsdecode(b"\xff")), 2, "save.text"),
    ],
)
def test_nonsense_is_refused(desk, tree, words, status, code):
    assert desk.refusal("save", tree, *words, wanted=status) == code


def test_what_is_not_there_is_missing(desk, tmp_path):
    assert desk.refusal("save", tmp_path / "no", "--name", "a", wanted=5) == "file.missing"


def test_a_keep_is_not_saved_into_itself(desk):
    for path in (desk.keep, desk.folder, desk.main):
        assert desk.refusal("save", path, "--name", "a", wanted=2) == "save.keep"


def test_a_model_and_saved_files_do_not_share_a_name(one, tree):
    assert one.refusal("save", tree, "--name", "digits", wanted=2) == "save.kind"
    save(one, tree)
    code = one.refusal("admit", two_models()[0], "--name", SAVED, wanted=2)
    assert code == "admit.kind"


def test_two_that_save_at_once_both_succeed(desk, tmp_path, running):
    """Neither waits for the other's upload; both are there afterwards."""
    started = []
    for name in ("one", "two"):
        path = tmp_path / name
        path.write_bytes(os.urandom(100_000))
        os.truncate(path, 70 * 1024 * 1024)
        started.append(running(Process(*desk.words("save", path, "--name", name, "--json"))))
    for process in started:
        assert process.ended(60).status == 0
    names = {each["name"] for each in desk.json("models")}
    assert names == {"one", "two"}
    for name in names:
        desk.run("restore", name, "--to", tmp_path / "out", "--force")
        assert (tmp_path / "out").read_bytes() == (tmp_path / name).read_bytes()


def test_a_file_that_somebody_writes_into_is_an_error_and_keeps_nothing(desk, tmp_path):
    path = tmp_path / "log"
    path.write_bytes(os.urandom(3_000_000))
    done = threading.Event()

    def write():
        while not done.is_set():
            with path.open("ab") as stream:
                stream.write(b"more")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        said = desk.run("save", path, "--name", SAVED, wanted=None)
    finally:
        done.set()
        writer.join()
    assert said.status in (0, 2), said
    assert (said.status == 2) == ("file.changed" in said.err)
    assert desk.run("save", path, "--name", SAVED).status == 0
