"""Verbs that bring artifacts to other places and take them in: copy, export, import."""

from __future__ import annotations

import argparse
from pathlib import Path

from modelkeep.cli.grammar.verb import Verb, named_path


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
    parser.add_argument(
        "--to",
        action="append",
        default=[],
        metavar="RECIPIENT",
        help="mkr1…, or a file with such lines or with an RSA public key; may be repeated",
    )
    parser.add_argument(
        "--output",
        "-o",
        type=named_path,
        metavar="FILE",
        help="the file to write; default: NAME-VERSION.model",
    )
    parser.add_argument(
        "--file-passphrase",
        type=Path,
        metavar="FILE",
        help="the passphrase in FILE opens it too; not the keep's own",
    )
    parser.add_argument("--force", action="store_true", help="replace the file if it exists")


def _opening(parser: argparse.ArgumentParser) -> None:
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


def _import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="what another keep exported, or - for stdin")
    parser.add_argument("--name", required=True, help="name it is registered under")
    parser.add_argument(
        "--signer",
        action="append",
        default=[],
        metavar="VERIFIER",
        help="the keep that it comes from: mkv1…, which `export` prints there, or a public file; "
        "this keep's own is trusted anyway",
    )
    _opening(parser)
    parser.add_argument(
        "--domain",
        default="",
        help="whose key it is kept under; default: that of the version before, or `default`",
    )
    parser.add_argument("--note", default="", help="a sentence for people; default: as it came")


def _inspect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="what a keep exported")
    _opening(parser)
    parser.add_argument(
        "--signer",
        action="append",
        metavar="VERIFIER",
        help="demand that this one sent it: mkv1… or a public file; may be repeated",
    )
    parser.add_argument("--tensors", action="store_true", help="list every tensor")


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
            "modelkeep export fraud:3 --to alice.pub",
            "modelkeep export fraud:prod --to alice.pub --to bob.pub --output fraud.model",
            "modelkeep export fraud --file-passphrase secret.txt",
        ),
        _export,
    ),
    Verb(
        "import",
        "Admit a model that another keep exported: proven, scanned, sealed under a key of ours.",
        "export:take_in",
        (
            "modelkeep import fraud-3.model --name fraud --identity me.key --signer theirs.pub",
            "modelkeep import - --name fraud -i me.key --signer theirs.pub < fraud-3.model",
        ),
        _import,
    ),
    Verb(
        "inspect",
        "Say what an exported model is, without a keep. Without an identity: who sent it, how many "
        "can open it, its size. With one: manifest, files, tensors, policy and card too.",
        "portable:inspect",
        (
            "modelkeep inspect fraud-3.model",
            "modelkeep inspect fraud-3.model --identity me.key --signer theirs.pub --tensors",
        ),
        _inspect,
        needs_keep=False,
    ),
)
