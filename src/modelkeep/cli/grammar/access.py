"""Verbs about who may do what: API keys."""

from __future__ import annotations

import argparse

from modelkeep.cli.grammar.verb import Verb, nothing


def _token_new(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("principal", help="who will hold the key")
    parser.add_argument(
        "--scope",
        action="append",
        default=[],
        help="infer:MODEL, infer:* or metrics; may be repeated; default infer:*",
    )
    parser.add_argument("--days", type=float, default=0, help="days until it expires; 0 is never")


def _token_revoke(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("token_id", help="as `modelkeep tokens list` shows it")


VERBS: tuple[Verb, ...] = (
    Verb(
        "tokens new",
        "Make an API key; it is shown once and kept only as a hash.",
        "access:token_new",
        ("modelkeep tokens new alice", "modelkeep tokens new prometheus --scope metrics --days 90"),
        _token_new,
    ),
    Verb(
        "tokens list",
        "List API keys: ids, holders, scopes; never the keys.",
        "access:token_list",
        ("modelkeep tokens list",),
        nothing,
    ),
    Verb(
        "tokens revoke",
        "Revoke an API key; a running gateway refuses it within a second.",
        "access:token_revoke",
        ("modelkeep tokens revoke 0123456789abcdef",),
        _token_revoke,
    ),
)

GROUPS = {
    "tokens": "API keys: new, list, revoke.",
}
