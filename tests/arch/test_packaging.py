"""The wheel: what `pip install modelkeep` would bring."""

from __future__ import annotations

import subprocess
import sys
import zipfile

import pytest

from tests.arch.source import PACKAGE, ROOT


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / "README.md").exists(), reason="there is no README yet")
def test_the_wheel_holds_the_whole_package_and_its_command(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    result = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry_points,) = [name for name in names if name.endswith("entry_points.txt")]
        assert b"modelkeep = modelkeep.cli.main:main" in archive.read(entry_points)
    wanted = {
        path.relative_to(PACKAGE.parent).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix != ".pyc" and ".ruff_cache" not in path.parts
    }
    assert wanted <= names
