"""Drawing the next token: what may come, how often, and that the same chance gives the same."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import UnavailableError
from modelkeep.kernels.text_sampling import Sampling, drawn

scores = st.lists(st.floats(-30, 30, width=32) | st.just(-np.inf), min_size=1, max_size=60).filter(
    lambda rows: any(np.isfinite(rows))
)
chances = st.floats(0, 1, exclude_max=True)
ways = st.builds(
    Sampling,
    temperature=st.sampled_from((0.0, 0.01, 0.7, 1.0, 2.0)),
    top_p=st.floats(0.01, 1.0),
    top_k=st.integers(0, 70),
)


def allowed_slowly(row, way):
    """The tokens that may come, as the definition says it: sort everything, cut, cut."""
    heat = way.temperature
    weights = np.exp((row.astype(np.float64) - np.float64(row.max())) / heat)
    order = sorted(range(len(row)), key=lambda token: (-weights[token], token))
    order = order[: way.top_k or len(order)]
    total, kept = weights[order].sum(), []
    if way.top_p >= 1:
        return set(order)
    for token in order:
        if kept and weights[kept].sum() >= way.top_p * total * (1 + 1e-12):
            break
        kept.append(token)
    return set(kept)


@given(scores, ways, chances)
def test_a_token_that_may_not_come_never_comes(rows, way, chance):
    row = np.array(rows, np.float32)
    token = drawn(row, way, chance, {})
    assert np.isfinite(row[token])
    assert token == drawn(row, way, chance, {})
    if way.temperature == 0:
        assert token == int(row.argmax())
    else:
        assert token in allowed_slowly(row, way)


def test_tokens_come_as_often_as_their_probability_says():
    row = np.log(np.array([0.5, 0.25, 0.125, 0.125], np.float32))
    many = Counter(drawn(row, Sampling(), (at + 0.5) / 1000, {}) for at in range(1000))
    assert [many[token] for token in range(4)] == [500, 250, 125, 125]
    cut = Counter(drawn(row, Sampling(top_p=0.7), (at + 0.5) / 999, {}) for at in range(999))
    assert [cut[token] for token in range(4)] == [666, 333, 0, 0]


def test_a_large_vocabulary_is_cut_where_the_definition_cuts_it():
    row = np.random.default_rng(3).normal(0, 0.3, 40_000).astype(np.float32)
    for way in (Sampling(top_p=0.97), Sampling(top_p=0.2), Sampling(top_k=5000, top_p=0.9)):
        weights = np.exp(row.astype(np.float64) - row.max())
        order = np.argsort(-weights, kind="stable")[: way.top_k or len(row)]
        together = np.cumsum(weights[order])
        kept = order[: int(np.searchsorted(together, way.top_p * together[-1])) + 1]
        assert drawn(row, way, 0.999999999, {}) == kept[-1]
        assert drawn(row, way, 0.0, {}) == kept[0]


def test_what_was_said_becomes_less_likely_by_the_penalties():
    row = np.array([1.0, 0.9, 0.0], np.float32)
    greedy = Sampling(temperature=0, presence_penalty=0.05, frequency_penalty=0.06)
    assert drawn(row, greedy, 0, {}) == 0
    assert drawn(row, greedy, 0, {0: 1}) == 1
    assert drawn(row, greedy, 0, {0: 1, 1: 1}) == 0
    assert row[0] == 1.0


@pytest.mark.parametrize("bad", [[np.nan, 1.0], [-np.inf, -np.inf], [np.inf, 0.0]])
def test_scores_that_are_no_numbers_are_an_error(bad):
    with pytest.raises(UnavailableError, match=r"runtime\.scores"):
        drawn(np.array(bad, np.float32), Sampling(), 0.5, {})
