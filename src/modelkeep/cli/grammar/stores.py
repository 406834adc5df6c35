"""Verbs about what the stores hold: backup, check, state."""

from __future__ import annotations

import argparse

from modelkeep.cli.grammar.verb import Verb, nothing


def _backup(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--new",
        action="append",
        default=[],
        metavar="LABEL",
        help="this store is new and may be empty; otherwise an empty one counts as not mounted",
    )


def _check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--read-data", action="store_true", help="read, authenticate and hash every byte"
    )
    parser.add_argument("--repair", action="store_true", help="replace damage from another store")


VERBS: tuple[Verb, ...] = (
    Verb(
        "backup",
        "Bring every other store up to the first one, and check that it holds all it needs.",
        "stores:backup",
        ("modelkeep backup", "modelkeep backup --new offsite2"),
        _backup,
    ),
    Verb(
        "check",
        "Check that every store holds what it must, ledger included; repair if asked.",
        "stores:check",
        ("modelkeep check", "modelkeep check --read-data --repair"),
        _check,
    ),
    Verb(
        "state rebuild",
        "Make the State database anew from the ledger.",
        "stores:rebuild",
        ("modelkeep state rebuild",),
        nothing,
    ),
)

GROUPS = {
    "state": "What is true now: rebuild.",
}
