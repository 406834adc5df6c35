"""What an OpenAI-compatible server is asked and answers, as bytes to and from our own words.

Servers add fields of their own, so an answer is read leniently: what is not known here is skipped.
What is known has to be of its type, and everything that leaves this file is bounded. A server's
words never reach an error: they may repeat what was asked, and whoever runs it is a stranger.

A piece of a stream counts as one token until the server says what it used; servers that do not say
so are counted by pieces, and prompts by the `BYTES_PER_TOKEN` of English: an estimate, and told as
one.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from typing import Any

from modelkeep.core.errors import IntegrityError
from modelkeep.core.record import Record, json_decoder, to_json
from modelkeep.core.text import TOKENS_MAX, TextKind, TextRequest
from modelkeep.kernels.replica_frames import Piece, TextEnd

PATHS = {
    TextKind.CHAT: "/chat/completions",
    TextKind.COMPLETION: "/completions",
    TextKind.EMBEDDING: "/embeddings",
}
BYTES_PER_TOKEN = 4
DONE = b"[DONE]"
REASONS = ("stop", "length")
VECTOR_LENGTH_MAX = 65_536


class _Lenient(Record, frozen=True, forbid_unknown_fields=False):
    """A part of an answer."""


class Usage(_Lenient, frozen=True):
    """What the server says it used."""

    prompt_tokens: int = 0
    completion_tokens: int | None = None


class _Delta(_Lenient, frozen=True):
    content: str | None = None


class _Choice(_Lenient, frozen=True):
    index: int = 0
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Chunk(_Lenient, frozen=True):
    choices: tuple[_Choice, ...] = ()
    usage: Usage | None = None
    error: Any = None


class _Vector(_Lenient, frozen=True):
    index: int
    embedding: str | tuple[float, ...]


class _Vectors(_Lenient, frozen=True):
    data: tuple[_Vector, ...]
    usage: Usage | None = None


_chunk = json_decoder(_Chunk, what="an upstream's event")
_vectors = json_decoder(_Vectors, what="an upstream's answer")


def asked(request: TextRequest, model: str) -> bytes:
    """The body of the call to the server; texts are always asked for as a stream with usage."""
    if request.kind is TextKind.EMBEDDING:
        return to_json({"model": model, "input": request.prompts, "encoding_format": "base64"})
    body: dict[str, object] = {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": request.temperature,
        "top_p": request.top_p,
    }
    if request.kind is TextKind.CHAT:
        body["messages"] = [
            {"role": each.role, "content": each.content} for each in request.messages
        ]
    else:
        body["prompt"] = request.prompts if len(request.prompts) != 1 else request.prompts[0]
    # What has its neutral value is not said: not every server knows every word.
    wishes = (
        ("max_tokens", request.max_tokens, 0),
        ("top_k", request.top_k, 0),
        ("stop", request.stop, ()),
        ("seed", request.seed, None),
        ("n", request.choices, 1),
        ("presence_penalty", request.presence_penalty, 0.0),
        ("frequency_penalty", request.frequency_penalty, 0.0),
    )
    return to_json(body | {name: value for name, value, usual in wishes if value != usual})


class AnswerReader:
    """Turns the events of one call into pieces, and its last into the end."""

    __slots__ = ("_is_done", "_number", "_reasons", "_request", "_tokens", "_usage")

    def __init__(self, number: int, request: TextRequest) -> None:
        self._number = number
        self._request = request
        self._reasons: list[str] = [""] * request.answers
        self._tokens = 0
        self._usage: Usage | None = None
        self._is_done = False

    @property
    def is_done(self) -> bool:
        """Whether the server said that it said everything."""
        return self._is_done

    def pieces(self, event: bytes) -> list[Piece]:
        """What one event adds to the texts.

        Raises:
            IntegrityError: `upstream.answer` or `record.json`.
        """
        if self._is_done:
            raise _wrong("goes on after its end")
        if event.strip() == DONE:
            self._is_done = True
            return []
        chunk: _Chunk = _chunk(event)
        if chunk.error is not None:
            raise _wrong("broke off with an error of its own")
        if chunk.usage is not None:
            self._usage = chunk.usage
        found = []
        for choice in chunk.choices:
            piece = self._piece(choice)
            if piece is not None:
                found.append(piece)
        return found

    def _piece(self, choice: _Choice) -> Piece | None:
        if not 0 <= choice.index < len(self._reasons):
            raise _wrong("answers what was not asked")
        if self._request.kind is TextKind.CHAT:
            text = choice.delta.content if choice.delta is not None else None
        else:
            text = choice.text
        piece = None
        if text:
            if self._reasons[choice.index]:
                raise _wrong("goes on with a text that it ended")
            self._tokens += 1
            piece = Piece(self._number, choice.index, text, 1)
        if choice.finish_reason is not None:
            known = choice.finish_reason in REASONS
            self._reasons[choice.index] = choice.finish_reason if known else "stop"
        return piece

    def end(self) -> TextEnd:
        """The end of all texts.

        Raises:
            IntegrityError: `upstream.answer`, when some of them have none.
        """
        if not all(self._reasons):
            raise _wrong("broke off before its end")
        usage = self._usage
        prompt = usage.prompt_tokens if usage is not None else estimated_tokens(self._request)
        told = usage.completion_tokens if usage is not None else None
        return TextEnd(
            self._number,
            tuple(self._reasons),
            _count(prompt),
            _count(self._tokens if told is None else told),
            is_estimate=told is None,
        )


def vectors_end(number: int, request: TextRequest, raw: bytes) -> TextEnd:
    """The end of a call for vectors: one for each prompt, in their order.

    Raises:
        IntegrityError: `upstream.answer` or `record.json`.
    """
    answer: _Vectors = _vectors(raw)
    by_index = {each.index: _packed(each.embedding) for each in answer.data}
    if len(answer.data) != len(by_index) or set(by_index) != set(range(len(request.prompts))):
        raise _wrong("has another number of vectors than there were texts")
    vectors = tuple(by_index[index] for index in range(len(by_index)))
    if len({len(each) for each in vectors}) != 1:
        raise _wrong("has vectors of several lengths")
    used = answer.usage.prompt_tokens if answer.usage is not None else estimated_tokens(request)
    return TextEnd(
        number,
        (),
        _count(used),
        0,
        tuple(map(memoryview, vectors)),
        is_estimate=answer.usage is None,
    )


def estimated_tokens(request: TextRequest) -> int:
    """About how many tokens the prompts have, for servers that do not say it."""
    texts = (*(each.content for each in request.messages), *request.prompts)
    return sum(math.ceil(len(each.encode()) / BYTES_PER_TOKEN) for each in texts)


def _packed(embedding: str | tuple[float, ...]) -> bytes:
    if isinstance(embedding, str):
        try:
            raw = base64.b64decode(embedding, validate=True)
        except (binascii.Error, ValueError) as error:
            raise _wrong("has a vector that is no base64") from error
    else:
        try:
            raw = struct.pack(f"<{len(embedding)}f", *embedding)
        except (OverflowError, struct.error) as error:
            raise _wrong("has a vector of larger numbers than float32 holds") from error
    if not raw or len(raw) % 4 or len(raw) > 4 * VECTOR_LENGTH_MAX:
        raise _wrong("has a vector of a length that cannot be")
    if not all(map(math.isfinite, struct.unpack(f"<{len(raw) // 4}f", raw))):
        raise _wrong("has a vector that is not finite")
    return raw


def _count(tokens: int) -> int:
    if not 0 <= tokens <= TOKENS_MAX:
        raise _wrong("counts tokens as nobody can")
    return tokens


def _wrong(what: str) -> IntegrityError:
    return IntegrityError("upstream.answer", f"the upstream's answer {what}")
