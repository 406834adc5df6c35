"""Verbs about other times: snapshots, diff."""

from __future__ import annotations

import argparse

from modelkeep.cli.grammar.verb import Verb


def _snapshots(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--last", type=int, default=0, metavar="N", help="the newest N only; default: all"
    )


def _diff(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("before", help="NAME:VERSION, or a snapshot: number, digits, time, head")
    parser.add_argument("after", help="likewise")
    parser.add_argument("--tensors", action="store_true", help="list every tensor that differs")


VERBS: tuple[Verb, ...] = (
    Verb(
        "snapshots",
        "List the snapshots that are kept, newest first, with what each changed.",
        "history:snapshots",
        ("modelkeep snapshots", "modelkeep snapshots --last 20 --json"),
        _snapshots,
    ),
    Verb(
        "diff",
        "Say what differs between two versions or two snapshots: files and tensors, by digest.",
        "history:diff",
        (
            "modelkeep diff fraud:1 fraud:2 --tensors",
            "modelkeep diff 3 head",
            "modelkeep diff 2026-11-01 head --json",
        ),
        _diff,
    ),
)
