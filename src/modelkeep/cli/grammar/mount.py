"""The verb that shows the keep as a file system: mount."""

from __future__ import annotations

import argparse
from pathlib import Path

from modelkeep.cli.grammar.verb import Verb


def _mount(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="an empty folder")


VERBS: tuple[Verb, ...] = (
    Verb(
        "mount",
        "Show models and snapshots as a read-only file system, until Ctrl-C.",
        "mount:mount",
        ("modelkeep mount /mnt/keep",),
        _mount,
    ),
)
