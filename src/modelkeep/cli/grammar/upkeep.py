"""Verbs that keep stores whole and small: check, repair, prune, remove, stats."""

from __future__ import annotations

import argparse

from modelkeep.cli.grammar.verb import Verb, nothing


def _check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--read-data",
        nargs="?",
        const="100%",
        default="",
        metavar="SHARE",
        help="read, authenticate, decode and hash every byte; 10%% takes packs at random",
    )
    parser.add_argument("--repair", action="store_true", help="make good what can be")


def _prune(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--keep-last", type=int, default=0, metavar="N", help="keep the newest N changes"
    )
    parser.add_argument(
        "--keep-within",
        default="",
        metavar="TIME",
        help="keep all snapshots of this time, such as 30d or 36h; with both, what either keeps",
    )
    parser.add_argument(
        "--waste",
        default="20%",
        metavar="SHARE",
        help="write a pack anew when more than this of it is of no use (default: 20%%)",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would go")


def _remove(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("reference", metavar="NAME[:VERSION]", help="without a version: all of it")
    parser.add_argument("--force", action="store_true", help="also what an alias names")
    parser.add_argument("--dry-run", action="store_true", help="only say what would go")


VERBS: tuple[Verb, ...] = (
    Verb(
        "check",
        "Check that every store holds what it must, ledger included; repair if asked.",
        "upkeep:check",
        (
            "modelkeep check",
            "modelkeep check --read-data",
            "modelkeep check --read-data=10%",
            "modelkeep check --read-data --repair",
        ),
        _check,
    ),
    Verb(
        "repair",
        "Read every byte, make good what any store still has, and say what is lost.",
        "upkeep:repair",
        ("modelkeep repair", "modelkeep repair --json"),
        nothing,
    ),
    Verb(
        "prune",
        "Drop old snapshots, and from every store what no kept one needs.",
        "upkeep:prune",
        (
            "modelkeep prune --keep-last 10 --dry-run",
            "modelkeep prune --keep-within 30d",
            "modelkeep prune",
        ),
        _prune,
    ),
    Verb(
        "remove",
        "Take a version out of the keep; older snapshots hold it until they are pruned.",
        "upkeep:remove",
        ("modelkeep remove fraud:1", "modelkeep remove fraud --dry-run"),
        _remove,
    ),
    Verb(
        "stats",
        "Say how much is kept and what each store takes for it, by encoding and by type.",
        "upkeep:stats",
        ("modelkeep stats", "modelkeep stats --json"),
        nothing,
    ),
)
