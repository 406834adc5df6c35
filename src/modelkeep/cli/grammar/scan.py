"""Verbs about what may come in: scan, approve."""

from __future__ import annotations

import argparse
from pathlib import Path

from modelkeep.cli.grammar.verb import Verb


def _scan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", type=Path, nargs="*", metavar="PATH", help="file or folder")
    parser.add_argument(
        "--sarif", type=Path, metavar="FILE", help="also write all findings there, as SARIF 2.1.0"
    )
    parser.add_argument(
        "--notes", action="store_true", help="also show notes on what lies inside archives"
    )
    parser.add_argument(
        "--explain-sandbox",
        action="store_true",
        help="say what keeps a file that is looked into from doing harm here, and what does not",
    )


def _approve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "held",
        nargs="?",
        default="",
        metavar="NAME|ID",
        help="what is held: its id, or the model's name where only one waits; none: list them",
    )
    parser.add_argument(
        "--why", default="", metavar="TEXT", help="a sentence that the ledger keeps"
    )
    parser.add_argument(
        "--until", default="", metavar="DATE", help="a date or time (RFC 3339) at which it ends"
    )
    parser.add_argument(
        "--withdraw", action="store_true", help="take an approval back, or give up what waits"
    )


VERBS: tuple[Verb, ...] = (
    Verb(
        "scan",
        "Look for what is dangerous or broken in model files; nothing in them is executed.",
        "scan:scan",
        (
            "modelkeep scan fraud.onnx",
            "modelkeep scan ./downloads --json",
            "modelkeep scan ./models --sarif findings.sarif",
            "modelkeep scan --explain-sandbox",
        ),
        _scan,
        needs_keep=False,
    ),
    Verb(
        "approve",
        "Let in for a while what a scan holds: exactly these bytes, with a reason in the ledger.",
        "scan:approve",
        (
            "modelkeep approve",
            'modelkeep approve fraud --why "custom operator, reviewed" --until 2027-01-31',
            "modelkeep approve 0123456789abcdef --withdraw",
        ),
        _approve,
    ),
)
