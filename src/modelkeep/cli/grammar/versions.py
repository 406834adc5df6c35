"""Verbs about versions: where aliases point, what is deprecated or held, what goes, lineage."""

from __future__ import annotations

import argparse
from pathlib import Path

from modelkeep.cli.grammar.verb import Verb

_NUMBERED = "NAME:VERSION"


def _note(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--note", default="", help="a sentence for people; it goes on record")


def _undo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--undo", action="store_true", help="take it back")


def _alias(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("alias", metavar="NAME:ALIAS", help="such as fraud:prod")
    parser.add_argument("version", help="the version, or another alias")


def _promote(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="NAME:VERSION", help="or NAME:ALIAS, such as fraud:next")
    parser.add_argument("--to", required=True, metavar="ALIAS", help="the alias, such as prod")
    parser.add_argument("--force", action="store_true", help="also one that is deprecated")
    _note(parser)


def _rollback(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("alias", metavar="NAME:ALIAS", help="such as fraud:prod")
    parser.add_argument(
        "--to",
        type=int,
        default=0,
        metavar="VERSION",
        help="one that it named before; default: the last one that can be served",
    )
    _note(parser)


def _deprecate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar=_NUMBERED, help="by its number")
    parser.add_argument(
        "--until",
        default="",
        metavar="TIME",
        help="from then on no new start of the service takes it, and `retire` does; "
        "2027-01-31, or with a time of day and its zone",
    )
    parser.add_argument(
        "--replaced-by", default="", metavar=_NUMBERED, help="the version to use instead"
    )
    _note(parser)
    _undo(parser)


def _hold(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar=_NUMBERED, help="by its number")
    _note(parser)
    _undo(parser)


def _retire(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="these only; default: all")
    parser.add_argument("--dry-run", action="store_true", help="only say what would go")


def _versions(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME")
    parser.add_argument(
        "--history",
        action="store_true",
        help="every move of its aliases too; reads the whole ledger",
    )


def _show(parser: argparse.ArgumentParser) -> None:
    _lineage(parser)
    parser.add_argument("--tensors", action="store_true", help="list every tensor too")


def _policy(parser: argparse.ArgumentParser) -> None:
    _lineage(parser)
    parser.add_argument(
        "--set",
        type=Path,
        metavar="FILE",
        help="make the next version: the same bytes under the policy of this TOML file, or under "
        "`none`; nothing is read or stored anew",
    )


def _lineage(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="NAME, NAME:VERSION or NAME:ALIAS")


VERBS: tuple[Verb, ...] = (
    Verb(
        "versions",
        "List the versions of a model: how each stands, which aliases name it, what it was made "
        "from.",
        "versions:versions",
        ("modelkeep versions fraud", "modelkeep versions fraud --history --json"),
        _versions,
    ),
    Verb(
        "show",
        "Show what is signed with a version: policy, card, marks, files, where it comes from.",
        "show:show",
        ("modelkeep show fraud:3", "modelkeep show fraud:prod --tensors --json"),
        _show,
    ),
    Verb(
        "policy",
        "Show a version's policy, or give its bytes another one, as the next version.",
        "show:policy",
        ("modelkeep policy fraud:3", "modelkeep policy fraud:3 --set policy.toml"),
        _policy,
    ),
    Verb(
        "promote",
        "Move an alias to a version that may be served, with the approval of others where "
        "[approvals] asks for it.",
        "versions:promote",
        (
            "modelkeep promote fraud:3 --to prod --note 'better on chargebacks'",
            "modelkeep promote fraud:next --to prod",
        ),
        _promote,
    ),
    Verb(
        "rollback",
        "Move an alias back to the version that it named before.",
        "versions:rollback",
        ("modelkeep rollback fraud:prod", "modelkeep rollback fraud:prod --to 2"),
        _rollback,
    ),
    Verb(
        "alias",
        "Point an alias at a version, unchecked; calls that name no version go to the alias "
        "`prod`.",
        "versions:alias",
        ("modelkeep alias fraud:prod 2",),
        _alias,
    ),
    Verb(
        "deprecate",
        "Say that a version should not be used any more, until when it is served, and what "
        "replaces it.",
        "versions:deprecate",
        (
            "modelkeep deprecate fraud:2 --until 2027-01-31 --replaced-by fraud:3",
            "modelkeep deprecate fraud:2 --undo",
        ),
        _deprecate,
    ),
    Verb(
        "hold",
        "Say that a version must not go: neither `remove --force` nor `retire` takes it.",
        "versions:hold",
        ("modelkeep hold fraud:2 --note 'case 26-114'", "modelkeep hold fraud:2 --undo"),
        _hold,
    ),
    Verb(
        "retire",
        "Take out versions that are past the retention of [retention]; the next `prune` frees "
        "them.",
        "versions:retire",
        ("modelkeep retire --dry-run", "modelkeep retire fraud"),
        _retire,
    ),
    Verb(
        "lineage",
        "Say what a version was made from (bases, data sets, training run, code) and what was "
        "made from it.",
        "versions:lineage",
        ("modelkeep lineage fraud:3", "modelkeep lineage fraud:prod --json"),
        _lineage,
    ),
)
