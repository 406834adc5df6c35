"""Texts that carry a text mark, made without a language model."""

from __future__ import annotations

import numpy as np

from modelkeep.kernels.text_mark import NGRAM, TextKey, cells_of

VOCABULARY = 5_000


class Words:
    """A tokenizer whose words are the numbers of its tokens."""

    eos_token_id = 2

    def __init__(self, size: int = VOCABULARY) -> None:
        self.size = size

    def get_vocab(self):
        return {str(number): number for number in range(self.size)}

    def encode(self, text, *, add_special_tokens):
        assert not add_special_tokens
        return [int(word) for word in text.split()]

    def decode(self, ids):
        return " ".join(map(str, ids))


def plain_text(rng: np.random.Generator, tokens: int) -> list[int]:
    """Random words."""
    return rng.integers(3, VOCABULARY, tokens).tolist()


def marked_text(rng: np.random.Generator, key: TextKey, tokens: int, *, choice: int = 4):
    """Random words, each the best by its coins of a few: what a tournament does."""
    text = plain_text(rng, NGRAM - 1)
    while len(text) < tokens:
        offered = rng.integers(3, VOCABULARY, choice)
        context = np.tile(text[1 - NGRAM :], (choice, 1))
        grams = np.concatenate((context, offered[:, None]), axis=1)
        scores = key.coins[cells_of(grams, key.layers)].sum(axis=1, dtype=np.int64)
        text.append(int(offered[scores.argmax()]))
    return text
