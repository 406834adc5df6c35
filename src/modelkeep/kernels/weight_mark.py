"""The white-box watermark: a keyed pattern in the weights of a model, and reading it again.

Over the weights of the registered tensors, laid end to end, the seed draws `bits * positions`
different positions in random order and a sign for each; position number j belongs to bit j mod
`bits`. A bit is *hit* in a suspect where

    sum over its positions of  sign * clip(weight / scale of the tensor)   is above zero.

Null hypothesis: the seed was drawn at random, independently of the suspect. Then, whatever the
suspect's weights are, turning all signs of one bit round is as likely as not, so each bit is hit
with probability at most 1/2 (a sum of exactly zero counts as a miss), independently of the others,
and the number of hits is at most Bin(bits, 1/2). That is exact: nothing is assumed about how
weights are distributed, and how tensors are found and scaled may depend on the suspect in any way.

Embedding multiplies weights by factors near 1, up where that raises their bit's sum and down where
it does, until every sum is past `margin` times the spread that it has under the null. Changes in
proportion to the weight put the mark where pruning by magnitude does not reach and leave zeros
zero. The bits are known while the mark is made (informed embedding), so all of them are hit in
the marked model, and only what is done to it later can turn some.

The mark does not survive what moves weights to other positions (hidden units in another order),
makes them anew (training from the start, distillation), or merges many models into one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from modelkeep.core.errors import UsageError
from modelkeep.core.record import Record
from modelkeep.kernels.arrays import NUMPY_BY_DTYPE, Array
from modelkeep.kernels.formats import identify
from modelkeep.kernels.mark_stream import drawn_positions, drawn_signs
from modelkeep.kernels.tensors import TensorPlace
from modelkeep.kernels.zip_sums import sum_places

# More make claims stronger, fewer change less of a small model.
BITS = (256, 128, 64)
# A bit of so many weights is pushed past the margin by changing each by a tenth.
POSITIONS_WANTED = 256
POSITIONS_MAX = 4096
MARGIN = 1.0
TENSORS_MAX = 64
# Weights that a suspect is read at: 256 bits of 4096 positions, and what a record may ask for.
_DRAWN_MAX = 4 * 1024 * 1024
_ARCHIVES = ("zip", "torch-zip")
_FIRST = np.zeros(1, np.int64)
_FLOATS = ("FP64", "FP32", "FP16", "BF16")
_READABLE = (*_FLOATS, "INT8", "UINT8")
_BITS_MAX = 4096
_ITEMS_MIN = 64
_FLAT_ITEMS_MIN = 64 * 1024  # a vector this long is a storage and no bias or gain
_CLIP = 4.0  # of the mean size; 1 weight in 700 of a normal distribution is beyond
_ROUNDS = 40
_STEP_MAX = 0.25
_OVERSHOOT = 1.01


class MarkedTensor(Record, frozen=True):
    """One tensor that the mark lies in."""

    name: str
    items: int


class WeightParameters(Record, frozen=True):
    """What is fixed, beside the seed, when a weight mark is registered.

    Attributes:
        positions: weights per bit.
        margin: that each bit's sum is embedded with, in units of its spread under the null.
    """

    bits: int
    positions: int
    margin: float
    tensors: tuple[MarkedTensor, ...]


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of a file that is at hand."""

    path: str
    place: TensorPlace
    view: memoryview

    @property
    def items(self) -> int:
        """How many numbers it holds."""
        return self.place.length // _item_bytes(self.place.dtype)


@dataclass(frozen=True, slots=True)
class Change:
    """New items of one tensor.

    Attributes:
        offset: of the tensor in its file.
        at: numbers of the items, rising.
        items: their bytes, as integers of the item's size.
    """

    path: str
    offset: int
    at: Array
    items: Array


@dataclass(frozen=True, slots=True)
class Embedded:
    """A mark, ready to be written over the bytes of the files.

    Attributes:
        weights: how many there are in the marked tensors.
        changed: how many of them get another value.
        relative_change: size of the change, as L2 norm, over that of all weights of these tensors.
        largest_change: of a single weight, in units of its tensor's mean size.
    """

    changes: tuple[Change, ...]
    weights: int
    changed: int
    relative_change: float
    largest_change: float

    def apply(self, path: str, start: int, target: memoryview) -> None:
        """Write the mark over bytes of a file that begin at `start`; cheap where none is hit."""
        buffer = np.frombuffer(target, np.uint8)
        for each in self.changes:
            if each.path == path:
                _overlay(buffer, start, each)


def tensors_of(
    files: Mapping[str, memoryview], places: Mapping[str, Sequence[TensorPlace]]
) -> list[Tensor]:
    """Tensors of numbers that can be read, in the order of paths and bytes."""
    return [
        Tensor(path, place, files[path])
        for path in sorted(places)
        for place in places[path]
        if place.dtype in _READABLE and place.length
    ]


def chosen_parameters(
    tensors: Sequence[Tensor], *, bits: int = 0, margin: float = MARGIN
) -> WeightParameters:
    """What suits a model: its matrices, as many bits as its size can carry.

    Args:
        bits: how many; 0 for what suits its size.

    Raises:
        UsageError: `mark.room`, when the model is too small.
        UsageError: `mark.parameters`.
    """
    able = [each for each in tensors if _is_able(each)]
    if len(able) > TENSORS_MAX:  # from the whole depth of the model
        able = [able[at * len(able) // TENSORS_MAX] for at in range(TENSORS_MAX)]
    weights = sum(each.items for each in able)
    bits = bits or next((each for each in BITS if weights >= each * POSITIONS_WANTED), BITS[-1])
    found = WeightParameters(
        bits=bits,
        positions=min(weights // max(bits, 1), POSITIONS_MAX),
        margin=margin,
        tensors=tuple(MarkedTensor(name=each.place.name, items=each.items) for each in able),
    )
    if found.positions < _ITEMS_MIN // 2:
        raise UsageError(
            "mark.room",
            f"there are {weights} weights in matrices of floats: too few for {bits} bits",
            hint="mark a larger model, or use a trigger set",
        )
    return demanded(found)


def demanded(parameters: WeightParameters) -> WeightParameters:
    """Accept parameters that can be drawn and are within bounds.

    Raises:
        UsageError: `mark.parameters`.
    """
    weights = sum(each.items for each in parameters.tensors)
    drawn = parameters.bits * parameters.positions
    is_good = (
        1 <= parameters.bits <= _BITS_MAX
        and 1 <= len(parameters.tensors) <= TENSORS_MAX
        and all(0 < each.items < 1 << 40 for each in parameters.tensors)
        and 0 < drawn <= min(weights, _DRAWN_MAX)
        and weights < 1 << 40
        and 0.0 < parameters.margin <= 100.0
    )
    if not is_good:
        raise UsageError("mark.parameters", "these are no parameters of a weight mark")
    return parameters


def hits_in(tensors: Sequence[Tensor], seed: bytes, parameters: WeightParameters) -> int:
    """How many bits are hit in a suspect; Bin(bits, 1/2) at most, if it is not ours.

    Reads as many weights as were drawn, not the whole files.

    Raises:
        UsageError: `mark.parameters`.
    """
    drawn = _drawn(seed, demanded(parameters))
    matched = _matched(tensors, parameters)
    values = [
        _values(tensor, at) if tensor is not None else np.zeros(len(at))
        for tensor, at in zip(matched, drawn.at, strict=True)
    ]
    sums, _ = _sums(drawn, [_scaled(each) for each in values])
    return int(np.count_nonzero(sums > 0.0))


def marked(
    files: Mapping[str, memoryview],
    places: Mapping[str, Sequence[TensorPlace]],
    seed: bytes,
    parameters: WeightParameters,
) -> Embedded:
    """Make the mark in the files of a model; checksums of archives follow.

    Nothing is written: `Embedded.apply` lays the mark over bytes as they are read. A model that
    carries the mark already is not changed.

    Raises:
        UsageError: as `embedded`; `mark.archive`, for an archive of over 4 GiB.
    """
    made = embedded(tensors_of(files, places), seed, parameters)
    sums: list[Change] = []
    for path in sorted({each.path for each in made.changes}):
        if identify(files[path]) in _ARCHIVES:
            offsets = [each.offset for each in made.changes if each.path == path]
            for each in sum_places(files[path], offsets):
                value = each.value(files[path], partial(made.apply, path))
                items = np.array([value], "<u4")
                sums += [Change(path, place, _FIRST, items) for place in each.places]
    return replace(made, changes=(*made.changes, *sums))


def embedded(tensors: Sequence[Tensor], seed: bytes, parameters: WeightParameters) -> Embedded:
    """Make the mark: the smallest change in proportion that puts every bit past the margin.

    Raises:
        UsageError: `mark.model`, when a registered tensor is not there or not of floats;
            `mark.room`, when the weights cannot carry it; `mark.parameters`.
    """
    drawn = _drawn(seed, demanded(parameters))
    homes = [_demanded_home(each) for each in _homes(tensors, parameters)]
    before = [_values(tensor, at) for tensor, at in zip(homes, drawn.at, strict=True)]
    exact = [each.copy() for each in before]  # rounding each step again would swallow small ones
    after = before
    for _ in range(_ROUNDS):
        scaled = [_scaled(each) for each in after]
        sums, squares = _sums(drawn, scaled)
        wanted = parameters.margin * np.sqrt(squares)
        if np.all((sums >= wanted) & (squares > 0.0)):
            return _compared(homes, drawn, before, after)
        room = drawn.summed([np.abs(each) * (np.abs(each) < _CLIP) for each in scaled])
        lacking = np.where(sums < wanted, _OVERSHOOT * wanted - sums, 0.0)
        step = np.minimum(lacking / np.maximum(room, 1e-30), _STEP_MAX)
        exact = [
            each + np.abs(each) * signs * step[bits]
            for each, signs, bits in zip(exact, drawn.signs, drawn.bits, strict=True)
        ]
        after = [
            np.where(new == old, old, _rounded(new, tensor.place.dtype))
            for new, old, tensor in zip(exact, before, homes, strict=True)
        ]
    raise UsageError(
        "mark.room",
        "the weights cannot carry the mark: too many of them are zero or equal",
        hint="register it with fewer bits, or use a trigger set",
    )


@dataclass(frozen=True, slots=True)
class _Drawn:
    """What the seed says, tensor by tensor: numbers of items, their bits and signs."""

    count: int
    at: list[Array]
    bits: list[Array]
    signs: list[Array]

    def summed(self, values: Sequence[Array]) -> Array:
        """Sums over each bit's positions."""
        total = np.zeros(self.count)
        for bits, each in zip(self.bits, values, strict=True):
            total += np.bincount(bits, weights=each, minlength=self.count)
        return total


def _drawn(seed: bytes, parameters: WeightParameters) -> _Drawn:
    count = parameters.bits * parameters.positions
    weights = sum(each.items for each in parameters.tensors)
    at = drawn_positions(seed, "weights/positions", count, limit=weights)
    signs = drawn_signs(seed, "weights/signs", count)
    order = np.argsort(at, kind="stable")
    at, signs, bits = at[order], signs[order], (np.arange(count) % parameters.bits)[order]
    starts = np.cumsum([0, *(each.items for each in parameters.tensors)])
    cuts = np.searchsorted(at, starts)
    pieces = list(zip(cuts[:-1], cuts[1:], starts, strict=False))
    return _Drawn(
        count=parameters.bits,
        at=[at[low:high] - start for low, high, start in pieces],
        bits=[bits[low:high] for low, high, _ in pieces],
        signs=[signs[low:high] for low, high, _ in pieces],
    )


def _sums(drawn: _Drawn, scaled: Sequence[Array]) -> tuple[Array, Array]:
    """Per bit: the sum that is its statistic, and the square of its spread under the null."""
    signed = [sign * each for sign, each in zip(drawn.signs, scaled, strict=True)]
    return drawn.summed(signed), drawn.summed([each * each for each in scaled])


def _scaled(values: Array) -> Array:
    """In units of the mean size, so that no tensor and no outlier outweighs the others."""
    size = float(np.mean(np.abs(values))) if len(values) else 0.0
    scaled: Array = np.clip(values / size, -_CLIP, _CLIP) if size > 0.0 else np.zeros(len(values))
    return scaled


def _matched(tensors: Sequence[Tensor], parameters: WeightParameters) -> list[Tensor | None]:
    """A suspect's tensors: those of the same name and size, else in order those of that size."""
    found = _homes(tensors, parameters)
    used = {id(each) for each in found}
    left = [each for each in tensors if id(each) not in used]
    for number, wanted in enumerate(parameters.tensors):
        if found[number] is None:
            same = next((each for each in left if each.items == wanted.items), None)
            found[number] = same
            left = [each for each in left if each is not same]
    return found


def _homes(tensors: Sequence[Tensor], parameters: WeightParameters) -> list[Tensor | None]:
    """The registered tensors by name and size; of several alike, the first is taken first."""
    named: dict[tuple[str, int], list[Tensor]] = {}
    for each in tensors:
        named.setdefault((each.place.name, each.items), []).append(each)
    return [
        (named.get((each.name, each.items)) or [None]).pop(0)  # type: ignore[list-item]
        for each in parameters.tensors
    ]


def _demanded_home(tensor: Tensor | None) -> Tensor:
    if tensor is None or tensor.place.dtype not in _FLOATS:
        raise UsageError(
            "mark.model",
            "the model does not have the tensors that this mark was registered for",
            hint="`modelkeep watermark new` registers a mark for one model's layout",
        )
    return tensor


def _compared(
    homes: Sequence[Tensor], drawn: _Drawn, before: Sequence[Array], after: Sequence[Array]
) -> Embedded:
    """What is to be written, and how much that changes."""
    changes = []
    square = whole = largest = 0.0
    for tensor, at, old, new in zip(homes, drawn.at, before, after, strict=True):
        moved = np.flatnonzero(old != new)
        if len(moved):
            items = _encoded(new[moved], tensor.place.dtype)
            changes.append(Change(tensor.path, tensor.place.offset, at[moved], items))
            size = float(np.mean(np.abs(old)))
            largest = max(largest, float(np.max(np.abs(new - old))) / size)
        square += float(np.sum((new - old) ** 2))
        whole += _square_sum(tensor)
    return Embedded(
        changes=tuple(changes),
        weights=sum(each.items for each in homes),
        changed=sum(len(each.at) for each in changes),
        relative_change=float(np.sqrt(square / whole)) if whole else 0.0,
        largest_change=largest,
    )


def _square_sum(tensor: Tensor) -> float:
    return sum(float(np.dot(each, each)) for each in _blocks(tensor))


def _blocks(tensor: Tensor) -> Iterator[Array]:
    """All values of a tensor, a megabyte of items at a time."""
    step = 1 << 20
    for start in range(0, tensor.items, step):
        yield _values(tensor, slice(start, start + step))


def _overlay(buffer: Array, start: int, change: Change) -> None:
    """Write the items that lie, even in part, in a buffer that begins at `start` of the file."""
    size = change.items.itemsize
    first = (start - change.offset) // size  # it may begin before
    low, high = np.searchsorted(
        change.at, [max(first, 0), -(-(start + len(buffer) - change.offset) // size)]
    )
    if low >= high:
        return
    at = change.offset - start + change.at[low:high] * size
    raw = change.items[low:high].view(np.uint8).reshape(-1, size)
    for byte in range(size):
        where = at + byte
        inside = (where >= 0) & (where < len(buffer))
        buffer[where[inside]] = raw[inside, byte]


def _is_able(tensor: Tensor) -> bool:
    """Whether a tensor may carry a mark: gains and biases are few and matter much."""
    is_matrix = len(tensor.place.shape) > 1 and tensor.items >= _ITEMS_MIN
    return tensor.place.dtype in _FLOATS and (is_matrix or tensor.items >= _FLAT_ITEMS_MIN)


def _values(tensor: Tensor, at: Array | slice) -> Array:
    """Some items as float64; what is no finite number counts as zero."""
    place = tensor.place
    stored = np.frombuffer(tensor.view, _stored(place.dtype), tensor.items, place.offset)[at]
    if place.dtype == "BF16":
        stored = (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
    values: Array = np.nan_to_num(stored.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    if place.dtype == "UINT8":  # of quantised weights zero is somewhere in the middle
        values = values - np.round(np.mean(values)) if len(values) else values
    return values


def _encoded(values: Array, dtype: str) -> Array:
    """Items as they are stored, as integers; the values are exact in their type."""
    if dtype == "BF16":
        words: Array = (values.astype(np.float32).view(np.uint32) >> np.uint32(16)).astype("<u2")
        return words
    stored = values.astype(NUMPY_BY_DTYPE[dtype])
    return stored.view(f"<u{stored.itemsize}")


def _rounded(values: Array, dtype: str) -> Array:
    """To the nearest number that the type has."""
    if dtype == "BF16":
        words = values.astype(np.float32).view(np.uint32)
        odd = (words >> np.uint32(16)) & np.uint32(1)
        words = (words + np.uint32(0x7FFF) + odd) & np.uint32(0xFFFF0000)
        return words.view(np.float32).astype(np.float64)
    return values.astype(NUMPY_BY_DTYPE[dtype]).astype(np.float64)


def _stored(dtype: str) -> np.dtype[np.generic]:
    return np.dtype("<u2") if dtype == "BF16" else NUMPY_BY_DTYPE[dtype]


def _item_bytes(dtype: str) -> int:
    return int(_stored(dtype).itemsize)
