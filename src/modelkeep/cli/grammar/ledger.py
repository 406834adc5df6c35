"""Verbs about the ledger."""

from __future__ import annotations

import argparse
from pathlib import Path

from modelkeep.cli.grammar.verb import Verb, nothing


def _ledger_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store", default="", metavar="STORE", help="only this label or folder; default all"
    )
    parser.add_argument(
        "--expect", type=Path, metavar="FILE", help="a checkpoint that must be in the history"
    )
    parser.add_argument("--repair", action="store_true", help="replace damage from another store")


def _log(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--last", type=int, default=20, metavar="N", help="how many; default 20")
    parser.add_argument("--kind", default="", help="only entries whose kind starts with this")


def _prove(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("receipt", help="the modelkeep-receipt header of an answer")


VERBS: tuple[Verb, ...] = (
    Verb(
        "ledger verify",
        "Prove that the log is whole in every store: every leaf, tile, root and signature.",
        "record:verify",
        ("modelkeep ledger verify --repair", "modelkeep ledger verify --expect checkpoint.txt"),
        _ledger_verify,
    ),
    Verb(
        "ledger tail",
        "Show the last entries of the ledger.",
        "record:tail",
        ("modelkeep ledger tail", "modelkeep ledger tail --kind model. --last 5 --json"),
        _log,
    ),
    Verb(
        "ledger checkpoint",
        "Print the latest signed checkpoint; save it elsewhere to prove freshness later.",
        "record:checkpoint",
        ("modelkeep ledger checkpoint > /safe/place/checkpoint.txt",),
        nothing,
    ),
    Verb(
        "ledger prove",
        "Prove that one call was recorded: its record, and both paths to a signed checkpoint.",
        "record:prove",
        ("modelkeep ledger prove gateway-0-0:17",),
        _prove,
    ),
)

GROUPS = {
    "ledger": "The tamper-evident log: verify, tail, checkpoint, prove.",
}
