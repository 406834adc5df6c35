"""The commands of the guide to preflight run, in order, as they stand on the page."""

import json
import re
import shlex

import pytest
from command import Desk, modelkeep
from onnx_models import trained_models

from modelkeep.config import parsed_config
from tests.arch.source import ROOT

PAGE = (ROOT / "docs" / "guide" / "preflight.md").read_text(encoding="utf-8")
LINES = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]


@pytest.mark.slow
def test_the_guide_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    desk = Desk.made(tmp_path)
    desk.admit()
    model = trained_models()[1][0]
    (tmp_path / "digits.onnx").write_bytes(model.file.read_bytes())
    (tmp_path / "digits.canary.json").write_bytes(model.canary.read_bytes())
    inputs = [{"name": "pixels", "dtype": "FP32", "shape": [-1, 64]}]
    (tmp_path / "digits.schema.json").write_text(json.dumps({"inputs": inputs}))
    for line in LINES:
        program, *words = shlex.split(line)
        run = desk.run if program == "mk" else modelkeep
        run(*words, wanted=None if "--machine" in words else 0)


def test_the_settings_on_the_page_are_settings():
    (shown,) = re.findall(r"(    \[preflight.demand\]\n.*?)\n\nA place", PAGE, re.DOTALL)
    text = re.sub("^    ", "", shown, flags=re.MULTILINE)
    whole = f'keep_id = "0123456789abcdef"\nstores = [{{label = "main", path = "x"}}]\n{text}'
    config = parsed_config(whole.encode(), what="the page")
    assert config.preflight.demand.min_ram == "8 GiB"
    assert config.preflight.advise.accelerators == ("cuda:2",)
