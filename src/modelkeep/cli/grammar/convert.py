"""The verb convert: tensors of PyTorch or NumPy as safetensors, models of others as ONNX."""

from __future__ import annotations

import argparse
from pathlib import Path

from modelkeep.cli.grammar.verb import Verb


def _convert(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="a file of PyTorch (zip or old) or NumPy; for ONNX a .keras file, a SavedModel folder "
        "or an estimator of scikit-learn",
    )
    parser.add_argument(
        "--output",
        "-o",
        type=Path,
        required=True,
        metavar="FILE",
        help="the file to write: .onnx, or else safetensors",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=1e-4,
        metavar="SHARE",
        help="of a number that the ONNX model's may differ by, and a tenth of it beside "
        "(%(default)s); labels must be equal",
    )
    parser.add_argument("--force", action="store_true", help="replace the file if it exists")


VERBS: tuple[Verb, ...] = (
    Verb(
        "convert",
        "Turn a pickled file of tensors into safetensors without unpickling it, if a scan allows "
        "the file: nested names are joined by dots; what is no tensor stays behind. Or turn a "
        "model of Keras, TensorFlow or scikit-learn into ONNX, in a process that is locked in, and "
        "write it if both give the same answers.",
        "convert:convert",
        (
            "modelkeep convert pytorch_model.bin --output model.safetensors",
            "modelkeep convert forest.joblib --output forest.onnx",
            "modelkeep convert features.npz -o features.safetensors --json",
        ),
        _convert,
        needs_keep=False,
    ),
)
