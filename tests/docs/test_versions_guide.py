"""The commands of the guide to versions run, in order, as they stand on the page."""

import re
import shlex

import pytest
from command import Desk
from tensor_files import tensors, written

from modelkeep.cli.grammar import versions
from tests.arch.source import ROOT

PAGE = (ROOT / "docs" / "guide" / "versions.md").read_text(encoding="utf-8")
LINES = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]


@pytest.mark.slow
def test_the_guide_runs_from_top_to_bottom(tmp_path):
    desk = Desk.made(tmp_path)
    for number in (1, 2, 3):
        file = written(tmp_path / "fraud.safetensors", tensors(number, count=1, items=4))
        base = ("--base", f"fraud:{number - 1}") if number > 1 else ()
        desk.run("admit", file, "--name", "fraud", *base)
    said = {line: desk.run(*shlex.split(line)[1:]) for line in LINES}
    assert "is version 1, before it was 2" in said["mk rollback fraud:prod"].out
    assert said["mk lineage fraud:3"].out.count("fraud:") == 3
    assert "rolled back" in said["mk versions fraud --history"].out


def test_the_page_leaves_no_verb_about_versions_out():
    for verb in versions.VERBS:
        assert f"mk {verb.name}" in PAGE, verb.name
