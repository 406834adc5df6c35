"""Verbs about the ledger."""

from __future__ import annotations

import argparse
from pathlib import Path

from modelkeep.cli.grammar.verb import Verb, nothing

FORMATS = ("jsonl", "ocsf", "cef", "syslog")


def _ledger_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store", default="", metavar="STORE", help="only this label or folder; default all"
    )
    parser.add_argument(
        "--expect", type=Path, metavar="FILE", help="a checkpoint that must be in the history"
    )
    parser.add_argument("--repair", action="store_true", help="replace damage from another store")
    parser.add_argument(
        "--new-witness",
        action="append",
        default=[],
        metavar="LABEL",
        help="this store of [[ledger.witness.stores]] is new: put a checkpoint there",
    )


def _tail(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--last", type=int, default=20, metavar="N", help="how many; default 20")
    parser.add_argument("--kind", default="", help="only entries whose kind starts with this")
    _reveal(parser)


def _find(parser: argparse.ArgumentParser) -> None:
    _query(parser)
    parser.add_argument(
        "--limit", type=int, default=100, metavar="N", help="at most so many; default 100"
    )
    _reveal(parser)


def _query(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kind", default="", help="only entries whose kind starts with this")
    parser.add_argument("--actor", default="", help="only what this actor did")
    parser.add_argument("--tenant", default="", help="only this tenant's entries")
    parser.add_argument("--since", default="", metavar="TIME", help="RFC 3339: then or later")
    parser.add_argument("--until", default="", metavar="TIME", help="RFC 3339: before then")
    parser.add_argument(
        "--fact",
        action="append",
        default=[],
        metavar="NAME=TEXT",
        help="only entries with this fact; may be repeated",
    )


def _reveal(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reveal", action="store_true", help="open private facts")


def _append(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", help="below note. or x., such as note.audit")
    for name, what in (
        ("--fact", "a fact: NAME=TEXT, NAME:int=7, NAME:float=0.5, NAME:bool=true"),
        ("--private", "the same, sealed under a key that `ledger erase` can destroy"),
    ):
        parser.add_argument(name, action="append", default=[], metavar="NAME=VALUE", help=what)


def _erase(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("index", type=int, help="of the entry, as `ledger tail` shows it")
    parser.add_argument("--reason", required=True, help="why; it stands in the ledger")


def _export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=FORMATS, default="jsonl", help="default jsonl")
    _query(parser)
    _output(parser, "write there instead of stdout")


def _checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cosigned", action="store_true", help="the newest that trusted witnesses have cosigned"
    )


def _prove(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        metavar="RECEIPT|INDEX",
        help="the modelkeep-receipt header of an answer, or an entry",
    )
    _output(parser, "the proof as one file that stands alone")


def _verify_proof(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="what `prove` or `consistency` wrote")
    parser.add_argument(
        "--key",
        action="append",
        required=True,
        metavar="VKEY",
        help="verifier key of the log, from its owner; may be repeated",
    )
    parser.add_argument(
        "--witness",
        action="append",
        default=[],
        metavar="VKEY",
        help="verifier key of a witness; may be repeated",
    )
    parser.add_argument(
        "--quorum", type=int, default=0, metavar="N", help="how many witnesses must have cosigned"
    )


def _consistency(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, metavar="OLD_CHECKPOINT", help="a file")
    _output(parser, "the proof as one file that stands alone")


def _cosign(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store", type=Path, required=True, metavar="FOLDER", help="a store of the other keep"
    )
    parser.add_argument("--key", required=True, metavar="VKEY", help="verifier key of its log")
    _output(parser, "the cosigned checkpoint")


def _timestamp(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tsa", required=True, metavar="URL", help="one that modelkeep.toml lists")


def _output(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--output", type=Path, metavar="FILE", help=what)


VERBS: tuple[Verb, ...] = (
    Verb(
        "ledger verify",
        "Prove that the log is whole in every store, and is what every witness has seen.",
        "record:verify",
        ("modelkeep ledger verify --repair", "modelkeep ledger verify --expect checkpoint.txt"),
        _ledger_verify,
    ),
    Verb(
        "ledger tail",
        "Show the last entries of the ledger.",
        "record:tail",
        ("modelkeep ledger tail", "modelkeep ledger tail --kind model. --last 5 --json"),
        _tail,
    ),
    Verb(
        "ledger find",
        "Show entries by kind, actor, tenant, time and facts, oldest first.",
        "record:find",
        (
            "modelkeep ledger find --kind token. --since 2026-01-31",
            "modelkeep ledger find --fact model=fraud --fact version=3 --json",
        ),
        _find,
    ),
    Verb(
        "ledger append",
        "Write an entry of your own; private facts can be erased later, proofs stay.",
        "record:append",
        ("modelkeep ledger append note.audit --fact result=passed --private auditor='A. Smith'",),
        _append,
    ),
    Verb(
        "ledger erase",
        "Destroy the private facts of an entry in every store; every proof still holds.",
        "record:erase",
        ("modelkeep ledger erase 17 --reason 'request of the data subject'",),
        _erase,
    ),
    Verb(
        "ledger export",
        "Write entries for a SIEM: JSON Lines, OCSF, CEF or syslog.",
        "record:export",
        (
            "modelkeep ledger export --format ocsf --since 2026-01-31 --output events.jsonl",
            "modelkeep ledger export --format syslog --kind witness.",
        ),
        _export,
    ),
    Verb(
        "ledger kinds",
        "Show every kind of entry with its meaning and its facts.",
        "record:kinds",
        ("modelkeep ledger kinds",),
        nothing,
        needs_keep=False,
    ),
    Verb(
        "ledger checkpoint",
        "Print the latest signed checkpoint; save it elsewhere to prove freshness later.",
        "record:checkpoint",
        (
            "modelkeep ledger checkpoint > /safe/place/checkpoint.txt",
            "modelkeep ledger checkpoint --cosigned",
        ),
        _checkpoint,
    ),
    Verb(
        "ledger key",
        "Print the verifier key of each of the keep's logs: what proofs are checked with.",
        "record:keys",
        ("modelkeep ledger key",),
        nothing,
    ),
    Verb(
        "ledger prove",
        "Prove that one call or entry was recorded, in a file that stands alone.",
        "evidence:prove",
        (
            "modelkeep ledger prove gateway-0-0:17 --output call.proof",
            "modelkeep ledger prove 17",
        ),
        _prove,
    ),
    Verb(
        "ledger verify-proof",
        "Check a proof offline, without a keep: nothing but the log's verifier key is needed.",
        "evidence:verify_proof",
        ("modelkeep ledger verify-proof call.proof --key 'modelkeep.invalid/…+1234abcd+AQ…'",),
        _verify_proof,
        needs_keep=False,
    ),
    Verb(
        "ledger consistency",
        "Prove that the log of an old checkpoint only grew to become the newest one.",
        "evidence:consistency",
        ("modelkeep ledger consistency /safe/place/checkpoint.txt --output grown.proof",),
        _consistency,
    ),
    Verb(
        "ledger cosign",
        "Be a witness: cosign another keep's log, if it goes on from what was seen of it.",
        "evidence:cosign",
        ("modelkeep ledger cosign --store /mnt/other/store --key 'modelkeep.invalid/…+…'",),
        _cosign,
    ),
    Verb(
        "ledger timestamp",
        "Have the newest checkpoint stamped by an RFC 3161 authority.",
        "evidence:timestamp",
        ("modelkeep ledger timestamp --tsa https://tsa.example.org/tsr",),
        _timestamp,
    ),
)

GROUPS = {
    "ledger": "The tamper-evident log: read, write, verify, prove, witness, export.",
}
