"""`modelkeep scan`: every file gets its line, whatever its name, and nothing in it is executed."""

import os
import pickle

import pytest
from command import Process, modelkeep
from onnx_models import two_models


class Harm:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return (os.system, (f"touch {self.witness}",))


@pytest.fixture
def downloads(tmp_path):
    folder = tmp_path / "downloads"
    (folder / "deep").mkdir(parents=True)
    (folder / "good.onnx").write_bytes(two_models()[0].read_bytes())
    (folder / "deep" / "cut.onnx").write_bytes(two_models()[0].read_bytes()[:5000])
    (folder / "deep" / "evil.pkl").write_bytes(pickle.dumps(Harm(tmp_path / "it-ran")))
    return folder


def test_a_sound_model_is_allowed():
    said = modelkeep("scan", two_models()[0])
    assert said.out.split() == ["allow", str(two_models()[0])]
    found = modelkeep("scan", two_models()[0], "--json").json
    assert found == {"path": str(two_models()[0]), "decision": "allow", "findings": []}


def test_a_folder_is_scanned_file_by_file_and_the_worst_decides(downloads, tmp_path):
    said = modelkeep("scan", downloads, wanted=3)
    decisions = {line.split()[1]: line.split()[0] for line in said.out.splitlines() if "/" in line}
    assert decisions[str(downloads / "good.onnx")] == "allow"
    assert decisions[str(downloads / "deep" / "evil.pkl")] == "deny"
    assert decisions[str(downloads / "deep" / "cut.onnx")] in ("deny", "hold")
    assert "scan.pickle" in said.out
    assert not (tmp_path / "it-ran").exists()


def test_programs_get_one_document_a_file_with_every_finding(downloads):
    found = modelkeep("scan", downloads, "--json", wanted=3).lines
    assert len(found) == 3
    (evil,) = (each for each in found if each["path"].endswith("evil.pkl"))
    assert evil["decision"] == "deny"
    assert all(
        {"rule", "severity", "subject", "evidence", "reference"} == set(each)
        for each in evil["findings"]
    )


def test_a_missing_file_is_missing():
    assert modelkeep("scan", "/nowhere", "--json", wanted=5).error["code"] == "file.missing"


def test_an_empty_file_is_not_allowed(tmp_path):
    (tmp_path / "empty.onnx").write_bytes(b"")
    assert modelkeep("scan", tmp_path / "empty.onnx", wanted=3).out.split()[0] in ("hold", "deny")


def test_a_file_that_cannot_be_read_is_a_usage_error_or_judged(tmp_path):
    path = tmp_path / "loop.onnx"
    path.symlink_to(path)
    assert modelkeep("scan", path, "--json", wanted=None).status in (2, 3, 5)


@pytest.mark.slow
def test_a_pipe_in_a_folder_does_not_hang_the_scan(tmp_path, running):
    os.mkfifo(tmp_path / "model.onnx")
    ended = running(Process("scan", tmp_path, "--json")).ended(5)
    assert ended.status in (2, 3)


@pytest.mark.parametrize("json", [[], ["--json"]], ids=["people", "programs"])
def test_a_name_that_is_not_text_is_scanned_like_any_other(downloads, json):
    with open(os.fsencode(downloads) + b"/\xff\xfe.pkl", "wb") as stream:  # noqa: PTH123 - bytes
        stream.write((downloads / "deep" / "evil.pkl").read_bytes())
    said = modelkeep("scan", downloads, *json, wanted=3)
    assert said.out.count("deny") >= 2


def test_a_name_cannot_forge_a_line_of_the_answer(tmp_path):
    (tmp_path / "x\nallow  evil.pkl\x1b[2J").write_bytes(b"\x80\x04cos\nsystem\n.")
    said = modelkeep("scan", tmp_path, wanted=3)
    assert "allow  evil.pkl" not in said.out.splitlines()
    assert "\x1b" not in said.out


def test_scan_needs_a_path():
    modelkeep("scan", wanted=2)
