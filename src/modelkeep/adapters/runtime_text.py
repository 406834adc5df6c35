"""Many texts from one language model at once: what the embedded runtime does between two steps.

    ask(key, request) ... step() -> what was said ... step() -> ...

Theory of operation. A request becomes one stream for each prompt and choice. `gate.text_turns` says
which tokens of which streams the next step computes, `runtime_text_batch` computes them in one
forward pass, `kernels.text_sampling` draws the next token of each stream, `kernels.text_pieces`
turns tokens into text that may leave. Between any two steps streams join, leave and are cancelled;
nobody waits for the slowest of a batch.

A stream's chances come from its own generator, made of the request's seed, the prompt's number and
the choice's: what a stream says depends on nobody who was computed beside it.

Single-threaded use. A step takes as long as one forward pass of at most `chunks_alone` chunks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

from modelkeep.adapters.memory_room import memory_room
from modelkeep.adapters.runtime_text_load import LoadedText
from modelkeep.adapters.runtime_text_streams import Ended, Failed, Job, Said, Spoken, Stream
from modelkeep.core.errors import KeepError, UnavailableError, UsageError
from modelkeep.core.text import (
    CHOICES_MAX,
    MESSAGES_MAX,
    PROMPTS_MAX,
    STOP_CHARS_MAX,
    STOPS_MAX,
    TextKind,
    TextRequest,
)
from modelkeep.gate.text_turns import Share, TurnBounds, Turns
from modelkeep.kernels.text_sampling import drawn

# A token of ordinary text has four characters, of a row of blanks over a hundred: longer prompts
# are refused before they are turned into tokens, which costs time.
CHARS_PER_TOKEN_MAX = 128
# Streams that wait for each one that is computed.
QUEUE_PER_STREAM = 8
# Texts that wait to become vectors, which takes one step each and no place.
VECTORS_QUEUE = 16 * PROMPTS_MAX
# Of a batch of texts that become vectors, padded.
_VECTOR_TOKENS = 2048
# Of the memory that is free, what keys and values may take.
_ROOM_SHARE = 0.6


class TextRuntime:
    """One loaded model and the streams that it computes."""

    def __init__(self, loaded: LoadedText, *, streams_max: int, context_max: int) -> None:
        """Prove that the model can be computed stream by stream.

        Raises:
            UsageError: `text.architecture`.
            UnavailableError: `memory.full`.
        """
        self.context_max = min(context_max, loaded.context_max)
        self._loaded = loaded
        self._jobs: dict[Hashable, Job] = {}
        self._streams: dict[int, Stream] = {}
        self._numbers = 0
        self._vectors: deque[Stream] = deque()
        self._said: list[Said] = []
        self._rows_multiple = 1
        self.room_bytes = 0
        room_tokens = streams_max * self.context_max
        if loaded.speaks:
            token_bytes = self._prove()
            room_tokens = _room_tokens(room_tokens, token_bytes, self.context_max)
            self.room_bytes = room_tokens * token_bytes
        self._turns = Turns(
            TurnBounds(
                streams_max=streams_max,
                queue_max=max(QUEUE_PER_STREAM * streams_max, PROMPTS_MAX)
                if loaded.speaks
                else VECTORS_QUEUE,
                room_tokens_max=room_tokens,
            )
        )

    @property
    def is_busy(self) -> bool:
        """Whether there is something to compute, or to say."""
        return bool(self._streams or self._vectors or self._said)

    @property
    def speaks(self) -> bool:
        """Whether the model makes text; else it makes vectors only."""
        return self._loaded.speaks

    @property
    def has_template(self) -> bool:
        """Whether conversations can be turned into a prompt."""
        return self._loaded.speaks and self._loaded.tokens.has_template

    @property
    def is_exact(self) -> bool:
        """Whether a stream's scores are the same to the last bit in every company."""
        return self._rows_multiple > 1

    # ---- what is asked ---------------------------------------------------------------------------

    def ask(self, key: Hashable, request: TextRequest) -> None:
        """Take a request; what comes of it is said by `step` under the same key.

        Raises:
            UsageError: `text.request`, `text.kind`, `text.template` or `text.context`.
            UnavailableError: `text.busy`.
        """
        _demand_bounds(request)
        wants_vectors = request.kind == TextKind.EMBEDDING
        if not self._loaded.speaks and not wants_vectors:
            raise UsageError(
                "text.kind", "this model makes no text", hint="it answers /v1/embeddings"
            )
        # Before its tokens are counted, which costs time.
        self._turns.demand_places(len(self._vectors) + request.answers)
        self._demand_short(request)
        prompts, most = [], []
        for tokens in self._prompts(request):  # one by one: the first that is too long is the last
            most.append(self._tokens_max(request, tokens))
            prompts.append(tokens)
        job = Job(key, wants_vectors=wants_vectors, prompt_tokens=sum(map(len, prompts)))
        self._jobs[key] = job
        for number, (prompt, tokens_max) in enumerate(zip(prompts, most, strict=True)):
            for choice in range(1 if wants_vectors else request.choices):
                self._add(job, request, prompt, place=(number, choice), tokens_max=tokens_max)

    def cancel(self, key: Hashable) -> None:
        """Forget a request at once; nothing more is said of it."""
        job = self._jobs.pop(key, None)
        if job is None:
            return
        for stream in job.streams:
            self._forget(stream)
        self._said = [each for each in self._said if each.key != key]

    def _demand_short(self, request: TextRequest) -> None:
        """Refuse texts that cannot fit, whatever their tokens are.

        Raises:
            UsageError: `text.context`.
        """
        chars = [sum(len(each.content) for each in request.messages), *map(len, request.prompts)]
        if max(chars) > CHARS_PER_TOKEN_MAX * self.context_max:
            raise _too_long(self.context_max)

    def _prompts(self, request: TextRequest) -> Iterator[list[int]]:
        """The tokens of every prompt."""
        tokens = self._loaded.tokens
        if request.kind == TextKind.CHAT:
            yield tokens.of_chat(request.messages)
            return
        for each in request.prompts:
            yield tokens.of_text(each)

    def _tokens_max(self, request: TextRequest, prompt: Sequence[int]) -> int:
        """How many tokens may follow a prompt."""
        if not prompt:
            raise UsageError("text.request", "there is no text to go on from")
        if request.kind == TextKind.EMBEDDING:
            if len(prompt) > self.context_max:
                raise _too_long(self.context_max, len(prompt))
            return 0
        free = self.context_max - len(prompt)
        if free < max(1, request.max_tokens):
            raise _too_long(self.context_max, len(prompt), request.max_tokens)
        return request.max_tokens or free

    def _add(
        self,
        job: Job,
        request: TextRequest,
        prompt: list[int],
        *,
        place: tuple[int, int],
        tokens_max: int,
    ) -> None:
        self._numbers = number = self._numbers + 1
        stream = Stream.of(
            job, request, prompt, number=number, place=place, tokens_max=tokens_max,
            decode=self._loaded.tokens.decoded,
        )  # fmt: skip
        if not self._loaded.speaks:
            self._vectors.append(stream)
            return
        self._streams[number] = stream
        room = len(prompt) + tokens_max
        self._turns.arrive(number, prompt_tokens=len(prompt), room_tokens=room)

    # ---- what is computed ------------------------------------------------------------------------

    def step(self) -> list[Said]:
        """Compute one step; what was said since the last one, in order."""
        try:
            if self._vectors:
                self._encode()
            elif self._streams:
                self._speak()
        except MemoryError as error:
            self._fail_all(UnavailableError("runtime.failed", f"no memory: {error!s:.100}"))
        said, self._said = self._said, []
        return said

    def _speak(self) -> None:
        from modelkeep.adapters.runtime_text_batch import (  # noqa: PLC0415  # torch
            Segment,
            StreamCache,
            packed,
        )

        for number in self._turns.joined():
            stream = self._streams[number]
            stream.cache = StreamCache(len(stream.prompt) + stream.tokens_max)
        shares = self._turns.step()
        segments, wanted, ends = [], [], []
        rows = 0
        for share in shares:
            stream = self._streams[share.stream]
            tokens = stream.tokens[share.start : share.start + share.length]
            segments.append(Segment(stream.cache, share.start, tokens))
            rows += share.length
            ends.append(rows)
            if share.is_last and not stream.job.wants_vectors:
                wanted.append(rows - 1)
        hidden = any(self._streams[each.stream].job.wants_vectors for each in shares)
        try:
            scores, states = packed(
                self._loaded.model,
                segments,
                wanted,
                rows_multiple=self._rows_multiple,
                hidden=hidden,
            )
        except UnavailableError as error:
            for share in shares:
                self._fail(self._streams.get(share.stream), error)
            return
        self._take(shares, ends, scores, states)

    def _take(self, shares: Sequence[Share], ends: Sequence[int], scores: Any, states: Any) -> None:
        """Go on with every stream by what the step gave."""
        row = 0
        for share, end in zip(shares, ends, strict=True):
            stream = self._streams.get(share.stream)
            if stream is not None and stream.job.wants_vectors:
                part = states[end - share.length : end]
                stream.add_states(part, is_last=share.is_last, pooling=self._loaded.pooling)
                if share.is_last:
                    self._finish(stream, "")
                continue
            if not share.is_last:
                continue
            if stream is not None:  # else it failed with a sibling in this very step
                self._draw(stream, scores[row])
            row += 1

    def _draw(self, stream: Stream, scores: Any) -> None:
        try:
            token = drawn(scores, stream.sampling, stream.chance(), stream.said)
        except KeepError as error:
            self._fail(stream, error)
            return
        reason = stream.take(token, is_end=token in self._loaded.ends)
        text, tokens = stream.spoken(is_over=bool(reason))
        if text:
            self._said.append(Spoken(stream.job.key, stream.index, text, tokens))
        if reason:
            self._finish(stream, reason)

    def _encode(self) -> None:
        """Vectors of texts from a model that reads both ways: the next few of about one length."""
        from modelkeep.adapters.runtime_text_batch import encoded  # noqa: PLC0415  # torch

        longest = len(self._vectors[0].prompt)
        batch: list[Stream] = []
        for stream in list(self._vectors):
            width = max(longest, len(stream.prompt))
            if batch and width * (len(batch) + 1) > _VECTOR_TOKENS:
                break
            longest = width
            batch.append(self._vectors.popleft())
        try:
            states = encoded(self._loaded.model, [each.prompt for each in batch])
        except UnavailableError as error:
            for stream in batch:
                self._fail(stream, error)
            return
        for stream, part in zip(batch, states, strict=True):
            stream.add_states(part, is_last=True, pooling=self._loaded.pooling)
            self._finish(stream, "")

    # ---- the ends of streams ---------------------------------------------------------------------

    def _finish(self, stream: Stream, reason: str) -> None:
        self._forget(stream)
        job = stream.job
        job.reasons[stream.index] = reason
        job.completion_tokens += stream.count
        if len(job.reasons) < len(job.streams):
            return
        self._jobs.pop(job.key, None)
        order = sorted(job.reasons)
        self._said.append(
            Ended(
                job.key,
                () if job.wants_vectors else tuple(job.reasons[each] for each in order),
                job.prompt_tokens,
                job.completion_tokens,
                tuple(each.vector for each in job.streams) if job.wants_vectors else (),
            )
        )

    def _fail(self, stream: Stream | None, error: KeepError) -> None:
        if stream is None or stream.job.key not in self._jobs:
            return
        self.cancel(stream.job.key)
        self._said.append(Failed(stream.job.key, error))

    def _fail_all(self, error: KeepError) -> None:
        for job in list(self._jobs.values()):
            self._fail(job.streams[0], error)

    def _forget(self, stream: Stream) -> None:
        self._streams.pop(stream.number, None)
        self._turns.leave(stream.number)
        stream.cache = None
        if stream in self._vectors:
            self._vectors.remove(stream)

    # ---- before anybody asks ---------------------------------------------------------------------

    def _prove(self) -> int:
        """Hold the packed pass against the model as it is; bytes that one token takes in a cache.

        Raises:
            UsageError: `text.architecture`.
        """
        from modelkeep.adapters.runtime_text_trial import proven  # noqa: PLC0415  # torch

        self._rows_multiple, token_bytes = proven(self._loaded.model)
        return token_bytes


def _room_tokens(wanted: int, token_bytes: int, context_max: int) -> int:
    """As many as are wanted, or as memory has room for.

    Raises:
        UnavailableError: `memory.full`.
    """
    available = memory_room().available_bytes
    if available < 0:
        return wanted
    fitting = int(available * _ROOM_SHARE) // token_bytes
    if fitting < context_max:
        raise UnavailableError(
            "memory.full",
            f"one text of {context_max} tokens needs {context_max * token_bytes} bytes beside the "
            f"model, {available} are free",
            hint="free some memory, or lower the context of this model",
        )
    return min(wanted, fitting)


def _demand_bounds(request: TextRequest) -> None:
    """Hold a request against what any surface lets through; a gateway is not trusted here.

    Raises:
        UsageError: `text.request`.
    """
    is_chat = request.kind == TextKind.CHAT
    if not (
        1 <= request.choices <= CHOICES_MAX
        and len(request.prompts) <= PROMPTS_MAX
        and len(request.messages) <= MESSAGES_MAX
        and len(request.stop) <= STOPS_MAX
        and all(0 < len(each) <= STOP_CHARS_MAX for each in request.stop)
        and request.max_tokens >= 0
        and 0 <= request.temperature <= 100
        and 0 < request.top_p <= 1
        and request.top_k >= 0
        and abs(request.presence_penalty) <= 2
        and abs(request.frequency_penalty) <= 2
        and (bool(request.messages) if is_chat else bool(request.prompts))
    ):
        raise UsageError("text.request", "a number or a list of the request is out of its bounds")


def _too_long(context_max: int, prompt_tokens: int = 0, max_tokens: int = 0) -> UsageError:
    given = f"{prompt_tokens} tokens" if prompt_tokens else "far more"
    wanted = f" and {max_tokens} are asked for" if max_tokens else ""
    return UsageError(
        "text.context",
        f"this model takes {context_max} tokens together; the prompt has {given}{wanted}",
        hint="shorten the prompt, or ask for fewer tokens",
    )
