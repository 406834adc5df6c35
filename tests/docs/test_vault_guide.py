"""The commands of the guide to the vault run, in order, as they stand on the page."""

import re
import shlex

import numpy as np
import pytest
from command import Desk, modelkeep
from tensor_files import tensors, tuned, written

from modelkeep.cli.grammar import contents, export, history, models, mount, upkeep
from tests.arch.source import ROOT

PAGE = (ROOT / "docs" / "guide" / "vault.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
LINES = [line for block in BLOCKS for line in block.splitlines()]
# A costlier passphrase than a test has time for; tests/cli/test_mount.py has a real mount.
ELSEWHERE = ("modelkeep --passphrase-file passphrase init", "mk mount", "mkdir ")

VERBS = tuple(
    verb.name
    for part in (contents, models, upkeep, history, export, mount)
    for verb in part.VERBS
    if verb.name not in ("scan", "alias")
)


@pytest.mark.slow
def test_the_guide_runs_from_top_to_bottom(tmp_path, monkeypatch):
    desk = Desk.made(tmp_path)
    monkeypatch.chdir(tmp_path)
    base = tensors(1)
    written(tmp_path / "base.safetensors", base)
    written(tmp_path / "tuned.safetensors", tuned(base, "layer.1"))
    (tmp_path / "run-7").mkdir()
    (tmp_path / "run-7" / "config.json").write_text('{"epochs": 3}')
    said = {}
    for line in LINES:
        if line.startswith(ELSEWHERE):
            continue
        words = shlex.split(line)
        if words[0] == "mk":
            said[line] = desk.run(*words[1:]).out
        else:
            command, _, target = line.partition(" > ")
            (tmp_path / target).write_text(modelkeep(*shlex.split(command)[1:]).out)
    assert len(said) > 20
    assert said["mk cat run-7 config.json"] == '{"epochs": 3}'
    assert "3 equal" in said["mk diff lm:1 lm:2"]
    assert np.array_equal(np.load(tmp_path / "w.npy"), base["layer.0"])
    assert (tmp_path / "run-7-again" / "config.json").read_text() == '{"epochs": 3}'
    first = (tmp_path / "base.safetensors").read_bytes()
    assert (tmp_path / "restored.safetensors").read_bytes() == first
    assert (
        "imported lm-again:1" in said["mk import lm-2.model --name lm-again --identity theirs.key"]
    )


def test_the_page_leaves_no_verb_about_kept_things_out():
    for verb in VERBS:
        assert any(line.startswith(f"mk {verb}") for line in LINES), verb
