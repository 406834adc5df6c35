"""The guide to sealed models: its files are taken, its commands and programs run, in order."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from command import PASSPHRASE, Desk, modelkeep
from onnx_models import two_models
from tensor_files import tensors, written

from modelkeep.sdk.papers import card_of, policy_of
from tests.arch.source import ROOT

PAGE = (ROOT / "docs" / "guide" / "sealed-models.md").read_text(encoding="utf-8")
POLICY, CARD = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
THEIRS = "modelkeep --keep ./their-keep --passphrase-file their-passphrase "


def test_the_papers_on_the_page_are_taken(tmp_path):
    (tmp_path / "policy.toml").write_text(POLICY)
    (tmp_path / "card.toml").write_text(CARD)
    assert policy_of(tmp_path / "policy.toml").replicas_max == 4
    assert card_of(tmp_path / "card.toml").licence == "Apache-2.0"


@pytest.mark.slow
def test_the_guide_runs_from_top_to_bottom(tmp_path, monkeypatch):
    desk, other = Desk.made(tmp_path, second=False), Desk.made(tmp_path / "other", second=False)
    monkeypatch.chdir(tmp_path)
    Path("passphrase").write_text(PASSPHRASE)
    Path("policy.toml").write_text(POLICY)
    Path("card.toml").write_text(CARD)
    Path("fraud.onnx").write_bytes(two_models()[0].read_bytes())
    given = tensors(1, items=256)
    written(tmp_path / "lm.bin.safetensors", given)
    desk.run("admit", "lm.bin.safetensors", "--name", "lm")
    names = {}
    for kind, block in BLOCKS:
        if kind == "python":
            if "import torch" not in block:  # which is not installed for the tests
                exec(compile(block, "the page", "exec"), names)  # noqa: S102
            continue
        for line in block.splitlines():
            ran(desk, other, line)
    assert np.array_equal(names["kept"], given["layer.0"])
    assert np.array_equal(names["layer"].ravel(), given["layer.1"].ravel())
    assert names["name"] == "lm:1"
    assert bytes(names["first"]) == given["layer.0"].tobytes()
    assert bytes(names["whole"]) == Path("lm.safetensors").read_bytes()
    assert other.json("models")[0]["name"] == "lm"


def ran(desk, other, line):
    """Run one line of the page; what it prints goes where the page says."""
    command, _, target = line.partition(" > ")
    if command.startswith("mk "):
        said = desk.run(*shlex.split(command)[1:]).out
    elif command.startswith(THEIRS):
        said = other.run(*shlex.split(command.removeprefix(THEIRS))).out
    else:
        said = modelkeep(*shlex.split(command)[1:]).out
    if target:
        Path(target).write_text(said)
    if command.startswith("mk export"):
        Path("sender.pub").write_text(said.split()[-1])
