"""Verbs about the keep as a whole and about this program: init, config, completion."""

from __future__ import annotations

import argparse
from pathlib import Path

from modelkeep.cli.grammar.verb import Verb, nothing


def _init(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="where the keep is made; created if missing")
    parser.add_argument(
        "--store",
        action="append",
        default=[],
        metavar="LABEL=PLACE",
        help="a further store that backups go to, a folder or s3://, gs://, az://, sftp:// with "
        "options as ?KEY=VALUE&… (`config explain`); may be repeated",
    )
    parser.add_argument(
        "--encoding",
        choices=("fast", "small"),
        default="",
        help="how the first store holds models: fast to serve from (the default), or small",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address that the service listens on")
    parser.add_argument("--port", type=int, default=8443, help="its TCP port; 0 takes a free one")


def _completion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"))


VERBS: tuple[Verb, ...] = (
    Verb(
        "init",
        "Make a keep: modelkeep.toml, a root key behind a passphrase, a ledger, its stores.",
        "lifecycle:init",
        (
            "modelkeep init ./keep --store offsite=/mnt/offsite/keep",
            "modelkeep init ./keep --passphrase-file /run/secrets/keep",
            "modelkeep init ./keep --encoding small",
            "modelkeep init ./keep --store 'cloud=s3://bucket?credentials=file:/etc/aws.json'",
        ),
        _init,
        needs_keep=False,
    ),
    Verb(
        "config explain",
        "Explain every key of modelkeep.toml, with its type and default.",
        "lifecycle:explain",
        ("modelkeep config explain",),
        nothing,
        needs_keep=False,
    ),
    Verb(
        "completion",
        "Print a completion script for a shell.",
        "lifecycle:completion",
        ("modelkeep completion bash > /etc/bash_completion.d/modelkeep",),
        _completion,
        needs_keep=False,
    ),
)

GROUPS = {
    "config": "modelkeep.toml: explain.",
}
