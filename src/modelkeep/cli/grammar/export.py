"""Verbs that bring artifacts to other places and take them in: copy, export, import."""

from __future__ import annotations

import argparse
from pathlib import Path

from modelkeep.cli.grammar.verb import Verb


def _copy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models", nargs="*", metavar="MODEL", help="NAME, NAME:VERSION or NAME:ALIAS; default: all"
    )
    parser.add_argument("--to", required=True, metavar="LABEL", help="the store that gets them")
    parser.add_argument(
        "--from",
        dest="source",
        default="",
        metavar="LABEL",
        help="the store that is read first; default: the first one",
    )
    parser.add_argument(
        "--new",
        action="store_true",
        help="that store is new and may be empty; otherwise an empty one counts as not mounted",
    )


def _export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="NAME, NAME:VERSION or NAME:ALIAS")
    parser.add_argument("--to", type=Path, required=True, metavar="FILE", help="the file to write")
    parser.add_argument(
        "--recipient",
        action="append",
        default=[],
        metavar="RECIPIENT",
        help="mkr1…, or a file with such lines or with an RSA public key; may be repeated",
    )
    parser.add_argument(
        "--file-passphrase",
        type=Path,
        metavar="FILE",
        help="the passphrase in FILE opens it too; not the keep's own",
    )
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")


def _import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="what another keep exported")
    parser.add_argument("--name", required=True, help="name it is registered under")
    parser.add_argument(
        "--signer",
        action="append",
        default=[],
        metavar="VERIFIER",
        help="the keep that it comes from: mkv1…, which `export` prints there, or a public file; "
        "this keep's own is trusted anyway",
    )
    parser.add_argument(
        "--identity",
        "-i",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="an identity file or an RSA private key; may be repeated",
    )
    parser.add_argument(
        "--file-passphrase", type=Path, metavar="FILE", help="the passphrase in FILE opens it"
    )
    parser.add_argument(
        "--domain",
        default="",
        help="whose key it is kept under; default: that of the version before, or `default`",
    )
    parser.add_argument("--note", default="", help="a sentence for people; default: as it came")


VERBS: tuple[Verb, ...] = (
    Verb(
        "copy",
        "Bring models to one store now, ahead of the next backup: what matters first over a slow "
        "line, or out of a store other than the first. `backup` brings everything to every store, "
        "and only after it can a keep come back from that store alone.",
        "export:copy",
        (
            "modelkeep copy fraud:prod --to offsite",
            "modelkeep copy fraud digits:3 --to offsite --from nearby",
        ),
        _copy,
    ),
    Verb(
        "export",
        "Hand one version to somebody else: one encrypted, signed file, under a key of its own.",
        "export:export",
        (
            "modelkeep export fraud:3 --to fraud-3.model --recipient alice.pub",
            "modelkeep export fraud --to fraud.model --file-passphrase secret.txt",
        ),
        _export,
    ),
    Verb(
        "import",
        "Admit a model that another keep exported: proven, scanned, sealed under a key of ours.",
        "export:take_in",
        ("modelkeep import fraud-3.model --name fraud --identity me.key --signer theirs.pub",),
        _import,
    ),
)
