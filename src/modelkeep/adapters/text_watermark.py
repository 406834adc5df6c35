"""Text watermarks of language models: SynthID's sampling, as `transformers` has it.

    mark = TextMark(seed, tokenizer)
    model.generate(**prompt, do_sample=True, watermarking_config=mark.config())
    mark.verify(text).p_value

The tournament, its hash and its rule for repeated contexts are those of `transformers`. Ours are
the coins (`kernels.text_mark` says why) and one economy: coins are looked up only for tokens that
top-k or top-p have left to be drawn from. On two cores and 49,152 tokens that is the difference
between 12 ms and under 1 ms for each token of text, and between the same probabilities none.

The mark is part of sampling, not of weights: text carries it as long as the server applies it,
whatever happens to the weights, and a stolen model that is served elsewhere does not. Sampling has
to be on; beam search and assisted generation reorder what the mark's state relies on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from modelkeep.core.errors import UsageError
from modelkeep.core.record import to_json
from modelkeep.crypto.secret import Secret
from modelkeep.kernels.text_mark import (
    NGRAM,
    TextKey,
    TextParameters,
    demanded,
    tally,
    text_key,
)
from modelkeep.seal.marks import Reading

TEXTS_MAX = 1_000_000
_CHANCE = 0.5  # that a coin shows 1
_HISTORY = 1024  # contexts, after which `transformers` forgets that it has marked one


class TextMark:
    """One text mark, to be applied and to be found.

    Args:
        seed: the mark's 32 bytes.
        tokenizer: of `transformers`; of the model that is marked, in both directions.

    Raises:
        UsageError: `mark.parameters`, or `mark.tokenizer`, when the parameters name another one
            or none.
    """

    def __init__(
        self, seed: Secret, tokenizer: Any, parameters: TextParameters | None = None
    ) -> None:
        self.parameters = demanded(parameters or chosen_parameters(tokenizer))
        if self.parameters.tokenizer != tokenizer_digest(tokenizer):
            raise UsageError(
                "mark.tokenizer",
                "this mark was registered for another tokenizer",
                hint="take that of the model that was marked, and the version of its library",
            )
        self._tokenizer = tokenizer
        self._key = text_key(seed.reveal(), self.parameters)

    def __repr__(self) -> str:
        return f"TextMark({self.parameters})"

    def config(self) -> Any:
        """What `model.generate(watermarking_config=...)` takes.

        Raises:
            UsageError: `extra.missing`.
        """
        return _Config(self._key)

    def logits_processor(self, device: Any = "cpu") -> Any:
        """The last processor before sampling: a new one for each batch that is generated.

        Raises:
            UsageError: `extra.missing`.
        """
        return _processor(self._key, device)

    def verify(self, texts: str | Sequence[str] | Sequence[Sequence[int]]) -> Reading:
        """Read texts for the mark; several are one piece of evidence, each cell counted once.

        Args:
            texts: a text, several, or several lists of ids of tokens.

        Raises:
            UsageError: `mark.text`.
        """
        given = [texts] if isinstance(texts, str) else texts
        if len(given) > TEXTS_MAX:
            raise UsageError("mark.text", f"there are more than {TEXTS_MAX} texts")
        end = self._tokenizer.eos_token_id
        found = tally((self._ids(each) for each in given), self._key, end=end)
        if not found.trials:
            raise UsageError(
                "mark.text",
                f"there is no text to read: {NGRAM} tokens are the least",
                hint="200 tokens of one answer, or of several together, are a good beginning",
            )
        return Reading(hits=found.hits, trials=found.trials, chance=_CHANCE)

    def _ids(self, text: str | Sequence[int]) -> Sequence[int]:
        if isinstance(text, str):
            ids: Sequence[int] = self._tokenizer.encode(text, add_special_tokens=False)
            return ids
        return text


def chosen_parameters(tokenizer: Any) -> TextParameters:
    """What is registered for a model's tokenizer."""
    return TextParameters(tokenizer=tokenizer_digest(tokenizer))


def tokenizer_digest(tokenizer: Any) -> str:
    """SHA-256 over what decides which ids a text has, and where it ends.

    A fast tokenizer states its normaliser, its merges and its added tokens; how it cuts and pads
    batches is left out, because that changes with every call. Of any other the vocabulary is
    taken, in the order of its ids: its code decides the rest.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        words = sorted(tokenizer.get_vocab().items(), key=lambda each: (each[1], each[0]))
        stated: object = [[number, word] for word, number in words]
    else:
        stated = json.loads(backend.to_str()) | {"truncation": None, "padding": None}
    return hashlib.sha256(to_json([tokenizer.eos_token_id, stated])).hexdigest()


@dataclass(frozen=True, repr=False)
class _Config:
    """Stands where `generate` expects a watermarking configuration."""

    key: TextKey

    def validate(self) -> None:
        """Nothing to refuse: the parameters were accepted before."""

    def to_dict(self) -> dict[str, str]:
        """What is written where a generation config is saved: not the key, and nothing loads it."""
        return {"modelkeep": "a watermark, the key of which is not written"}

    def construct_processor(self, vocab_size: int, device: Any) -> Any:  # noqa: ARG002
        """A processor for one batch; `generate` calls it after all others are in place."""
        return _processor(self.key, device)


def _processor(key: TextKey, device: Any) -> Any:
    base: Any = _library().SynthIDTextWatermarkLogitsProcessor

    class Tournament(base):  # type: ignore[misc]  # known only when the library is there
        """`transformers`' processor, over the tokens that can still be drawn."""

        def __call__(self, input_ids: Any, scores: Any) -> Any:
            width = int(scores.isneginf().logical_not().sum(dim=1).max())
            self._open = scores.topk(max(width, 1), dim=1).indices
            return super().__call__(input_ids, scores)

        def _compute_keys(self, n_minus_1_grams: Any, indices: Any) -> Any:  # noqa: ARG002
            return super()._compute_keys(n_minus_1_grams, self._open)

        def update_scores(self, scores: Any, g_values: Any) -> Any:
            marked = super().update_scores(scores.gather(1, self._open), g_values)
            return scores.new_full(scores.shape, -float("inf")).scatter(1, self._open, marked)

    made = Tournament(
        ngram_len=NGRAM,
        keys=[int(each) for each in key.layers],
        sampling_table_size=1,
        sampling_table_seed=0,
        context_history_size=_HISTORY,
        device=device,
        skip_first_ngram_calls=True,  # else every answer's first token is drawn by the same coins
    )
    made.sampling_table = made.sampling_table.new_tensor(key.coins).byte()
    return made


def _library() -> Any:
    try:
        import transformers  # noqa: PLC0415

        _ = transformers.SynthIDTextWatermarkLogitsProcessor
    except (ImportError, AttributeError) as error:
        raise UsageError(
            "extra.missing",
            "text is marked through transformers and torch, which are not installed",
            hint="pip install torch, then transformers; docs/guide/text-watermarks.md",
        ) from error
    return transformers
