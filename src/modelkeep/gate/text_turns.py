"""Which tokens of which streams a language model computes in its next step.

A step takes one token of every stream that is speaking, and beside them chunks of prompts. So a
new stream joins, and a finished one leaves, between any two steps, and a long prompt delays those
who speak by one chunk a step and no more. While nobody speaks, a step takes more chunks. Chunks go
round the streams that still listen, so that a short prompt does not wait behind a long one.

Chunks begin at multiples of their size, whatever else the step holds: a stream is computed in the
same portions alone as in company, which is half of why its tokens are the same (the other half is
`adapters.runtime_text_batch`).

A stream joins when there is a place among `streams_max` and room for its prompt and all that it may
say: none is ever thrown out half-way for want of room. Streams join in the order of their arrival.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from modelkeep.core.errors import UnavailableError
from modelkeep.core.record import Record


class TurnBounds(Record, frozen=True):
    """Bounds of one replica.

    Attributes:
        streams_max: streams that are computed at once.
        queue_max: streams that wait beyond those.
        room_tokens_max: of all streams that are computed, what they heard and may say together.
        chunk_tokens: of a prompt, in one portion.
        chunks_beside: portions in a step in which somebody speaks.
        chunks_alone: portions in a step in which nobody does.
    """

    streams_max: int
    queue_max: int
    room_tokens_max: int
    chunk_tokens: int = 64
    chunks_beside: int = 1
    chunks_alone: int = 4


@dataclass(frozen=True, slots=True)
class Share:
    """One stream's part of a step: `length` tokens from position `start` on.

    Attributes:
        is_last: whether the next token can be drawn after it.
    """

    stream: int
    start: int
    length: int
    is_last: bool


@dataclass(slots=True)
class _Stream:
    number: int
    prompt_tokens: int
    room_tokens: int
    at: int = 0

    @property
    def is_listening(self) -> bool:
        return self.at < self.prompt_tokens


class Turns:
    """The streams of one replica, by numbers that the caller gives."""

    def __init__(self, bounds: TurnBounds) -> None:
        self._bounds = bounds
        self._waiting: deque[_Stream] = deque()
        self._active: dict[int, _Stream] = {}
        self._listening: deque[_Stream] = deque()
        self._room_tokens = 0

    @property
    def active_count(self) -> int:
        """Streams that are computed."""
        return len(self._active)

    @property
    def waiting_count(self) -> int:
        """Streams that wait."""
        return len(self._waiting)

    def demand_places(self, count: int) -> None:
        """Refuse streams that could not even wait.

        Raises:
            UnavailableError: `text.busy`.
        """
        free = self._bounds.streams_max - len(self._active)
        if len(self._waiting) + count > self._bounds.queue_max + max(free, 0):
            raise UnavailableError(
                "text.busy", "too many texts wait for this replica", hint="try again later"
            )

    def arrive(self, number: int, *, prompt_tokens: int, room_tokens: int) -> None:
        """Let a stream wait for its turn; its room is at most what a replica has."""
        assert 0 < prompt_tokens <= room_tokens <= self._bounds.room_tokens_max
        assert number not in self._active
        self._waiting.append(_Stream(number, prompt_tokens, room_tokens))

    def leave(self, number: int) -> None:
        """Forget a stream; nothing happens if it is not there."""
        stream = self._active.pop(number, None)
        if stream is None:
            self._waiting = deque(each for each in self._waiting if each.number != number)
            return
        self._room_tokens -= stream.room_tokens
        if stream in self._listening:
            self._listening.remove(stream)

    def joined(self) -> tuple[int, ...]:
        """Let in who has waited longest, for as long as there is room; their numbers."""
        found = []
        while self._waiting and len(self._active) < self._bounds.streams_max:
            stream = self._waiting[0]
            if self._room_tokens + stream.room_tokens > self._bounds.room_tokens_max:
                break
            self._waiting.popleft()
            self._active[stream.number] = stream
            self._listening.append(stream)
            self._room_tokens += stream.room_tokens
            found.append(stream.number)
        return tuple(found)

    def step(self) -> tuple[Share, ...]:
        """The next step; it counts as computed."""
        speaking = [each for each in self._active.values() if not each.is_listening]
        shares = [Share(each.number, each.at, 1, is_last=True) for each in speaking]
        for stream in speaking:
            stream.at += 1
        bounds = self._bounds
        for _ in range(bounds.chunks_beside if speaking else bounds.chunks_alone):
            if not self._listening:
                break
            stream = self._listening.popleft()
            end = min(stream.at + bounds.chunk_tokens, stream.prompt_tokens)
            shares.append(
                Share(stream.number, stream.at, end - stream.at, end == stream.prompt_tokens)
            )
            stream.at = end
            if stream.is_listening:
                self._listening.append(stream)
        return tuple(shares)
