"""The walls: who may import whom, and which file may import which library."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.arch.source import PACKAGE, ROOT, STANDARD, imported, modules, pyproject

ABOVE_THE_EDGE = ("adapters", "workers", "web", "wiring", "config", "cli", "sdk", "testing")
# Names of clocks and entropy that the import contract cannot see, because their modules are also
# good for pure work.
OTHER_DOORS = frozenset({"urandom", "getrandom", "uuid1", "uuid4", "utcnow", "today", "getenv"})


def checked_contracts(source: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter over a copy of the package."""
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", command, "--no-cache", "--config", str(ROOT / "pyproject.toml")],
        env={**os.environ, "PYTHONPATH": str(source), "COLUMNS": "200"},
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_contracts_hold():
    result = checked_contracts(PACKAGE.parent)
    assert result.returncode == 0, result.stdout + result.stderr


def planted(tmp_path: Path, **files: str) -> subprocess.CompletedProcess[str]:
    """The contracts over the package with more files in it."""
    shutil.copytree(PACKAGE, tmp_path / "modelkeep", ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in files.items():
        path = tmp_path / "modelkeep" / (name.replace("__", "/") + ".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'"""Planted."""\n{text}\n')
    return checked_contracts(tmp_path)


def test_an_import_upwards_sideways_or_of_a_clock_breaks_the_contracts(tmp_path):
    result = planted(
        tmp_path,
        core__planted="import modelkeep.crypto.kdf",
        vault__planted="import modelkeep.ledger.tree",
        flows__planted="import modelkeep.adapters.disk",
        kernels__planted="import time",
        seal__planted="def late():\n    import socket",
    )
    assert result.returncode != 0
    for words in (
        "modelkeep.core is not allowed to import modelkeep.crypto",
        "modelkeep.vault is not allowed to import modelkeep.ledger",
        "modelkeep.flows is not allowed to import modelkeep.adapters",
        "modelkeep.kernels is not allowed to import time",
        "modelkeep.seal is not allowed to import socket",
    ):
        assert words in result.stdout


def test_a_package_without_a_layer_breaks_the_contracts(tmp_path):
    (tmp_path / "modelkeep" / "stray").mkdir(parents=True)
    (tmp_path / "modelkeep" / "stray" / "__init__.py").write_text('"""Planted."""\n')
    shutil.copytree(PACKAGE, tmp_path / "modelkeep", dirs_exist_ok=True)
    result = checked_contracts(tmp_path)
    assert result.returncode != 0
    assert "stray" in result.stdout + result.stderr


def test_only_layers_that_are_not_built_stand_in_parentheses():
    linter = pyproject()["tool"]["importlinter"]
    layers = linter["contracts"][0]["layers"]
    names = [name.strip() for layer in layers for name in layer.split("|")]
    waiting = {name.strip("()") for name in names if name.startswith("(")}
    built = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert not waiting & built


def third_party() -> dict[str, set[str]]:
    """What each module imports that is neither ours nor the standard library's."""
    found: dict[str, set[str]] = {}
    for module in modules():
        roots = {name.partition(".")[0] for name, _ in imported(module)}
        others = roots - STANDARD - {"modelkeep"}
        if others:
            found[module.name] = others
    return found


def test_each_library_is_imported_only_where_it_is_listed():
    allowed = {
        name: set(libraries)
        for name, libraries in pyproject()["tool"]["modelkeep"]["third-party"].items()
    }
    assert third_party() == allowed, "compare with [tool.modelkeep.third-party] in pyproject.toml"


def test_an_adapter_owns_one_library():
    for name, libraries in third_party().items():
        if name.startswith("modelkeep.adapters."):
            assert len(libraries - {"numpy"}) <= 1, f"{name} imports {sorted(libraries)}"


@pytest.mark.parametrize("module", modules(), ids=str)
def test_no_clock_or_entropy_comes_in_by_another_door(module):
    layer = [*module.name.split("."), ""][1]
    if layer in ABOVE_THE_EDGE:
        return
    used = {node.attr for node in ast.walk(module.tree) if isinstance(node, ast.Attribute)}
    assert not used & OTHER_DOORS
