"""Verbs about the service and its recovery: demo, serve, status, recover, drill."""

from __future__ import annotations

import argparse
from pathlib import Path

from modelkeep.cli.grammar.keys import lost
from modelkeep.cli.grammar.verb import Verb, nothing


def _demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--serve", action="store_true", help="leave the gateway up; prints URL, key and a curl line"
    )
    parser.add_argument(
        "--folder", type=Path, default=None, help="where it happens; default: a fresh folder"
    )
    parser.add_argument(
        "--report", type=Path, default=None, metavar="FILE", help="where the HTML report goes"
    )


def _recover(parser: argparse.ArgumentParser) -> None:
    lost(parser)
    parser.add_argument("folder", type=Path, help="where the keep is made again")
    parser.add_argument(
        "--from",
        dest="source",
        required=True,
        metavar="STORE",
        help="a store: its folder, its address with options as ?KEY=VALUE&… (`config explain`), "
        "or a file with the keys of a [[stores]] table",
    )
    parser.add_argument("--serve", action="store_true", help="go on serving after the proof")
    parser.add_argument("--port", type=int, default=None, help="listen here instead")
    parser.add_argument(
        "--expect",
        type=Path,
        metavar="FILE",
        help="a checkpoint saved elsewhere: recovery fails unless its history holds it",
    )
    parser.add_argument(
        "--disaster-at",
        metavar="TIME",
        help="when it happened (RFC 3339), for the RPO; default: now",
    )


def _drill(parser: argparse.ArgumentParser) -> None:
    lost(parser)
    parser.add_argument(
        "--from", dest="source", default="", metavar="LABEL", help="a store; default: the second"
    )


def _serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--explain-sandbox",
        action="store_true",
        help="say what a replica cannot do here, and what it still can; nothing is served",
    )
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="",
        help="where replicas run: here, or in the Ray cluster of [ray]; default: [serve] engine",
    )


VERBS: tuple[Verb, ...] = (
    Verb(
        "demo",
        "Tell the whole story on real data: admit, serve, attack, back up, lose all, recover.",
        "demo:run",
        ("modelkeep demo", "modelkeep demo --serve"),
        _demo,
        needs_keep=False,
    ),
    Verb(
        "serve",
        "Serve the keep's models over TLS until Ctrl-C: gateway, isolated replicas, recorder.",
        "service:serve",
        (
            "modelkeep serve",
            "modelkeep --keep ./keep serve --passphrase-file /run/secrets/keep",
            "modelkeep serve --explain-sandbox",
            "modelkeep serve --engine ray",
        ),
        _serve,
    ),
    Verb(
        "status",
        "Say what runs, what the keep holds and how its stores are doing.",
        "service:status",
        ("modelkeep status", "modelkeep status --json"),
        nothing,
    ),
    Verb(
        "recover",
        "Bring a keep back from one surviving store; RTO and RPO are measured and recorded.",
        "service:recover",
        (
            "modelkeep recover ./keep --from /mnt/offsite/keep",
            "modelkeep recover ./keep --from /mnt/offsite/keep --serve",
            "modelkeep recover ./keep --from /mnt/offsite/keep --words shares.txt",
            "modelkeep recover ./keep --from 's3://bucket/keep?credentials=file:/etc/aws.json'",
        ),
        _recover,
        needs_keep=False,
    ),
    Verb(
        "drill",
        "Rehearse a recovery from the last backup in a folder that is thrown away afterwards.",
        "service:drill",
        (
            "modelkeep drill",
            "modelkeep drill --from cloud",
            "modelkeep drill --words shares.txt",
        ),
        _drill,
    ),
)
