"""Verbs in the forms of others: oms sign, oms verify, oms key, bom, safetensors."""

from __future__ import annotations

import argparse
from pathlib import Path

from modelkeep.cli.grammar.verb import Verb, named_path, nothing

GROUPS = {"oms": "Signatures of the OpenSSF Model Signing specification, for tools of others."}

_WHAT = "NAME, NAME:VERSION or NAME:ALIAS; or a folder or a file, whose path has a / in it"


def _sign(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="MODEL-or-PATH", help=_WHAT)
    parser.add_argument(
        "--output",
        "-o",
        type=named_path,
        required=True,
        metavar="FILE",
        help="the signature to write",
    )
    parser.add_argument(
        "--hash",
        choices=("sha256", "blake3"),
        default="sha256",
        help="how files are digested: sha256 is known everywhere; with blake3 a version of the "
        "keep is signed at once, without reading it, and the public command cannot verify it",
    )
    _ignore(parser, "is not signed; what git keeps beside a model never is")
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")


def _verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="MODEL-or-PATH", help=_WHAT)
    parser.add_argument(
        "--signature", type=Path, required=True, metavar="FILE", help="what was signed"
    )
    signer = parser.add_mutually_exclusive_group()
    signer.add_argument(
        "--key",
        type=Path,
        metavar="PUB.pem",
        help="the public key of the signer; default: this keep's own",
    )
    signer.add_argument(
        "--root",
        type=Path,
        metavar="CA.pem",
        help="certificates, to one of which the chain in the signature must lead",
    )
    _ignore(parser, "need not be signed, besides what the signer left out")


def _ignore(parser: argparse.ArgumentParser, meaning: str) -> None:
    parser.add_argument(
        "--ignore",
        action="append",
        default=[],
        metavar="PATH",
        help=f"below the folder: {meaning}; may be repeated",
    )


def _bom(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="NAME, NAME:VERSION or NAME:ALIAS")
    parser.add_argument(
        "--output", "-o", type=Path, metavar="FILE", help="the file to write; default: stdout"
    )
    parser.add_argument(
        "--spec", choices=("1.6", "1.7"), default="1.6", help="version of CycloneDX; default: 1.6"
    )
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")


def _safetensors(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="NAME, NAME:VERSION or NAME:ALIAS")
    parser.add_argument(
        "--output",
        "-o",
        type=named_path,
        required=True,
        metavar="PATH",
        help="the file to write; a folder, for a version of several safetensors files",
    )
    parser.add_argument(
        "--path",
        default="",
        metavar="PATH",
        help="of the one file in it that is meant, as `modelkeep ls` shows it",
    )
    parser.add_argument("--force", action="store_true", help="replace a file of that name")


VERBS: tuple[Verb, ...] = (
    Verb(
        "oms sign",
        "Sign a version of the keep, or files on a disk, in the form of OpenSSF Model Signing. A "
        "version is read out of the store and nothing of it is written anywhere.",
        "interop:oms_sign",
        (
            "modelkeep oms sign fraud:3 --output fraud-3.sig",
            "modelkeep oms sign ./llama --output llama.sig --ignore README.md",
        ),
        _sign,
    ),
    Verb(
        "oms verify",
        "Check a version or files against such a signature: nothing is missing, changed, or there "
        "and not listed. Files and a key that is named need no keep.",
        "interop:oms_verify",
        (
            "modelkeep oms verify ./llama --signature llama.sig --key maker.pem",
            "modelkeep oms verify fraud:3 --signature fraud-3.sig --root ca.pem",
        ),
        _verify,
    ),
    Verb(
        "oms key",
        "Show the public key that verifies what this keep signs so, in PEM form.",
        "interop:oms_key",
        ("modelkeep oms key > keep.pem",),
        nothing,
    ),
    Verb(
        "bom",
        "Describe a version as a CycloneDX ML-BOM: digests, model card, data, lineage, policy.",
        "interop:bom",
        (
            "modelkeep bom fraud:prod",
            "modelkeep bom fraud:3 --output fraud-3.cdx.json --spec 1.7",
        ),
        _bom,
    ),
    Verb(
        "safetensors",
        "Write the tensors of a version in plaintext as safetensors, each proven on the way. A "
        "version of safetensors files comes out as it went in.",
        "interop:safetensors",
        (
            "modelkeep safetensors fraud:3 --output fraud-3.safetensors",
            "modelkeep safetensors llama:prod --output ./llama",
        ),
        _safetensors,
    ),
)
