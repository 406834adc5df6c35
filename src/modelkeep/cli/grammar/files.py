"""Verbs about files and streams of anybody: encrypt, decrypt, sign, verify, identity."""

from __future__ import annotations

import argparse
from pathlib import Path

from modelkeep.cli.grammar.verb import Verb


def _streamed(parser: argparse.ArgumentParser, *, output: str) -> None:
    parser.add_argument("file", nargs="?", default="-", metavar="FILE", help="or - for stdin")
    parser.add_argument(
        "--output", "-o", metavar="FILE", help=f"where to, or - for stdout; default: {output}"
    )
    parser.add_argument("--force", action="store_true", help="replace the output if it exists")


def _encrypt(parser: argparse.ArgumentParser) -> None:
    _streamed(parser, output="FILE.sealed or FILE.age, stdout for stdin")
    parser.add_argument(
        "--to",
        action="append",
        default=[],
        metavar="RECIPIENT",
        help="mkr1…, age1…, or a file with such lines or with an RSA public key; may be repeated. "
        "Without it: under a passphrase",
    )
    parser.add_argument(
        "--sign", type=Path, metavar="IDENTITY", help="also sign with this identity file"
    )


def _decrypt(parser: argparse.ArgumentParser) -> None:
    _streamed(parser, output="FILE without .sealed or .age, stdout for stdin")
    parser.add_argument(
        "--identity",
        "-i",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="an identity file or an RSA private key; may be repeated. Without it: a passphrase",
    )
    parser.add_argument(
        "--signer",
        "--from",
        dest="signed_by",
        action="append",
        metavar="VERIFIER",
        help="demand a signature of this verifier: mkv1… or a public file; may be repeated",
    )
    parser.add_argument(
        "--path", default="", help="of an exported model: this file or folder of it only"
    )
    parser.add_argument(
        "--tensor",
        default="",
        metavar="NAME",
        help="of an exported model: this tensor only; into .npy, .safetensors, or its bytes",
    )


def _sign(parser: argparse.ArgumentParser) -> None:
    _streamed(parser, output="FILE.sig, stdout for stdin")
    parser.add_argument(
        "--identity", "-i", type=Path, required=True, metavar="FILE", help="who signs"
    )


def _verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="or - for stdin")
    parser.add_argument(
        "--key",
        action="append",
        required=True,
        metavar="VERIFIER",
        help="mkv1… or a public file; may be repeated, one of them must have signed",
    )
    parser.add_argument("--signature", type=Path, metavar="FILE", help="default: FILE.sig")


def _identity_new(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output", "-o", type=Path, required=True, metavar="FILE", help="the identity file"
    )


VERBS: tuple[Verb, ...] = (
    Verb(
        "encrypt",
        "Encrypt a file or a stream to recipients or under a passphrase.",
        "files:encrypt",
        (
            "modelkeep encrypt weights.bin --to alice.pub",
            "modelkeep encrypt weights.bin --passphrase-file secret.txt --output weights.sealed",
            "pg_dump shop | modelkeep encrypt --to alice.pub --to ops.pub > shop.sealed",
        ),
        _encrypt,
        needs_keep=False,
    ),
    Verb(
        "decrypt",
        "Decrypt a file or a stream; a file appears only when all of it verified.",
        "files:decrypt",
        (
            "modelkeep decrypt weights.bin.sealed --identity me.key",
            "modelkeep decrypt weights.bin.sealed --identity me.key --signer alice.pub",
            "modelkeep decrypt --identity me.key < shop.sealed | psql shop",
            "modelkeep decrypt fraud-3.model --identity me.key --signer theirs.pub --output fraud",
        ),
        _decrypt,
        needs_keep=False,
    ),
    Verb(
        "sign",
        "Sign a file: a detached signature of three lines beside it.",
        "files:sign",
        ("modelkeep sign weights.bin --identity me.key",),
        _sign,
        needs_keep=False,
    ),
    Verb(
        "verify",
        "Check a file's detached signature against those whom you trust.",
        "files:verify",
        ("modelkeep verify weights.bin --key alice.pub",),
        _verify,
        needs_keep=False,
    ),
    Verb(
        "identity new",
        "Make an identity; its public half is printed, for those who encrypt to you or check you.",
        "files:identity_new",
        ("modelkeep identity new --output me.key > me.pub",),
        _identity_new,
        needs_keep=False,
    ),
)

GROUPS = {
    "identity": "Keys that open and sign in your name: new.",
}
