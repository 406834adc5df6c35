"""Verbs about what versions are made of: save, ls, cat."""

from __future__ import annotations

import argparse
from pathlib import Path

from modelkeep.cli.grammar.verb import Verb


def _save(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "path",
        type=Path,
        metavar="PATH",
        help="a file or a folder; links are kept as links; an error if somebody writes into it",
    )
    parser.add_argument("--name", required=True, help="name it is kept under")
    parser.add_argument(
        "--base",
        default="",
        metavar="NAME:VERSION",
        help="what it was made from: tensors may be stored as deltas to it; the versions before "
        "are looked at anyway",
    )
    parser.add_argument(
        "--domain",
        default="",
        help="whose key it is kept under; default: that of the version before, or `default`",
    )
    parser.add_argument("--note", default="", help="a sentence for people")


def _ls(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="NAME, NAME:VERSION or NAME:ALIAS")
    parser.add_argument("--tensors", action="store_true", help="a row for each tensor")


def _cat(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="NAME, NAME:VERSION or NAME:ALIAS")
    parser.add_argument(
        "path",
        nargs="?",
        default="",
        metavar="PATH",
        help="of the file in it, as `modelkeep ls` shows it; not needed where there is only one. "
        "Every block is proven before it is written; that the whole is the file that was signed is "
        "known at the end only, when a pipe has seen it: exit code 4 says it was not",
    )


VERBS: tuple[Verb, ...] = (
    Verb(
        "save",
        "Keep files that are no model, such as data or checkpoints, as the next version of a name.",
        "contents:save",
        (
            "modelkeep save ./run-7 --name run-7",
            "modelkeep save ./corpus --name corpus --domain research --note 'cleaned'",
        ),
        _save,
    ),
    Verb(
        "ls",
        "List what a version is made of: files, folders, links, tensors.",
        "contents:ls",
        ("modelkeep ls run-7", "modelkeep ls llama:2 --tensors", "modelkeep ls run-7:1 --json"),
        _ls,
    ),
    Verb(
        "cat",
        "Write one file of a version to stdout.",
        "contents:cat",
        ("modelkeep cat run-7:3 config.json", "modelkeep cat corpus train.jsonl | head"),
        _cat,
    ),
)
