"""`modelkeep demo`: the whole story, every claim checked, and nothing left but the report."""

import os

import pytest
from command import Process, modelkeep

STEPS = (
    "Make a keep",
    "Train",
    "Admit",
    "Serve",
    "Call it",
    "Back up",
    "Attack",
    "Disaster",
    "Prove",
)


@pytest.mark.slow
def test_the_demo_tells_the_whole_story_and_leaves_only_its_report(tmp_path, running):
    (tmp_path / "temporary").mkdir()
    report = tmp_path / "report.html"
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
    process = running(Process("demo", "--report", report, env=environment, cwd=tmp_path))
    ended = process.ended(180)
    assert ended.status == 0, ended.err
    assert process.left() == []
    # onnxruntime leaves a file of its own where temporary files go, whatever one tells it.
    assert {path.name for path in (tmp_path / "temporary").iterdir()} <= {".ses"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "temporary"]
    page = report.read_text()
    for number, step in enumerate(STEPS, start=1):
        assert step in page
        assert f"{number}  {step}" in ended.out
    for proof in ("0 failed", "RTO", "RPO", "freshness proven", "is found, and where it is"):
        assert proof in ended.out
    assert "<script src" not in page
    assert "http://" not in page.replace("http://www.w3.org/", "")


def test_a_folder_that_is_in_use_is_not_used(tmp_path):
    (tmp_path / "mine").write_bytes(b"mine")
    refused = modelkeep("demo", "--folder", tmp_path, "--json", wanted=2)
    assert refused.error["code"] == "demo.folder"
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
