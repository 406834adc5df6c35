"""Frames beside calls and answers: what a replica offers, shared memory, signs of life.

A replica that can do more than answer says so in `Offer`, before its hello. To a replica that
offers `SHARE` a gateway may hand two memory files (`Share`, with their descriptors): one that the
gateway writes calls into and the replica can only read, and one that the replica writes answers
into. Then the tensors of a large call are named by where they lie (`SharedCall`, `SharedAnswer`),
not sent. Room for a call is the gateway's until the call's reply; room for an answer is the
replica's until `Freed`. Places come from the other side, so whoever reads them checks them against
the memory's size, and the gateway copies what is there before it looks at it.

Everything else is a frame of `kernels.replica_frames`.
"""

from __future__ import annotations

from collections.abc import Sequence

from modelkeep.core.errors import IntegrityError
from modelkeep.core.record import Row, msgpack_decoder
from modelkeep.kernels.replica_frames import (
    AnswerFrame,
    CallFrame,
    Cancel,
    FaultFrame,
    Hello,
    Piece,
    TextEnd,
)

# What a replica may offer.
SHARE = "share"
PING = "ping"
CANCEL = "cancel"
# The code of the fault by which a replica answers a call that was cancelled.
CANCELLED = "call.cancelled"
# Tensors of one call: more than any model's inputs or outputs.
SPANS_MAX = 4096

Span = tuple[int, int]


class Offer(Row, frozen=True, tag="offer"):
    """What a replica can do; sent before its hello."""

    what: tuple[str, ...]


class Share(Row, frozen=True, tag="share"):
    """Two memory files of so many bytes come with this frame: for calls, for answers."""

    size_bytes: int


class SharedCall(Row, frozen=True, tag="shared-call"):
    """A call whose tensors lie in the memory for calls: offset and length of each."""

    number: int
    shapes: tuple[tuple[int, ...], ...]
    spans: tuple[Span, ...]


class SharedAnswer(Row, frozen=True, tag="shared-answer"):
    """An answer whose tensors lie in the memory for answers, all in one part of it."""

    number: int
    shapes: tuple[tuple[int, ...], ...]
    offset: int
    lengths: tuple[int, ...]


class Freed(Row, frozen=True, tag="freed"):
    """The gateway has copied the answer that lay there."""

    offset: int


class Ping(Row, frozen=True, tag="ping"):
    """Are you there?"""

    number: int


class Pong(Row, frozen=True, tag="pong"):
    """Yes."""

    number: int


decoded_asked = msgpack_decoder(
    CallFrame | SharedCall | Freed | Ping | Cancel | Share, what="a gateway's frame"
)
decoded_said = msgpack_decoder(
    AnswerFrame | FaultFrame | Hello | Piece | TextEnd | SharedAnswer | Pong | Offer,
    what="a replica's frame",
)


def checked_spans(spans: Sequence[Span], size: int) -> None:
    """Go on only if every place lies within the memory, and all together are no more than it.

    Raises:
        IntegrityError: `frame.span`.
    """
    total = 0
    for offset, length in spans:
        if offset < 0 or length < 0 or offset + length > size:
            raise IntegrityError("frame.span", "a tensor lies outside the shared memory")
        total += length
    if total > size or len(spans) > SPANS_MAX:
        raise IntegrityError("frame.span", "tensors claim more than the shared memory")


def spans_from(offset: int, lengths: Sequence[int]) -> tuple[Span, ...]:
    """The places of tensors that lie one after the other, each aligned for its elements."""
    spans = []
    for length in lengths:
        spans.append((offset, length))
        offset += aligned(length)
    return tuple(spans)


def aligned(length: int) -> int:
    """The room that so many bytes take between two others."""
    return -(-length // 64) * 64
