"""The commands of the guide to other people's tools run, in order, as they stand on the page."""

import re
import shlex

import numpy as np
import pytest
from command import Desk
from oms_tool import accepts
from tensor_files import tensors, written

from modelkeep.cli.grammar import interop
from tests.arch.source import ROOT

PAGE = (ROOT / "docs" / "guide" / "interop.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
LINES = [line for block in BLOCKS for line in block.splitlines()]


@pytest.mark.slow
def test_the_guide_runs_from_top_to_bottom(tmp_path, monkeypatch):
    desk = Desk.made(tmp_path, second=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for at in (1, 2):
        written(tmp_path / "in" / f"model-{at}.safetensors", tensors(at))
    np.savez(tmp_path / "arrays.npz", **tensors(3))
    desk.run("admit", "in", "--name", "llm")
    desk.run("admit", "arrays.npz", "--name", "arrays")
    for line in LINES:
        command, _, target = line.partition(" > ")
        said = desk.run(*shlex.split(command)[1:]).out
        if target:
            (tmp_path / target).write_text(said)
    for path in (tmp_path / "in").iterdir():
        assert (tmp_path / "llm" / path.name).read_bytes() == path.read_bytes()
    assert accepts(tmp_path / "llm", tmp_path / "llm.sig", tmp_path / "keep.pem")
    assert (tmp_path / "arrays.safetensors").exists()
    assert (tmp_path / "llm.cdx.json").exists()


def test_the_page_leaves_no_verb_out():
    for verb in interop.VERBS:
        assert any(line.startswith(f"mk {verb.name}") for line in LINES), verb.name
