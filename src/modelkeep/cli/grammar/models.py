"""Verbs about models: admit, list, restore."""

from __future__ import annotations

import argparse
from pathlib import Path

from modelkeep.cli.grammar import contents
from modelkeep.cli.grammar.verb import Verb, named_path, nothing


def _admit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "path",
        type=Path,
        metavar="PATH",
        help="the model's file, or its folder: every file in it is scanned",
    )
    parser.add_argument("--name", required=True, help="name it is registered under")
    parser.add_argument(
        "--canary",
        type=Path,
        metavar="FILE",
        help='JSON {"inputs": […], "outputs": […]}: a V2 call whose right answer is known; '
        "it is asked before it is let in, and recovery proves itself with it",
    )
    parser.add_argument(
        "--domain",
        default="",
        help="whose key it is kept under; default: that of the version before, or `default`",
    )
    parser.add_argument("--base", default="", metavar="NAME:VERSION", help="what it was made from")
    parser.add_argument("--note", default="", help="a sentence for people")
    parser.add_argument(
        "--policy",
        type=Path,
        metavar="FILE",
        help="TOML: who may load it, until when, on which hosts, for which uses; signed with it; "
        "default: that of the version before; `none` permits everything",
    )
    parser.add_argument(
        "--card",
        type=Path,
        metavar="FILE",
        help="TOML: what it is for, its data sets, training run, licence, figures; signed with it",
    )
    parser.add_argument(
        "--watermark",
        action="append",
        default=[],
        metavar="MARK",
        help="a registered mark that it carries; one in weights is embedded now; may be repeated",
    )
    _papers(parser)


def _papers(parser: argparse.ArgumentParser) -> None:
    """What proves where a model is from."""
    parser.add_argument(
        "--schema",
        type=Path,
        metavar="FILE",
        help='JSON {"inputs": […], "outputs": […], "tensors": […], "parameters": N}: the form that '
        "it must have",
    )
    papers = parser.add_argument_group("where it is from")
    papers.add_argument(
        "--signature",
        type=Path,
        metavar="FILE",
        help="an OMS bundle over it, or a detached signature of `modelkeep sign` over one file",
    )
    papers.add_argument(
        "--signed-by",
        action="append",
        default=[],
        metavar="KEY",
        help="who may have signed: a public key or root certificates (PEM), or mkv1…; may be "
        "repeated; the mkv1… that [admission] trusts may too",
    )
    papers.add_argument(
        "--expect",
        action="append",
        default=[],
        metavar="[PATH=]sha256:HEX",
        help="a digest that it must have, or a file of it; blake3 and others too; may be repeated",
    )
    papers.add_argument(
        "--bom",
        "--sbom",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="a bill of materials (CycloneDX, JSON) to hold it against; it fills the card where "
        "that says nothing; may be repeated",
    )


def _reference(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="NAME, NAME:VERSION or NAME:ALIAS")


def _restore(parser: argparse.ArgumentParser) -> None:
    _reference(parser)
    parser.add_argument(
        "--to",
        type=named_path,
        required=True,
        metavar="PATH",
        help="plaintext goes here; for a folder one that is new or empty",
    )
    parser.add_argument(
        "--path", default="", metavar="SUB", help="only this file or folder of the version"
    )
    parser.add_argument(
        "--tensor",
        default="",
        metavar="NAME",
        help="only this tensor: its raw bytes, or a file of NumPy or safetensors if PATH ends in "
        ".npy or .safetensors",
    )
    parser.add_argument("--force", action="store_true", help="replace a file that exists")


VERBS: tuple[Verb, ...] = (
    Verb(
        "admit",
        "Let a model in: scan, sign, seal, store, register as the next version.",
        "models:admit",
        (
            "modelkeep admit fraud.onnx --name fraud",
            "modelkeep admit v2.onnx --name fraud --base fraud:1",
            "modelkeep admit ./llama-7b --name llama",
            "modelkeep admit fraud.onnx --name fraud --policy policy.toml --card card.toml",
            "modelkeep admit fraud.onnx --name fraud --watermark fraud-w1",
            "modelkeep admit ./llama --name llama --signature llama.sig --signed-by maker.pem",
        ),
        _admit,
    ),
    Verb(
        "models",
        "List the models in the keep with their versions and aliases.",
        "models:models",
        ("modelkeep models", "modelkeep models --json"),
        nothing,
    ),
    Verb(
        "restore",
        "Write a version's plaintext to a file or folder that you name, bit for bit, or nothing.",
        "models:restore",
        (
            "modelkeep restore fraud:1 --to fraud.onnx",
            "modelkeep restore run-7:3 --to ./run-7 --path checkpoints/last",
            "modelkeep restore llama --to wte.npy --tensor transformer.wte.weight",
        ),
        _restore,
    ),
    *contents.VERBS,
)
