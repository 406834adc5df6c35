"""Which earlier file a new one may be stored as a delta to, chunk by chunk.

A base is a file with tensors of the same names, types and shapes. Of those that are known, the one
whose sampled chunks encode smallest against it is taken, if that beats encoding them alone. A base
is itself never a delta: where an earlier file is one, its own base takes its place (depth 1).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from modelkeep.core.artifact import TensorEntry
from modelkeep.kernels.digest import keyed_id
from modelkeep.kernels.encoding import sampled_cost
from modelkeep.kernels.tensors import TensorPlace

# Files that are compared by sampling, and chunks that are sampled of each.
CANDIDATES_MAX = 4
SAMPLES = 6
# A base pays when its sampled cost is below this share of encoding alone: a delta costs a read.
PAYS_BELOW = 0.97
# Of a file's bytes, how many must be in tensors that the base has too.
SHARED_MIN = 0.5

Chunks = Sequence[tuple[bytes, int]]
Tensors = Sequence[TensorPlace | TensorEntry]
Fetch = Callable[[bytes], memoryview | None]
ReadInto = Callable[[int, memoryview], None]


@dataclass(frozen=True, slots=True)
class Known:
    """A file that is stored already: where its tensors lie, and its chunks in order."""

    tensors: Tensors
    chunks: Chunks


def layout_id(key: bytes, tensors: Tensors) -> bytes:
    """A keyed digest of names, types and shapes: equal for a model and its fine-tunes.

    Empty for a file without tensors.
    """
    if not tensors:
        return b""
    rows = sorted(repr((each.name, each.dtype, tuple(each.shape))) for each in tensors)
    return keyed_id(key, "\n".join(rows).encode())[:16]


def aligned(
    cuts: Sequence[tuple[int, int]], tensors: Tensors, base: Known
) -> dict[int, tuple[bytes, str]]:
    """For each chunk of a new file that lies where the base has one too: its base.

    Args:
        cuts: start and length of the new file's chunks.

    Returns:
        start of the chunk -> (id of the base's chunk, dtype of the tensor).
    """
    at, starts = 0, {}
    for chunk_id, length in base.chunks:
        starts[at] = (chunk_id, length)
        at += length
    theirs = {_key(each): each.offset for each in base.tensors}
    ours = [each for each in tensors if each.length]
    offsets = [each.offset for each in ours]
    found: dict[int, tuple[bytes, str]] = {}
    for start, length in cuts:
        place = bisect_right(offsets, start) - 1
        if place < 0 or start >= ours[place].offset + ours[place].length:
            continue
        tensor = ours[place]
        offset = theirs.get(_key(tensor), -1)
        chunk_id, same = starts.get(offset + start - tensor.offset, (b"", -1))
        if offset >= 0 and same == length:
            found[start] = (chunk_id, tensor.dtype)
    return found


def chosen(
    read_into: ReadInto,
    cuts: Sequence[tuple[int, int]],
    tensors: Tensors,
    candidates: Sequence[Known],
    *,
    fetch: Fetch,
) -> dict[int, bytes]:
    """Choose a base for a file: start of a chunk -> id of the chunk that it is a delta to.

    Args:
        read_into: copies the file's bytes from an offset on.
        candidates: the most likely first.
        fetch: the plaintext of a chunk that may be a base, or None.
    """
    total = sum(length for _, length in cuts)
    options = []
    for each in candidates:
        pairs = aligned(cuts, tensors, each)
        shared = sum(length for start, length in cuts if start in pairs)
        if pairs and shared >= SHARED_MIN * total:
            options.append(pairs)
        if len(options) == CANDIDATES_MAX:
            break
    best: dict[int, tuple[bytes, str]] = {}
    best_cost = PAYS_BELOW
    lengths = dict(cuts)
    for pairs in options:
        cost = _cost(read_into, lengths, pairs, fetch)
        if cost < best_cost:
            best, best_cost = pairs, cost
    return {start: chunk_id for start, (chunk_id, _) in best.items()}


def _cost(
    read_into: ReadInto, lengths: dict[int, int], pairs: dict[int, tuple[bytes, str]], fetch: Fetch
) -> float:
    """Cost against a base over cost alone, from chunks that are spread over the file."""
    starts = sorted(pairs)
    step = max(1, len(starts) // SAMPLES)
    alone = against = 0.0
    for start in starts[step // 2 :: step][:SAMPLES]:
        chunk_id, dtype = pairs[start]
        base = fetch(chunk_id)
        if base is None or len(base) != lengths[start]:
            continue
        plain = memoryview(bytearray(lengths[start]))
        read_into(start, plain)
        solo = sampled_cost(plain, dtype=dtype)
        alone += solo
        against += min(solo, sampled_cost(plain, dtype=dtype, base=base))
    return against / alone if alone else 1.0


def _key(tensor: TensorPlace | TensorEntry) -> tuple[str, str, tuple[int, ...]]:
    return tensor.name, tensor.dtype, tuple(tensor.shape)
