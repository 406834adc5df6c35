"""Two small real ONNX models, trained once per test run on scikit-learn's digits."""

import functools
import tempfile
import warnings
from pathlib import Path

from modelkeep.cli.demo_data import Digits, Trained, digits, trained

_FOLDER = tempfile.TemporaryDirectory(prefix="modelkeep-test-models-")  # gone with the process


@functools.cache
def trained_models() -> tuple[Digits, tuple[Trained, Trained]]:
    """The data and both versions with their canaries."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = digits()
        return data, trained(data, Path(_FOLDER.name))


def two_models() -> tuple[Path, Path]:
    """The files of both versions."""
    return trained_models()[1][0].file, trained_models()[1][1].file
