"""Verbs about the machine that models are served from: preflight."""

from __future__ import annotations

import argparse

from modelkeep.cli.grammar.verb import Verb


def _preflight(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models", nargs="*", metavar="MODEL", help="NAME, NAME:VERSION; default: what serve serves"
    )
    parser.add_argument(
        "--machine",
        action="store_true",
        help="judge this machine alone: no keep is opened, no passphrase needed",
    )
    parser.add_argument("--facts", action="store_true", help="also say what was looked at")


VERBS: tuple[Verb, ...] = (
    Verb(
        "preflight",
        "Say whether this machine has what the keep's models need: memory, disk, clock, isolation.",
        "preflight:run",
        (
            "modelkeep preflight",
            "modelkeep preflight fraud:2 --json",
            "modelkeep preflight --machine --facts",
        ),
        _preflight,
        needs_keep=False,
    ),
)
