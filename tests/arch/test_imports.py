"""The start: what `import modelkeep` loads, and what `modelkeep --help` costs."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from tests.arch.source import PACKAGE, STANDARD

HELP_CPU_S_MAX = 0.3


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", *arguments],
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_import_modelkeep_loads_no_library_but_msgspec():
    program = (
        "import sys; before = set(sys.modules); import modelkeep;"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    result = python("-c", program)
    assert result.returncode == 0, result.stderr
    # Some libraries' compiled parts register their own runtime under a private name.
    loaded = {name for name in result.stdout.split() if not name.startswith("_")}
    assert loaded - STANDARD - {"modelkeep"} <= {"msgspec"}


def test_modelkeep_refuses_to_run_without_its_assertions():
    result = python("-O", "-c", "import modelkeep")
    assert result.returncode != 0
    assert "-O" in result.stderr


def cpu_s(*arguments: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = python(*arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.returncode == 0, result.stderr
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.skipif(not (PACKAGE / "__main__.py").exists(), reason="there is no CLI yet")
def test_help_answers_in_under_300_ms_of_cpu():
    best_s = min(cpu_s("-m", "modelkeep", "--help") for _ in range(3))
    assert best_s < HELP_CPU_S_MAX
