"""The guide's example is a program: its blocks run in order, as they stand."""

import re

from tests.arch.source import ROOT


def test_the_example_of_the_guide_runs():
    page = (ROOT / "docs" / "guide" / "encrypted-columns.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    program: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "encrypted-columns.md", "exec"), program)  # noqa: S102
    program["engine"].dispose()
