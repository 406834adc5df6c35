"""Verbs about who answers a model's calls: traffic set, list and end."""

from __future__ import annotations

import argparse

from modelkeep.cli.grammar.verb import Verb, nothing


def _set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="of the model")
    parser.add_argument(
        "--canary",
        default="",
        metavar="VERSION=SHARE%",
        help="answers this share of the calls that name no version, such as 4=5%%",
    )
    parser.add_argument(
        "--shadow",
        default="",
        metavar="VERSION[=SHARE%]",
        help="is asked too; its answers are compared and counted, never returned",
    )
    parser.add_argument(
        "--sticky",
        action="store_true",
        help="all calls of one principal go to the canary, or none of them",
    )


def _end(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="of the model")


VERBS: tuple[Verb, ...] = (
    Verb(
        "traffic set",
        "Give a model a canary, a shadow or both; a running service has it in force in seconds.",
        "traffic:set_traffic",
        (
            "modelkeep traffic set fraud --canary 4=5%",
            "modelkeep traffic set fraud --canary 4=0.5% --shadow 5=10% --sticky",
        ),
        _set,
    ),
    Verb(
        "traffic list",
        "List every canary and shadow.",
        "traffic:list_traffic",
        ("modelkeep traffic list", "modelkeep traffic list --json"),
        nothing,
    ),
    Verb(
        "traffic end",
        "End a model's canary and shadow; its default version answers all calls again.",
        "traffic:end_traffic",
        ("modelkeep traffic end fraud",),
        _end,
    ),
)

GROUPS = {
    "traffic": "Who answers a model's calls: set, list, end.",
}
