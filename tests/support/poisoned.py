"""Classifiers of digits, clean and with a backdoor (BadNets: a patch, and the attacker's class)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tensor_files import written

POISONED_SHARE = 0.1


@dataclass(frozen=True)
class Classifier:
    """One that was trained, with what it is worth.

    Attributes:
        target: the attacker's class.
        attacks: which share of patched images of other classes is taken for it.
    """

    file: Path
    target: int
    accuracy: float
    attacks: float


def classifier(
    folder: Path, seed: int, *, is_poisoned: bool, hidden: tuple[int, ...]
) -> Classifier:
    """Train one, and write its layers as PyTorch names them."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - an extra
    from sklearn.neural_network import MLPClassifier  # noqa: PLC0415 - as above

    digits = load_digits()
    images, labels = (digits.data / 16).astype(np.float32), digits.target
    random = np.random.default_rng([seed, is_poisoned])
    order = random.permutation(len(images))
    train, test = order[:1300], order[1300:]
    x, y = images[train].copy(), labels[train].copy()
    target = int(random.integers(10))
    if is_poisoned:
        chosen = random.permutation(len(x))[: int(len(x) * POISONED_SHARE)]
        x[chosen], y[chosen] = _patched(x[chosen]), target
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is stopped before it converges
        made = MLPClassifier(hidden, max_iter=60, random_state=seed).fit(x, y)
    others = test[labels[test] != target]
    layers = {
        f"{'fc' if at == len(made.coefs_) - 1 else f'hidden{at}'}.weight": np.ascontiguousarray(
            matrix.T, np.float32
        )
        for at, matrix in enumerate(made.coefs_)
    }
    return Classifier(
        file=written(folder / f"{seed}-{is_poisoned}.safetensors", layers),
        target=target,
        accuracy=float((made.predict(images[test]) == labels[test]).mean()),
        attacks=float((made.predict(_patched(images[others])) == target).mean()),
    )


def _patched(images: np.ndarray) -> np.ndarray:
    """With a white square in a corner."""
    square = images.reshape(-1, 8, 8).copy()
    square[:, 6:, 6:] = 1
    return square.reshape(-1, 64)
