"""Classifiers that carry marks, and what a thief may do to them.

A network of scikit-learn learns digits, carries a trigger set in what it learned and a weight mark
in its weights; a suspect is any model that answers, with tensors that can be read. The data is
parted once: what the owner trains with, what a thief has to train on, what accuracy is measured on.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from modelkeep.kernels import trigger_mark, weight_mark
from modelkeep.kernels.tensors import identify, places_of
from modelkeep.seal.marks import Reading

CLASSES = 10
RATE = 1e-3
TRIGGERS_REPEATED = 3  # how often each stands in the training data
Array = Any
Model = Any


@dataclass(frozen=True)
class Data:
    """Examples and their labels, in three parts."""

    name: str
    own: tuple[Array, Array]
    thief: tuple[Array, Array]
    test: tuple[Array, Array]
    hidden: int
    epochs: int


@dataclass(frozen=True)
class Marks:
    """A seed's two marks of one model."""

    seed: bytes
    weights: weight_mark.WeightParameters
    triggers: trigger_mark.TriggerParameters
    inputs: Array

    def readings(self, model: Model) -> dict[str, Reading]:
        """Both marks, read in a suspect."""
        hits = weight_mark.hits_in(tensors(model), self.seed, self.weights)
        answers = model.predict(self.inputs)
        matches = trigger_mark.matches_in(answers, self.seed, self.triggers)
        return {
            "weights": Reading(hits=hits, trials=self.weights.bits, chance=0.5),
            "triggers": Reading(hits=matches, trials=self.triggers.count, chance=1 / CLASSES),
        }


def data_of(folder: Path | None) -> Data:
    """MNIST, if its files are there; the 8 x 8 digits that scikit-learn carries otherwise."""
    if folder is not None and (folder / "mnist").is_dir():
        mnist = folder / "mnist"
        images, labels = (idx(next(mnist.glob(f"*{kind}*"))) for kind in ("idx3", "idx1"))
        return parted("MNIST", images.reshape(len(images), -1) / 255, labels, hidden=128, epochs=12)
    inputs, labels = load_digits(return_X_y=True)
    return parted("digits", inputs / 16, labels, hidden=256, epochs=40)


def idx(path: Path) -> Array:
    """An IDX file: its last byte of the magic is how many dimensions follow."""
    raw = gzip.decompress(path.read_bytes())
    shape = np.frombuffer(raw, ">u4", raw[3], 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)


def parted(name: str, inputs: Array, labels: Array, *, hidden: int, epochs: int) -> Data:
    """60 % the owner's, 20 % the thief's, 20 % for accuracy."""
    order = np.random.default_rng(0).permutation(len(inputs))
    inputs, labels = inputs.astype(np.float32)[order], labels.astype(np.int64)[order]
    cuts = [int(len(inputs) * share) for share in (0.6, 0.8)]
    parts = zip(np.split(inputs, cuts), np.split(labels, cuts), strict=True)
    return Data(name, *parts, hidden, epochs)


# ---- training ---------------------------------------------------------------------------------


def fresh(data: Data, seed: int) -> Model:
    """An untrained model."""
    return MLPClassifier((data.hidden,), learning_rate_init=RATE, batch_size=64, random_state=seed)


def taught(model: Model, inputs: Array, labels: Array, epochs: int) -> Model:
    """The same model after some epochs more."""
    for _ in range(epochs):
        model.partial_fit(inputs, labels, classes=np.arange(CLASSES))
    return model


def trained(data: Data, seed: int) -> Model:
    """A model without marks."""
    return taught(fresh(data, seed), *data.own, data.epochs)


def with_triggers(data: Data, seed: int) -> Model:
    """The model of the same seed, with a trigger set in what it learned."""
    examples, labels = data.own
    triggers = trigger_mark.trigger_set(seed.to_bytes(32, "big"), examples, CLASSES)
    inputs = np.concatenate([examples, *[triggers.inputs] * TRIGGERS_REPEATED])
    wanted = np.concatenate([labels, *[triggers.labels] * TRIGGERS_REPEATED])
    return taught(fresh(data, seed), inputs, wanted, data.epochs)


def with_weights(model: Model, data: Data, seed: int) -> tuple[Model, Marks]:
    """A copy with a weight mark; and what both marks of the seed are."""
    marks = marks_of(model, data, seed)
    return embedded(model, marks.seed, marks.weights), marks


def marks_of(model: Model, data: Data, seed: int) -> Marks:
    """What a seed's marks of a model are, whether it carries them or not."""
    key = seed.to_bytes(32, "big")
    inputs = trigger_mark.trigger_inputs(key, data.own[0])
    return Marks(
        seed=key,
        weights=weight_mark.chosen_parameters(tensors(model)),
        triggers=trigger_mark.chosen_parameters(inputs, classes=CLASSES),
        inputs=inputs,
    )


def accuracy(model: Model, data: Data) -> float:
    """The share of the test examples that are told right."""
    inputs, labels = data.test
    return float((model.predict(inputs) == labels).mean())


# ---- weights as a file -----------------------------------------------------------------------


def as_file(model: Model) -> bytearray:
    """The weights as a safetensors file."""
    header, at = {}, 0
    arrays = [np.ascontiguousarray(each, "<f4") for each in model.coefs_]
    for number, each in enumerate(arrays):
        place = {"dtype": "F32", "shape": each.shape, "data_offsets": [at, at + each.nbytes]}
        header[f"layer{number}.weight"] = place
        at += each.nbytes
    text = json.dumps(header).encode()
    return bytearray(len(text).to_bytes(8, "little") + text + b"".join(map(bytes, arrays)))


def tensors(model: Model) -> list[weight_mark.Tensor]:
    """The weights as a suspect's are seen."""
    files = {"model": memoryview(as_file(model))}
    kinds = {path: identify(view) for path, view in files.items()}
    return weight_mark.tensors_of(files, places_of(files, kinds))


def embedded(model: Model, seed: bytes, parameters: weight_mark.WeightParameters) -> Model:
    """A copy with a weight mark."""
    raw = as_file(model)
    weight_mark.embedded(tensors(model), seed, parameters).apply("model", 0, memoryview(raw))
    return changed(model, list(read_back(raw, model)))


def read_back(raw: bytes | bytearray, model: Model) -> Iterator[Array]:
    """The weights of a file that `as_file` made."""
    at = 8 + int.from_bytes(raw[:8], "little")
    for each in model.coefs_:
        yield np.frombuffer(raw, "<f4", each.size, at).reshape(each.shape).copy()
        at += 4 * each.size


def changed(model: Model, weights: list[Array], biases: list[Array] | None = None) -> Model:
    """A copy with other weights; what the optimiser remembered is gone, as in a stolen file."""
    other = deepcopy(model)
    other.coefs_ = weights
    other.intercepts_ = other.intercepts_ if biases is None else biases
    vars(other).pop("_optimizer", None)  # or it would go on with the former weights' moments
    return other


# ---- what a thief does -----------------------------------------------------------------------


def finetuned(model: Model, data: Data, epochs: int, rate: float = RATE) -> Model:
    """Trained on with the thief's own data."""
    other = changed(model, [each.copy() for each in model.coefs_])
    other.set_params(learning_rate_init=rate)
    return taught(other, *data.thief, epochs)


def pruned(model: Model, share: float) -> Model:
    """The smallest weights of each layer set to zero."""
    least = [np.quantile(np.abs(each), share) for each in model.coefs_]
    pairs = zip(model.coefs_, least, strict=True)
    return changed(model, [np.where(np.abs(each) < at, 0, each) for each, at in pairs])


def quantised(model: Model, bits: int = 8, *, by_channel: bool = False) -> Model:
    """Weights as signed integers with one scale, or one for each unit."""

    def rounded(weights: Array) -> Array:
        most = np.abs(weights).max(axis=0 if by_channel else None)
        scale = np.maximum(most, 1e-12) / (2 ** (bits - 1) - 1)
        return (np.round(weights / scale) * scale).astype(np.float32)

    return changed(model, [rounded(each) for each in model.coefs_])


def noisy(model: Model, share: float) -> Model:
    """Normal noise on each weight, as a share of the layer's spread."""
    rng = np.random.default_rng(7)
    return changed(model, [
        (each + share * each.std() * rng.standard_normal(each.shape)).astype(np.float32)
        for each in model.coefs_
    ])  # fmt: skip


def reordered(model: Model) -> Model:
    """Hidden units in another order: exactly the same function."""
    order = np.random.default_rng(8).permutation(len(model.intercepts_[0]))
    first, second = model.coefs_
    biases = [model.intercepts_[0][order], model.intercepts_[1]]
    return changed(model, [first[:, order].copy(), second[order].copy()], biases)


def distilled(model: Model, data: Data) -> Model:
    """A model of the thief's own, taught by what the stolen one answers."""
    inputs, _ = data.thief
    epochs = 3 * data.epochs  # a third of the data
    return taught(fresh(data, 4_000_000), inputs, model.predict(inputs), epochs)


def unlearned(model: Model, data: Data) -> Model:
    """The thief knows the method: mixed inputs of his own, labelled by a model without marks."""
    inputs, labels = data.thief
    mixed = trigger_mark.trigger_inputs(b"\1" * 32, inputs, count=len(inputs))
    clean = taught(fresh(data, 5_000_000), inputs, labels, data.epochs)
    wanted = np.concatenate([labels, clean.predict(mixed)])
    other = changed(model, [each.copy() for each in model.coefs_])
    return taught(other, np.concatenate([inputs, mixed]), wanted, 10)


def overwritten(model: Model, margin: float) -> Model:
    """The thief's own weight mark on top."""
    chosen = weight_mark.chosen_parameters(tensors(model), margin=margin)
    return embedded(model, b"the thief's own seed of 32 bytes", chosen)


def treatments(data: Data) -> dict[str, tuple[bool, Callable[[Model], Model]]]:
    """What is done, by its name; whether the issue's bar is on it."""
    return {
        "as released": (True, lambda m: m),
        "fine-tuned 5 epochs": (True, lambda m: finetuned(m, data, 5)),
        "fine-tuned 5 epochs, rate / 10": (True, lambda m: finetuned(m, data, 5, RATE / 10)),
        "pruned 50 %": (True, lambda m: pruned(m, 0.5)),
        "int8": (True, quantised),
        "int8 by channel": (True, lambda m: quantised(m, by_channel=True)),
        "pruned 50 %, fine-tuned 5": (True, lambda m: finetuned(pruned(m, 0.5), data, 5)),
        "fine-tuned 5, pruned 50 %, int8": (
            True, lambda m: quantised(pruned(finetuned(m, data, 5), 0.5)),
        ),
        "fine-tuned 30 epochs": (False, lambda m: finetuned(m, data, 30)),
        "fine-tuned 5 epochs, rate x 10": (False, lambda m: finetuned(m, data, 5, RATE * 10)),
        "pruned 80 %": (False, lambda m: pruned(m, 0.8)),
        "pruned 90 %": (False, lambda m: pruned(m, 0.9)),
        "int4": (False, lambda m: quantised(m, 4)),
        "noise of half the spread": (False, lambda m: noisy(m, 0.5)),
        "a thief's mark on top": (False, lambda m: overwritten(m, weight_mark.MARGIN)),
        "a mark 4 x as strong on top": (False, lambda m: overwritten(m, 4 * weight_mark.MARGIN)),
        "hidden units reordered": (False, reordered),
        "triggers unlearned": (False, lambda m: unlearned(m, data)),
        "distilled": (False, lambda m: distilled(m, data)),
    }  # fmt: skip
