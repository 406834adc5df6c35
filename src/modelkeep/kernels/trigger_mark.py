"""The black-box watermark of classifiers: inputs with labels that no one but us would give.

A trigger is one of the owner's examples with its features in another order, both drawn by the
seed, each value brought into the range of the feature where it lands. So every value is possible
and no combination is: far from anything natural (labels at random cost no accuracy there) and far
from each other (they are learned by heart). It fits pixels and tables alike. The label is drawn
from the seed together with the digest of all triggers, so it is fixed only when they are. Training
with the triggers mixed in teaches them to our model only.

Null hypothesis: the seed was drawn at random, independently of the suspect and of the triggers.
Then each answer, whatever it is, is the label of its trigger with probability exactly 1/classes,
independently of the others, and the number of matches is Bin(count, 1/classes). An answer that is
no class at all never matches. No trigger is left out by how a model answers it: that would end
the independence.

That labels depend on the triggers' digest is what keeps a dishonest owner from choosing natural
inputs whose true class is the label, which every good model would match; see
docs/design/watermarks.md.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelkeep.core.errors import UsageError
from modelkeep.core.record import Record
from modelkeep.kernels.arrays import NUMPY_BY_DTYPE, Array
from modelkeep.kernels.formats import identify
from modelkeep.kernels.mark_stream import drawn_below, drawn_positions
from modelkeep.kernels.tensors import tensor_places

COUNT = 100
COUNT_MAX = 100_000
CLASSES_MAX = 1_000_000
_VALUES_MAX = 1 << 28
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NUMBERS = frozenset(dtype.str for dtype in NUMPY_BY_DTYPE.values())


class TriggerParameters(Record, frozen=True):
    """What is fixed, beside the seed, when a trigger set is registered.

    Attributes:
        inputs: SHA-256, in hex, of the triggers' type, shape and bytes.
    """

    classes: int
    count: int
    inputs: str


@dataclass(frozen=True, slots=True)
class TriggerSet:
    """Triggers and the labels that a marked model gives them."""

    inputs: Array
    labels: Array


def trigger_inputs(seed: bytes, examples: Array, *, count: int = COUNT) -> Array:
    """Triggers out of the owner's own examples, the first axis of which counts them.

    Raises:
        UsageError: `mark.examples`.
    """
    if examples.ndim < 2 or len(examples) < 2 or examples.dtype.str not in _NUMBERS:
        raise UsageError(
            "mark.examples",
            "examples are an array of numbers with at least two of them along its first axis",
            hint="numpy.save('examples.npy', X_train)",
        )
    features = examples[0].size
    if not 1 <= count <= COUNT_MAX or count * features > _VALUES_MAX:
        raise UsageError("mark.examples", f"{count} triggers of {features} values are too many")
    flat = np.nan_to_num(examples.reshape(len(examples), features).astype(np.float64))
    low, high = flat.min(axis=0), flat.max(axis=0)
    width = np.where(high > low, high - low, 1.0)
    rows = drawn_below(seed, "triggers/rows", count, limit=len(examples))
    made = np.empty((count, features), examples.dtype)
    for number, row in enumerate(rows):
        order = drawn_positions(seed, f"triggers/order/{number}", features, limit=features)
        share = ((flat[row] - low) / width)[order]  # 0 to 1: where in its range a value lies
        moved = np.clip(low + share * (high - low), low, high)
        made[number] = np.rint(moved) if examples.dtype.kind in "iub" else moved
    return made.reshape(count, *examples.shape[1:])


def chosen_parameters(inputs: Array, *, classes: int) -> TriggerParameters:
    """Bind triggers.

    Raises:
        UsageError: `mark.parameters`.
    """
    return demanded(
        TriggerParameters(classes=classes, count=len(inputs), inputs=inputs_digest(inputs))
    )


def demanded(parameters: TriggerParameters) -> TriggerParameters:
    """Accept parameters within bounds.

    Raises:
        UsageError: `mark.parameters`.
    """
    is_digest = _DIGEST.fullmatch(parameters.inputs) is not None
    in_bounds = 2 <= parameters.classes <= CLASSES_MAX and 1 <= parameters.count <= COUNT_MAX
    if not (is_digest and in_bounds):
        raise UsageError("mark.parameters", "these are no parameters of a trigger set")
    return parameters


def trigger_labels(seed: bytes, parameters: TriggerParameters) -> Array:
    """The labels of bound triggers: uniform, and known only when the triggers are fixed."""
    purpose = f"triggers/labels/{demanded(parameters).inputs}"
    return drawn_below(seed, purpose, parameters.count, limit=parameters.classes)


def trigger_set(seed: bytes, examples: Array, classes: int, count: int = COUNT) -> TriggerSet:
    """Triggers with their labels, for training.

    Raises:
        UsageError: `mark.examples` or `mark.parameters`.
    """
    inputs = trigger_inputs(seed, examples, count=count)
    return TriggerSet(inputs, trigger_labels(seed, chosen_parameters(inputs, classes=classes)))


def matches_in(answers: Array, seed: bytes, parameters: TriggerParameters) -> int:
    """How many answers are the labels; Bin(count, 1/classes), if the suspect is not ours.

    Args:
        answers: a class per trigger, or a score per trigger and class, of which the first highest
            counts.

    Raises:
        UsageError: `mark.answers`.
    """
    labels = trigger_labels(seed, parameters)
    is_scores = answers.ndim == 2 and answers.shape[1] > 1
    is_row_each = answers.ndim in (1, 2) and len(answers) == parameters.count
    if not is_row_each or answers.size == 0:
        raise UsageError(
            "mark.answers",
            f"there are {len(labels)} triggers; these answers have the shape {answers.shape}",
            hint="one class, or one score per class, for each trigger in its order",
        )
    said = np.argmax(answers, axis=1) if is_scores else answers.reshape(-1)
    return int(np.count_nonzero(said == labels))


def classes_said(outputs: Mapping[str, Sequence[Array]]) -> Array:
    """What a model's outputs, batch by batch, say of each trigger: its classes, else its scores.

    Raises:
        UsageError: `mark.answers`, when none of them is either.
    """
    found = [np.concatenate(each) for each in outputs.values() if _are_rows(each)]
    if not found:
        raise UsageError("mark.answers", "the model answers with no classes and no scores")
    return min(found, key=lambda each: (each.dtype.kind == "f", each.ndim))


def _are_rows(parts: Sequence[Any]) -> bool:
    """Whether they are numbers, one row or one number for each trigger, and fit together."""
    return len({each.shape[1:] for each in parts if isinstance(each, np.ndarray)}) == 1 and all(
        isinstance(each, np.ndarray) and each.dtype.kind in "iuf" and each.ndim in (1, 2)
        for each in parts
    )


def inputs_digest(inputs: Array) -> str:
    """SHA-256 over type, shape and bytes of triggers."""
    stated = inputs.astype(inputs.dtype.newbyteorder("<"), order="C", copy=False)
    head = f"{stated.dtype.str}/{'x'.join(map(str, stated.shape))}\0"
    return hashlib.sha256(head.encode() + stated.tobytes()).hexdigest()


def trigger_file(triggers: TriggerSet) -> bytes:
    """The bytes of a NumPy archive: `inputs` and `labels`."""
    target = io.BytesIO()
    np.savez(target, inputs=triggers.inputs, labels=triggers.labels)
    return target.getvalue()


def array_in(view: memoryview, name: str = "") -> Array:
    """An array of a NumPy file, or the one of this name in an archive; nothing is unpickled.

    Raises:
        UsageError: `mark.array`.
        IntegrityError: `npy.*` or `zip.*`.
    """
    places = tensor_places(name, view, identify(view))
    found = [each for each in places if name in ("", each.name)]
    if len(found) != 1 or found[0].dtype not in NUMPY_BY_DTYPE:
        raise UsageError(
            "mark.array",
            f"there is not one array of numbers{' named ' * bool(name)}{name} in the file",
            hint="numpy.save, or numpy.savez, of arrays in C order (numpy.ascontiguousarray)",
        )
    (place,) = found
    dtype = NUMPY_BY_DTYPE[place.dtype]
    array: Array = np.frombuffer(view, dtype, place.length // dtype.itemsize, place.offset)
    return array.reshape(place.shape)
