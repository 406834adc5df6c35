"""Every verb of the command line has a purpose, examples, exit codes and a script test."""

from __future__ import annotations

import argparse
import ast
import importlib

import pytest

from scripts import reference
from tests.arch.source import PACKAGE, ROOT, modules

pytestmark = pytest.mark.skipif(
    not (PACKAGE / "cli" / "main.py").exists(), reason="there is no CLI yet"
)


def verbs() -> dict[str, argparse.ArgumentParser]:
    """What a person can type, without the words that only lead to others."""
    found = dict(reference.verbs(importlib.import_module("modelkeep.cli.main").parser()))
    return {
        path: parser
        for path, parser in found.items()
        if not any(other.startswith(path + " ") for other in found)
    }


def test_every_verb_has_a_purpose_and_examples_in_its_help():
    for path, parser in verbs().items():
        assert parser.description, f"{path} has no purpose"
        epilog = (parser.epilog or "").lower()
        assert "example" in epilog, f"{path} has no examples"
        assert path in (parser.epilog or ""), f"the examples of {path} do not show it"


def test_every_verb_says_its_exit_codes():
    for path, parser in verbs().items():
        assert "exit" in (parser.epilog or "").lower(), f"{path} does not say its exit codes"


def test_every_verb_leads_to_a_function_that_exists():
    defined = {
        f"{module.path.stem}:{node.name}"
        for module in modules()
        if module.name.startswith("modelkeep.cli.")
        for node in module.tree.body
        if isinstance(node, ast.FunctionDef)
    }
    for path, parser in verbs().items():
        chosen = parser.get_default("chosen")
        assert chosen is None or chosen.run in defined, f"{path} leads to {chosen.run}"


def test_every_verb_has_a_script_test():
    """`modelkeep ledger verify` is tested in tests/cli/ledger_verify.* or tests/cli/ledger.*."""
    tested = {path.stem.removeprefix("test_") for path in (ROOT / "tests" / "cli").rglob("*.*")}
    for path in verbs():
        words = path.split()[1:]
        names = {"_".join(words[: length + 1]) for length in range(len(words))}
        assert names & tested, f"{path} has no test in tests/cli"
