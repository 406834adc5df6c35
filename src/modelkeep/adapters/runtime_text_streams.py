"""One text that a model is saying, and the request that it belongs to: what the runtime keeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from modelkeep.core.errors import KeepError
from modelkeep.core.text import TextRequest
from modelkeep.kernels.text_pieces import Decode, Detokeniser, StopGuard
from modelkeep.kernels.text_sampling import Sampling


@dataclass(frozen=True, slots=True)
class Spoken:
    """The next part of one of a request's texts, made of so many tokens."""

    key: Hashable
    choice: int
    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Ended:
    """All of a request is said."""

    key: Hashable
    reasons: tuple[str, ...]
    prompt_tokens: int
    completion_tokens: int
    vectors: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """A request cannot be answered; nothing more is said of it."""

    key: Hashable
    error: KeepError


Said = Spoken | Ended | Failed


@dataclass(slots=True, eq=False)
class Job:
    """One request.

    Attributes:
        reasons: why its texts ended, by number, of those that have.
    """

    key: Hashable
    wants_vectors: bool
    prompt_tokens: int
    completion_tokens: int = 0
    streams: list[Stream] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Stream:
    """One text on its way, or one text that becomes a vector.

    Attributes:
        index: which of the request's texts.
        tokens: of the prompt, and what was drawn.
        said: how often the text has each token.
        count: tokens of the text.
    """

    number: int
    job: Job
    index: int
    prompt: list[int]
    tokens: list[int]
    tokens_max: int
    sampling: Sampling
    detokeniser: Detokeniser | None
    guard: StopGuard
    chances: np.random.Generator
    cache: Any = None
    said: Counter[int] = field(default_factory=Counter)
    count: int = 0
    vector: Any = None
    _text: str = ""
    _unsaid: int = 0

    @classmethod
    def of(
        cls,
        job: Job,
        request: TextRequest,
        prompt: list[int],
        *,
        number: int,
        place: tuple[int, int],
        tokens_max: int,
        decode: Decode,
    ) -> Stream:
        """A stream of a request, for its `place[0]`th prompt and `place[1]`th choice."""
        seed = None if request.seed is None else (request.seed % 2**64, *place)
        stream = cls(
            number=number,
            job=job,
            index=len(job.streams),
            prompt=prompt,
            tokens=list(prompt),
            tokens_max=tokens_max,
            sampling=Sampling(
                temperature=request.temperature,
                top_p=request.top_p,
                top_k=request.top_k,
                presence_penalty=request.presence_penalty,
                frequency_penalty=request.frequency_penalty,
            ),
            detokeniser=None if job.wants_vectors else Detokeniser(decode, prompt),
            guard=StopGuard(request.stop),
            chances=np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed))),
        )
        job.streams.append(stream)
        return stream

    def chance(self) -> float:
        """The next of its own chances; one for each token, also where none is needed."""
        return float(self.chances.random())

    def take(self, token: int, *, is_end: bool) -> str:
        """Go on by one token; why the text is over, or empty."""
        assert self.detokeniser is not None
        if is_end:
            self._let_through(self.detokeniser.rest())
            self._text += self.guard.rest()
            return "stop"
        self.tokens.append(token)
        self.said[token] += 1
        self.count += 1
        self._unsaid += 1
        self._let_through(self.detokeniser.text_of(token))
        is_full = self.count >= self.tokens_max
        if is_full:
            self._let_through(self.detokeniser.rest())
            self._text += self.guard.rest()
        if self.guard.is_stopped:
            return "stop"
        return "length" if is_full else ""

    def spoken(self, *, is_over: bool) -> tuple[str, int]:
        """What may leave since the last time, and how many tokens it was made of."""
        if not self._text and not is_over:
            return "", 0
        text, tokens = self._text, self._unsaid
        self._text, self._unsaid = "", 0
        return text, tokens

    def add_states(self, states: Any, *, is_last: bool, pooling: str) -> None:
        """Take the model's states of the next tokens; the vector has length 1 when all are there.

        Args:
            pooling: `mean`, `cls` (the first token's) or `last`.
        """
        wide = states.astype(np.float64)
        if pooling == "mean":
            self.vector = wide.sum(axis=0) + (0 if self.vector is None else self.vector)
        elif pooling == "last":
            self.vector = wide[-1]
        elif self.vector is None:
            self.vector = wide[0]
        if is_last:
            length = float(np.linalg.norm(self.vector))
            self.vector = (self.vector / (length or 1.0)).astype("<f4")

    def _let_through(self, text: str) -> None:
        self._text += self.guard.passed(text)
