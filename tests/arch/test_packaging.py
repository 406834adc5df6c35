"""The wheel: what `pip install modelkeep` would bring."""

from __future__ import annotations

import os
import shutil
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


@pytest.mark.slow
@pytest.mark.parametrize("has_compiler", [True, False])
def test_a_wheel_has_the_kernels_in_c_where_there_is_a_compiler_and_is_pure_elsewhere(
    tmp_path, has_compiler
):
    if has_compiler and not shutil.which("cc"):
        pytest.skip("there is no C compiler")
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    unwanted = shutil.ignore_patterns("__pycache__", "kernels-*")
    shutil.copytree(PACKAGE, tmp_path / "src" / "modelkeep", ignore=unwanted)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "built"]
    compiler = "cc" if has_compiler else "a-compiler-that-is-not-there"
    environment = {**os.environ, "CC": compiler}
    result = subprocess.run(
        build, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    (wheel,) = (tmp_path / "built").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        libraries = [name for name in archive.namelist() if name.endswith(".so")]
        (tags,) = [name for name in archive.namelist() if name.endswith("/WHEEL")]
        is_pure = b"Root-Is-Purelib: true" in archive.read(tags)
    assert len(libraries) == int(has_compiler)
    assert is_pure is not has_compiler
    assert wheel.name.endswith("-py3-none-any.whl") is not has_compiler
