"""The commands of the guide to admission run, in order, as they stand on the page."""

import re
import shlex

import pytest
from command import Desk, modelkeep
from onnx_models import two_models

from modelkeep.adapters.sandbox_seccomp import allowed_calls
from modelkeep.ports.sandbox import Grants
from tests.arch.source import ROOT

PAGE = (ROOT / "docs" / "guide" / "admission.md").read_text(encoding="utf-8")
LINES = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]


@pytest.mark.slow
def test_the_guide_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    desk = Desk.made(tmp_path)
    (tmp_path / "fraud.onnx").write_bytes(two_models()[0].read_bytes())
    (tmp_path / "downloads").mkdir()
    (tmp_path / "forest.pkl").write_bytes(b"\x80\x02cacme_models.forest\nForest\n)\x81.")
    said = []
    for line in LINES:
        program, *words = shlex.split(line)
        held = line.startswith("mk admit") and "approve forest" not in "".join(said)
        wanted = 3 if held else 0
        run = desk.run if program == "mk" else modelkeep
        said.append(line + run(*words, wanted=wanted).out)
    assert "let in by the approval" in said[-2]
    assert "is withdrawn" in said[-1]


def test_the_page_counts_what_is_allowed():
    many = len(allowed_calls(Grants()))
    assert f"seccomp: {many} calls" in PAGE
    assert f"the {many} calls" in PAGE
