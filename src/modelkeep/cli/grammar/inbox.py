"""Verbs about what others hand in: clients, submit, inbox."""

from __future__ import annotations

import argparse
from pathlib import Path

from modelkeep.cli.grammar.verb import Verb, nothing


def _client_add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("client", metavar="NAME", help="what to call it")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="its client file; bring it to the machine and keep no copy",
    )
    parser.add_argument(
        "--expires",
        default="90d",
        metavar="TIME",
        help="from when on nothing of it is accepted: 90d, 12h, or never; default 90d",
    )
    parser.add_argument(
        "--store", default="", metavar="LABEL", help="whose inbox it gets; default the first store"
    )
    parser.add_argument(
        "--gib-max",
        type=float,
        default=1024,
        metavar="N",
        help="of one submission's files, in GiB; default 1024",
    )


def _client(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("client", metavar="NAME", help="the client's name or id")


def _submit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", help="a file or a folder")
    parser.add_argument(
        "--client", type=Path, required=True, metavar="FILE", help="the client file"
    )
    parser.add_argument("--name", required=True, help="what the owner is asked to call it")
    parser.add_argument(
        "--store",
        default="",
        metavar="STORE",
        help="the store's folder, if it is not mounted as for the owner; or its address, with who "
        "we are there: sftp://…?credentials=file:/PATH",
    )


def _accept(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("submission", metavar="ID", help="as `modelkeep inbox list` shows it")
    parser.add_argument("--name", default="", help="what to call it; default as the client says")


def _reject(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("submission", metavar="ID", nargs="?", default="", help="of one submission")
    parser.add_argument(
        "--client", default="", metavar="NAME", help="all that this client put there"
    )


VERBS: tuple[Verb, ...] = (
    Verb(
        "clients add",
        "Let a machine hand things in that can read, change and delete nothing.",
        "inbox:client_add",
        (
            "modelkeep clients add trainer --out trainer.client",
            "modelkeep clients add nightly --out nightly.client --expires 30d --gib-max 50",
        ),
        _client_add,
    ),
    Verb(
        "clients list",
        "List clients: ids, names, until when; never their keys.",
        "inbox:client_list",
        ("modelkeep clients list",),
        nothing,
    ),
    Verb(
        "clients revoke",
        "Accept nothing more of a client, for good.",
        "inbox:client_revoke",
        ("modelkeep clients revoke trainer",),
        _client,
    ),
    Verb(
        "submit",
        "Hand a file or a folder in, as a client; the owner accepts or rejects it.",
        "inbox:submit",
        ("modelkeep submit runs/7 --client trainer.client --name run-7",),
        _submit,
        needs_keep=False,
    ),
    Verb(
        "inbox list",
        "List what was handed in and is not settled yet.",
        "inbox:inbox_list",
        ("modelkeep inbox list",),
        nothing,
    ),
    Verb(
        "inbox accept",
        "Prove a submission, keep it as the next version, remove it from the inbox.",
        "inbox:inbox_accept",
        (
            "modelkeep inbox accept 0123456789abcdef",
            "modelkeep inbox accept 0123456789abcdef --name run-7-checked",
        ),
        _accept,
    ),
    Verb(
        "inbox reject",
        "Remove a submission unread, or all that a client put into the inbox.",
        "inbox:inbox_reject",
        (
            "modelkeep inbox reject 0123456789abcdef",
            "modelkeep inbox reject --client trainer",
        ),
        _reject,
    ),
)

GROUPS = {
    "clients": "Machines that may hand things in, and nothing else: add, list, revoke.",
    "inbox": "What was handed in: list, accept, reject.",
}
