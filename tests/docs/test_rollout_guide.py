"""The guide to rolling out runs as it stands on the page."""

import re
import shlex

import pytest
from command import Desk
from onnx_models import trained_models

from tests.arch.source import ROOT

PAGE = (ROOT / "docs" / "guide" / "rollout.md").read_text(encoding="utf-8")
LINES = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]


@pytest.mark.slow
def test_the_guide_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    desk = Desk.made(tmp_path)
    for model, name in zip(trained_models()[1], ("fraud", "fraud-2"), strict=True):
        (tmp_path / f"{name}.onnx").write_bytes(model.file.read_bytes())
        (tmp_path / f"{name}.canary.json").write_bytes(model.canary.read_bytes())
    for line in LINES:
        program, *words = shlex.split(line)
        assert program == "mk"
        desk.run(*words)
    assert desk.json("traffic", "list") == []
    assert desk.json("versions", "fraud")["aliases"][0]["version"] == 1
