"""The watermark of a language model's text: a coin for each n-gram and layer, and counting them.

Marking is SynthID's tournament sampling (Dathathri et al., Nature 634, 2024), done by
`transformers` while text is sampled (`adapters.text_watermark`). Each n-gram of tokens is hashed;
with a layer's key the hash becomes the number of a cell in a table of coins; tokens whose coins
show 1 are drawn more often. Reading back needs no model: hash the text, look at the coins, count.

The arithmetic is that of `SynthIDTextWatermarkLogitsProcessor`, bit for bit: from h = 1,
h = (h + token) * A + 1 modulo 2^64 for each token and once more with the layer's key, then modulo
the size of the table. It is a weak hash: affine, with a public multiplier. With the public table
that `transformers` makes by default, of 2^16 cells, a key does no more than shift it by one of
65,536 places, so keys that fit a given text can be found layer by layer; and n-grams that meet in
a cell would be counted as independent. Hence two differences:

1. The coins are the seed's, 2^20 - 3 of them, drawn by SHAKE256: the same on every device. The
   number is a prime, so all bits of the hash count.
2. Each cell is counted once, however often texts come back to it.

Null hypothesis: the seed was drawn at random, independently of the text, and which texts are read
was settled without it. Then the coins of different cells are fair and independent whatever the text
is and whatever the hash does, because which cells are looked at is settled without the coins; the
number of hits is Bin(trials, 1/2). That is exact, for one text or for many together, for people's
text and machines' alike. It is not for texts that somebody with the key has picked: of 2,000
innocent texts the 60 that read best are "found" beyond any doubt, and no key was tried for it.

The mark lives in which words follow which. It does not survive a paraphrase, a translation, or a
model whose answers leave no choice of words.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modelkeep.core.errors import UsageError
from modelkeep.core.record import Record
from modelkeep.kernels.arrays import Array
from modelkeep.kernels.mark_stream import drawn_below, drawn_bytes

NGRAM = 5  # tokens: the one that was drawn and four before it, as SynthID's authors chose
DEPTH = 20  # layers; 10 gave a seventh less evidence (z) at temperature 1, and 30 no more
DEPTH_MAX = 64
CELLS = (1 << 20) - 3  # the largest prime below 2^20; a table of 1 MiB
TOKENS_MAX = 512 * 1024  # of all texts of one reading: they come to all but 1 in 20,000 cells

Ids = npt.NDArray[np.int64]

_MULTIPLIER = np.uint64(6_364_136_223_846_793_005)
_ONE = np.uint64(1)
_PIECE = 65_536  # n-grams at once: 20 layers of them take 10 MB
_KEYS_LIMIT = 1 << 40  # keys are below the limit of `drawn_below`; they need only be different


class TextParameters(Record, frozen=True):
    """What is fixed, beside the seed, when a text mark is registered.

    Attributes:
        tokenizer: SHA-256, in hex, of the tokenizer that texts are read with; empty where ids are.
    """

    depth: int = DEPTH
    tokenizer: str = ""


@dataclass(frozen=True, slots=True)
class TextKey:
    """What a seed becomes: a key for each layer, and the coins that all layers share."""

    layers: Array
    coins: Array


@dataclass(frozen=True, slots=True)
class Tally:
    """What was counted.

    Attributes:
        hits: Bin(`trials`, 1/2), if the text has nothing of the seed.
        trials: cells that the texts come to.
        tokens: of all texts.
    """

    hits: int
    trials: int
    tokens: int


def demanded(parameters: TextParameters) -> TextParameters:
    """Accept parameters within bounds.

    Raises:
        UsageError: `mark.parameters`.
    """
    if not (1 <= parameters.depth <= DEPTH_MAX and len(parameters.tokenizer) <= 64):
        raise UsageError("mark.parameters", "these are no parameters of a text mark")
    return parameters


def text_key(seed: bytes, parameters: TextParameters) -> TextKey:
    """Expand a seed; with fewer layers, the first ones stay.

    Raises:
        UsageError: `mark.parameters`.
    """
    layers = drawn_below(seed, "text/layers", demanded(parameters).depth, limit=_KEYS_LIMIT)
    bits = np.frombuffer(drawn_bytes(seed, "text/coins", -(-CELLS // 8)), np.uint8)
    return TextKey(layers, np.unpackbits(bits, count=CELLS))


def tally(texts: Iterable[Sequence[int]], key: TextKey, *, end: int | None = None) -> Tally:
    """Count the coins of texts, given as ids of tokens.

    N-grams are looked at within a text and before its first `end`; of those with the same context
    only the first, because the others were not marked. All that depends on the text alone.

    Args:
        end: the token that ends a text.

    Raises:
        UsageError: `mark.text`, when that are no ids, or too many.
    """
    seen = np.zeros(CELLS, np.bool_)
    tokens = 0
    for text in texts:
        ids = _ids_before_end(text, end)
        tokens += len(ids)
        if tokens > TOKENS_MAX:
            raise UsageError("mark.text", f"the texts have more than {TOKENS_MAX} tokens")
        grams = fresh_ngrams(ids)
        for start in range(0, len(grams), _PIECE):
            seen[cells_of(grams[start : start + _PIECE], key.layers)] = True
    return Tally(int(key.coins[seen].sum(dtype=np.int64)), int(np.count_nonzero(seen)), tokens)


def fresh_ngrams(ids: Ids) -> Ids:
    """The n-grams of a text in their order, of those with the same context only the first."""
    if len(ids) < NGRAM:
        return np.empty((0, NGRAM), np.int64)
    grams = np.lib.stride_tricks.sliding_window_view(ids, NGRAM)
    _, firsts = np.unique(grams[:, :-1], axis=0, return_index=True)
    fresh: Ids = grams[np.sort(firsts)]
    return fresh


def cells_of(grams: Ids, layers: Array) -> Ids:
    """Which cell each n-gram comes to in each layer: (n-grams, layers)."""
    hashed = np.ones(len(grams), np.uint64)
    for column in grams.T:
        hashed = (hashed + column.astype(np.uint64)) * _MULTIPLIER + _ONE
    keyed = (hashed[:, None] + layers.astype(np.uint64)) * _MULTIPLIER + _ONE
    cells: Ids = keyed.view(np.int64) % CELLS  # torch counts in signed integers too
    return cells


def _ids_before_end(text: Sequence[int], end: int | None) -> Ids:
    try:
        ids = np.asarray(text)
    except ValueError as error:
        raise UsageError("mark.text", "a text is a list of ids of tokens") from error
    if ids.ndim != 1 or (ids.size and not np.issubdtype(ids.dtype, np.integer)):
        raise UsageError("mark.text", "a text is a list of ids of tokens")
    plain: Ids = ids.astype(np.int64)
    ends = np.flatnonzero(plain == end) if end is not None else plain[:0]
    return plain[: ends[0]] if len(ends) else plain
