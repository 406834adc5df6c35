"""Frames between a gateway and its replicas: `<u32 little-endian length><MessagePack array>`.

The replica speaks first (`Hello`), when its model is loaded: a connection without a hello is one
that waits in the listening socket's queue. Then calls go one way and answers the other, in any
order, matched by number. Tensors travel as bare bytes in the order of the model's schema, which
both sides hold, so neither names nor element types are repeated. A language model answers a
`TextCall` by any number of `Piece`s and one `TextEnd` (or a fault, at any point); `Cancel` says
that nobody waits any more, and nothing of that call follows that the gateway still reads. Whoever
reads bounds the length before buffering: a replica is not trusted with the gateway's memory, nor
the other way round.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from modelkeep.core.errors import IntegrityError
from modelkeep.core.record import Row, msgpack_decoder, to_msgpack

PROTOCOL = "modelkeep-replica-v0"
LENGTH_BYTES = 4
# A body may be 16 MiB by default and an operator may raise it; answers may be larger than calls.
FRAME_BYTES_MAX = 256 * 1024 * 1024


class Hello(Row, frozen=True, tag="hello"):
    """What a replica says first."""

    protocol: str
    model: str
    version: int


class CallFrame(Row, frozen=True, tag="call"):
    """One call: a shape and the bytes of each input, in the schema's order."""

    number: int
    shapes: tuple[tuple[int, ...], ...]
    tensors: tuple[memoryview, ...]


class AnswerFrame(Row, frozen=True, tag="answer"):
    """What the model said: a shape and the bytes of each output, in the schema's order."""

    number: int
    shapes: tuple[tuple[int, ...], ...]
    tensors: tuple[memoryview, ...]


class FaultFrame(Row, frozen=True, tag="fault"):
    """The model could not compute on this call."""

    number: int
    code: str
    message: str


class TextCall(Row, frozen=True, tag="text"):
    """One call of a language model: the JSON of a `core.text.TextRequest`."""

    number: int
    request: bytes


class Cancel(Row, frozen=True, tag="cancel"):
    """Nobody waits for this call any more."""

    number: int


class Piece(Row, frozen=True, tag="piece"):
    """The next part of one of a call's texts.

    Attributes:
        choice: which of its texts, from 0.
        text: whole characters; may be empty.
        tokens: how many it was made of.
    """

    number: int
    choice: int
    text: str
    tokens: int


class TextEnd(Row, frozen=True, tag="end"):
    """All texts of a call are complete, or its vectors are.

    Attributes:
        reasons: why each text ended: `stop` or `length`; for vectors empty.
        prompt_tokens: of all prompts together.
        completion_tokens: of all texts together.
        vectors: one for each prompt of an embedding: float32, little-endian.
        is_estimate: whether the counts are guesses, because who computed did not count.
    """

    number: int
    reasons: tuple[str, ...]
    prompt_tokens: int
    completion_tokens: int
    vectors: tuple[memoryview, ...] = ()
    is_estimate: bool = False


decoded_call = msgpack_decoder(CallFrame, what="a call's frame")
decoded_text_call = msgpack_decoder(TextCall | Cancel, what="a text call's frame")
decoded_reply = msgpack_decoder(
    AnswerFrame | FaultFrame | Hello | Piece | TextEnd, what="a replica's frame"
)


def framed(row: Row) -> bytes:
    """Encode one frame with its length before it."""
    payload = to_msgpack(row)
    return len(payload).to_bytes(LENGTH_BYTES, "little") + payload


def call_frame(number: int, shapes: tuple[Any, ...], tensors: tuple[Any, ...]) -> bytes:
    """Encode a call; tensors are bytes or memoryviews."""
    return framed(CallFrame(number, shapes, tensors))


class FrameReader:
    """Cuts a stream into frames, without ever holding more than one frame too much."""

    __slots__ = ("_buffer", "_bytes_max", "_wanted")

    def __init__(self, bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._buffer = bytearray()
        self._wanted = LENGTH_BYTES

    def frames(self, data: bytes) -> Iterator[memoryview]:
        """The frames that `data` completes; each view is good for as long as it is held.

        Raises:
            IntegrityError: `frame.size`, for a frame that claims more than is allowed.
        """
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._wanted:
                return
            data = bytes(self._buffer)
            self._buffer = bytearray()
        yield from self._cut(data)

    def _cut(self, data: bytes) -> Iterator[memoryview]:
        view = memoryview(data)
        start, end = 0, len(data)
        self._wanted = LENGTH_BYTES
        while end - start >= LENGTH_BYTES:
            length = int.from_bytes(view[start : start + LENGTH_BYTES], "little")
            if length > self._bytes_max:
                raise IntegrityError(
                    "frame.size", f"a frame claims {length} bytes", wanted=self._bytes_max
                )
            stop = start + LENGTH_BYTES + length
            if stop > end:
                self._wanted = LENGTH_BYTES + length
                break
            yield view[start + LENGTH_BYTES : stop]
            start = stop
        self._buffer += view[start:]
