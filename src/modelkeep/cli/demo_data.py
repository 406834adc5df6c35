"""What the demo works with: two trained models with their canaries, and files that mean harm."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelkeep.core.record import to_json
from modelkeep.kernels.protobuf import fields

Array = npt.NDArray[Any]

PIXEL_MAX = 16.0
HELD_OUT_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Digits:
    """The handwritten digits that travel with scikit-learn, split; pixels scaled to 0..1."""

    train: Array
    train_labels: Array
    held_out: Array
    held_out_labels: Array


@dataclass(frozen=True, slots=True)
class Trained:
    """Where one model version lies, and how well it does on held-out digits."""

    file: Path
    canary: Path
    accuracy: float


def digits() -> Digits:
    """Load and split the data set; the same split each time."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - the extra `demo`
    from sklearn.model_selection import train_test_split  # noqa: PLC0415

    pixels, labels = load_digits(return_X_y=True)
    train, held_out, train_labels, held_out_labels = train_test_split(
        (pixels / PIXEL_MAX).astype(np.float32),
        labels,
        test_size=HELD_OUT_SHARE,
        random_state=7,
        stratify=labels,
    )
    return Digits(train, train_labels, held_out, held_out_labels)


def trained(data: Digits, folder: Path) -> tuple[Trained, Trained]:
    """Train a classifier, export it, fine-tune it on all training digits, export it again."""
    from sklearn.neural_network import MLPClassifier  # noqa: PLC0415 - the extra `demo`

    model = MLPClassifier(hidden_layer_sizes=(64,), random_state=7, learning_rate_init=0.01)
    half = len(data.train) // 2
    classes = np.unique(data.train_labels)
    rng = np.random.default_rng(7)
    found = []
    for version, (rows, epochs) in enumerate(((half, 12), (len(data.train), 8)), start=1):
        for _ in range(epochs):
            order = rng.permutation(rows)
            model.partial_fit(data.train[order], data.train_labels[order], classes=classes)
        found.append(_exported(model, data, folder / f"digits-v{version}.onnx"))
    return found[0], found[1]


def harmful(folder: Path, onnx: bytes, witness: Path) -> dict[str, Path]:
    """Files that must not get in, by what is wrong with them.

    The pickle would run a command (creating `witness`) if anything unpickled it.
    """
    files = {
        "a pickle that runs a command": ("classifier.pkl", pickle.dumps(_Malicious(witness))),
        "an ONNX file cut in the middle of a field": ("cut-mid.onnx", onnx[: len(onnx) // 2]),
        "an ONNX file cut between two fields": ("cut-edge.onnx", _cut_between(onnx)),
    }
    for name, raw in files.values():
        (folder / name).write_bytes(raw)
    return {what: folder / name for what, (name, _) in files.items()}


class _Malicious:
    def __init__(self, witness: Path) -> None:
        self._witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        import os  # noqa: PLC0415 - stands in the pickle as `posix.system`

        return os.system, (f"touch {self._witness}",)


def _cut_between(onnx: bytes) -> bytes:
    """The file without its last field, an opset_import: onnxruntime loads this."""
    ends = [field.offset + field.length for field in fields(memoryview(onnx))]
    return onnx[: ends[-2]]


def _exported(model: Any, data: Digits, file: Path) -> Trained:
    from skl2onnx import to_onnx  # noqa: PLC0415 - the extra `demo`
    from skl2onnx.common.data_types import FloatTensorType  # noqa: PLC0415

    exported = to_onnx(
        model,
        initial_types=[("pixels", FloatTensorType([None, data.train.shape[1]]))],
        options={"zipmap": False},
    )
    file.write_bytes(exported.SerializeToString())
    row = data.held_out[:1]
    canary = {
        "inputs": [_tensor("pixels", "FP32", row)],
        "outputs": [
            _tensor("label", "INT64", model.predict(row)),
            _tensor("probabilities", "FP32", model.predict_proba(row)),
        ],
    }
    beside = file.with_suffix(".canary.json")
    beside.write_bytes(to_json(canary))
    accuracy = float(model.score(data.held_out, data.held_out_labels))
    return Trained(file=file, canary=beside, accuracy=accuracy)


def _tensor(name: str, dtype: str, values: Array) -> dict[str, Any]:
    return {
        "name": name,
        "dtype": dtype,
        "shape": list(values.shape),
        "values": [float(value) for value in values.reshape(-1)],
    }
