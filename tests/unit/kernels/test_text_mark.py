"""The text mark's coins: those of transformers' hash, fair for every text, each counted once."""

import numpy as np  # noqa: I001
import pytest
from hypothesis import given
from hypothesis import strategies as st
from marked_texts import marked_text, plain_text

from modelkeep.core.errors import UsageError
from modelkeep.kernels import text_mark
from modelkeep.kernels.tails import binomial_tail, randomised_tail
from modelkeep.kernels.text_mark import CELLS, TextParameters, tally, text_key
import functools
import operator

SEED = bytes(range(32))
KEY = text_key(SEED, TextParameters())


def p_value(texts, key=KEY) -> float:
    found = tally(texts, key)
    return binomial_tail(found.hits, found.trials, 0.5)


def seed(number: int) -> bytes:
    return number.to_bytes(32, "big")


def excess(p_values) -> float:
    """One-sided Kolmogorov-Smirnov: how far small p-values are too many, in sqrt(n) units."""
    ordered = np.sort(p_values)
    steps = np.arange(1, len(ordered) + 1) / len(ordered)
    return float(np.sqrt(len(ordered)) * (steps - ordered).max())


def test_cells_are_those_that_transformers_finds():
    """`compute_g_values` of transformers 5.23 over a table that holds the numbers of its cells."""
    key = text_key(SEED, TextParameters(depth=3))
    assert key.layers.tolist() == [591000748279, 999050724823, 423700340019]
    ids = np.array([0, 1, 2, 3, 49151, 7, 2**31, 12345, 31, 0, 0, 5])
    grams = np.lib.stride_tricks.sliding_window_view(ids, 5)
    assert text_mark.cells_of(grams, key.layers).tolist() == [
        [483964, 130514, 117878],
        [594827, 241377, 228309],
        [527655, 174205, 161569],
        [10060, 705183, 692547],
        [719546, 366096, 353460],
        [478171, 124721, 112085],
        [910754, 557304, 544668],
        [84349, 779472, 766836],
    ]


def test_the_coins_of_a_seed_are_the_same_for_ever():
    assert "".join(map(str, KEY.coins[:32])) == "00010101011110111101110000110000"
    assert int(KEY.coins.sum(dtype=np.int64)) == 523697
    deeper = text_key(SEED, TextParameters(depth=30))
    assert deeper.layers[:20].tolist() == KEY.layers.tolist()


def test_the_number_of_cells_is_a_prime():
    assert all(CELLS % each for each in range(2, 1025))


def test_a_marked_text_is_found_with_its_seed_and_with_no_other():
    text = marked_text(np.random.default_rng(1), KEY, 200)
    assert p_value([text]) < 1e-12
    others = [p_value([text], text_key(seed(each), TextParameters())) for each in range(20)]
    assert min(others) > 1e-4


def test_marked_words_among_many_others_are_found():
    rng = np.random.default_rng(2)
    pieces = [plain_text(rng, 300), marked_text(rng, KEY, 200), plain_text(rng, 300)]
    assert p_value([functools.reduce(operator.iadd, pieces, [])]) < 1e-6


def test_several_short_answers_are_one_piece_of_evidence():
    rng = np.random.default_rng(3)
    answers = [marked_text(rng, KEY, 20) for _ in range(12)]
    assert p_value(answers[:1]) > 1e-6
    assert p_value(answers) < 1e-12


def test_what_is_said_again_is_not_counted_again():
    text = marked_text(np.random.default_rng(4), KEY, 100)
    once, often = tally([text], KEY), tally([text] * 50, KEY)
    assert (often.hits, often.trials) == (once.hits, once.trials)
    assert often.tokens == 50 * once.tokens


def test_a_text_ends_at_its_end_token_and_two_texts_are_not_one():
    text = plain_text(np.random.default_rng(5), 40)
    whole = tally([text], KEY)
    assert tally([[*text, 2, *text[::-1]]], KEY, end=2) == whole
    assert tally([text[:20], text[20:]], KEY).trials == whole.trials - 4 * len(KEY.layers)


def test_of_n_grams_with_the_same_context_the_first_counts():
    grams = text_mark.fresh_ngrams(np.array([5, 6, 7, 8, 1, 5, 6, 7, 8, 2]))
    assert [5, 6, 7, 8, 1] in grams.tolist()
    assert [5, 6, 7, 8, 2] not in grams.tolist()


@pytest.mark.parametrize("words", [3, 20, 5_000])
@pytest.mark.verify("text-watermark")
def test_without_the_mark_p_values_are_uniform_whatever_the_text(count, words):
    """Over many seeds, of one text each: also of texts that say the same few words again."""
    rng = np.random.default_rng(6)
    p_values = []
    for number in range(count(60, full=3_000)):
        found = tally([rng.integers(3, 3 + words, 300)], text_key(seed(number), TextParameters()))
        p_values.append(randomised_tail(found.hits, found.trials, 0.5, rng.random()))
    assert excess(p_values) < 1.95  # one in 2,000 by chance; the numbers are fixed
    assert min(p_values) > 1e-6


def test_less_than_an_n_gram_is_no_trial():
    assert tally([[], [1, 2, 3, 4]], KEY).trials == 0


@given(st.lists(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=30), max_size=4))
def test_no_ids_do_anything_but_give_a_tally(texts):
    found = tally(texts, KEY, end=2)
    assert 0 <= found.hits <= found.trials <= CELLS
    assert found.tokens <= sum(map(len, texts))


@pytest.mark.parametrize("text", [[1.5] * 9, ["a"] * 9, [[1], [2, 3]], [[1, 2]], 7, [2**70] * 9])
def test_what_is_no_list_of_ids_is_refused(text):
    with pytest.raises(UsageError, match="ids"):
        tally([text], KEY)


def test_texts_are_bounded(monkeypatch):
    monkeypatch.setattr(text_mark, "TOKENS_MAX", 20)
    assert tally([[5] * 10] * 2, KEY).tokens == 20
    with pytest.raises(UsageError, match="more than 20"):
        tally([[5] * 10, [5] * 11], KEY)


@pytest.mark.parametrize("depth", [0, -1, 65])
def test_depth_is_bounded(depth):
    with pytest.raises(UsageError) as caught:
        text_key(SEED, TextParameters(depth=depth))
    assert caught.value.code == "mark.parameters"
