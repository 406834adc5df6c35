"""The verb convert: a file of PyTorch or NumPy as safetensors."""

from __future__ import annotations

import argparse
from pathlib import Path

from modelkeep.cli.grammar.verb import Verb


def _convert(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="a file of PyTorch (zip or old) or NumPy"
    )
    parser.add_argument(
        "--output", "-o", type=Path, required=True, metavar="FILE", help="the file to write"
    )
    parser.add_argument("--force", action="store_true", help="replace the file if it exists")


VERBS: tuple[Verb, ...] = (
    Verb(
        "convert",
        "Turn a pickled file of tensors into safetensors without unpickling it, if a scan allows "
        "the file. Nested names are joined by dots; what is no tensor stays behind.",
        "convert:convert",
        (
            "modelkeep convert pytorch_model.bin --output model.safetensors",
            "modelkeep convert features.npz -o features.safetensors --json",
        ),
        _convert,
        needs_keep=False,
    ),
)
