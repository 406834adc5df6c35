"""What a user writes type-checks, and what a user must not write does not."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.mark.slow
def test_user_code_type_checks_and_every_misuse_is_an_error():
    files = sorted(str(path) for path in HERE.glob("*.py") if not path.name.startswith("test_"))
    assert len(files) == 4
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary", *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout) == (0, ""), checked.stdout + checked.stderr
