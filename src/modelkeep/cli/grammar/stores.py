"""Verbs about what the stores hold: backup, state."""

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


VERBS: tuple[Verb, ...] = (
    Verb(
        "backup",
        "Bring every other store up to the first one, and check that it holds all it needs.",
        "stores:backup",
        ("modelkeep backup", "modelkeep backup --new offsite2"),
        _backup,
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
