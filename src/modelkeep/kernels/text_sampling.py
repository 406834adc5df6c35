"""The next token of a text, from the scores that a model gives to all of them.

In this order, as OpenAI's protocol and every server that speaks it has it: penalties for what was
said already, temperature, the likeliest `top_k`, of those the likeliest that have `top_p` together,
one draw. Temperature 0 draws nothing: the likeliest token, the first of equals.

The chance comes as an argument in [0, 1), so the same scores and the same chance give the same
token. Sorting a vocabulary costs more than all the rest, so only its head is sorted, and more of it
where the head has not enough probability: between the same scores that makes no difference.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from modelkeep.core.errors import UnavailableError
from modelkeep.core.record import Record

Scores = npt.NDArray[np.float32]
# Tokens that are sorted first; of ordinary text 1,000 have 99 % together.
_HEAD = 1024


class Sampling(Record, frozen=True):
    """How tokens of one text are drawn; the fields are those of `core.text.TextRequest`."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0

    @property
    def has_penalties(self) -> bool:
        """Whether what was said already counts."""
        return self.presence_penalty != 0 or self.frequency_penalty != 0


def drawn(scores: Scores, sampling: Sampling, chance: float, said: Mapping[int, int]) -> int:
    """The next token.

    Args:
        scores: one for each token of the vocabulary; -inf for what must not come.
        chance: in [0, 1).
        said: how often the text has each token so far.

    Raises:
        UnavailableError: `runtime.scores`, when the model gave NaN, or nothing that may come.
    """
    scores = _penalised(scores, sampling, said)
    best = int(scores.argmax())  # the first NaN, if there is one
    if not np.isfinite(scores[best]):
        raise UnavailableError("runtime.scores", "the model gave scores that are no numbers")
    if sampling.temperature == 0 or sampling.top_k == 1:
        return best
    heat = np.float64(sampling.temperature)
    with np.errstate(over="ignore"):  # a temperature near 0: -inf, which is probability 0
        weights = np.exp((scores.astype(np.float64) - np.float64(scores[best])) / heat)
    if sampling.top_k == 0 and sampling.top_p >= 1:
        return _at_chance(weights, chance)
    kept = _kept(weights, sampling)
    return int(kept[_at_chance(weights[kept], chance)])


def _penalised(scores: Scores, sampling: Sampling, said: Mapping[int, int]) -> Scores:
    if not said or not sampling.has_penalties:
        return scores
    tokens = np.fromiter(said.keys(), np.int64, len(said))
    counts = np.fromiter(said.values(), np.float32, len(said))
    changed = scores.copy()
    changed[tokens] -= sampling.presence_penalty + sampling.frequency_penalty * counts
    return changed


def _kept(weights: npt.NDArray[np.float64], sampling: Sampling) -> npt.NDArray[np.int64]:
    """The tokens that may be drawn, the likeliest first, never none."""
    most = min(sampling.top_k or len(weights), len(weights))
    wanted = sampling.top_p * float(weights.sum()) if most == len(weights) else -1.0
    count = min(_HEAD, most) if wanted >= 0 else most
    while True:
        order = _likeliest(weights, count)
        if wanted < 0:  # of the likeliest k: what they have together is the whole
            wanted = sampling.top_p * float(weights[order].sum())
        together = np.cumsum(weights[order])
        enough = int(np.searchsorted(together, wanted)) + 1
        if enough <= count or count == most:
            return order[: max(1, min(enough, count))]
        count = min(16 * count, most)


def _likeliest(weights: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.int64]:
    """The `count` likeliest tokens in order; of equals the one with the smaller number first."""
    if count < len(weights):
        least = np.partition(weights, len(weights) - count)[len(weights) - count]
        above = np.flatnonzero(weights > least)
        equal = np.flatnonzero(weights == least)[: count - len(above)]
        tokens = np.concatenate((above, equal))
    else:
        tokens = np.arange(len(weights))
    return tokens[np.lexsort((tokens, -weights[tokens]))]


def _at_chance(weights: npt.NDArray[np.float64], chance: float) -> int:
    together = np.cumsum(weights)
    found = int(np.searchsorted(together, chance * together[-1], side="right"))
    return min(found, int(np.flatnonzero(weights)[-1]))
