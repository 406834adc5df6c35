"""OpenAI's answers: one work per kind of call, written whole or as server-sent events.

A stream ends with `data: [DONE]`, which leaves only after its record is durable; before it stands
the receipt in a comment, which clients of server-sent events skip. A stream that failed ends with
an error object and without `[DONE]`, so no client takes it for whole.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from typing import Any

from modelkeep.core.errors import KeepError
from modelkeep.core.record import Record, to_json
from modelkeep.core.text import TextKind, TextRequest
from modelkeep.flows.call import Rendered, Served
from modelkeep.flows.converse import TextAnswer
from modelkeep.kernels.replica_frames import Piece
from modelkeep.web.openai_records import TextBody

DONE = b"data: [DONE]\n\n"
# Codes that programs ask for by OpenAI's own name; all others are ours.
_CODES = {
    "auth.missing": "invalid_api_key",
    "auth.invalid": "invalid_api_key",
    "model.missing": "model_not_found",
    "text.context": "context_length_exceeded",
    "schema.unsupported": "unsupported_parameter",
    "upstream.limited": "rate_limit_exceeded",
}
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class Usage(Record, frozen=True, omit_defaults=True):
    """What a call used.

    Attributes:
        estimated: said only where the counts are guesses; no field of OpenAI's own.
    """

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int = -1
    estimated: bool = False


class ErrorFacts(Record, frozen=True):
    """What went wrong, as OpenAI's clients read it."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(Record, frozen=True):
    """The body of every answer that is none."""

    error: ErrorFacts


class TextWork:
    """A chat, a completion, or a call for vectors, which is never a stream.

    Args:
        identifier: random; the answer's id, the same in every part of a stream.
        created_s: seconds since 1970.
    """

    __slots__ = ("_about", "_has_begun", "_is_chat", "_text_body", "body", "request")

    def __init__(self, raw: bytes, body: TextBody, *, identifier: str, created_s: int) -> None:
        self.body = raw
        self.request: TextRequest = body.request
        self._text_body = body
        self._is_chat = body.request.kind is TextKind.CHAT
        prefix = "chatcmpl" if self._is_chat else "cmpl"
        self._about: dict[str, Any] = {"id": f"{prefix}-{identifier}", "created": created_s}
        self._has_begun: set[int] = set()

    def render(self, served: Served, answer: TextAnswer) -> Rendered:
        """Write a whole answer."""
        if self.request.kind is TextKind.EMBEDDING:
            return self._vectors(served, answer)
        pairs = zip(answer.texts, answer.reasons, strict=True)
        choices = [self._whole(index, *pair) for index, pair in enumerate(pairs)]
        kind = "chat.completion" if self._is_chat else "text_completion"
        about = self._head(served, kind)
        return Rendered(to_json({**about, "choices": choices, "usage": usage_of(answer)}))

    def part(self, served: Served, piece: Piece) -> bytes:
        """Write a piece as an event; a chat's first of each choice says whose turn it is."""
        if not self._is_chat:
            choice = _choice(piece.choice, None, text=piece.text)
        else:
            delta = {"content": piece.text}
            if piece.choice not in self._has_begun:
                self._has_begun.add(piece.choice)
                delta = {"role": "assistant", **delta}
            choice = _choice(piece.choice, None, delta=delta)
        return self._event(served, [choice])

    def last(self, served: Served, answer: TextAnswer) -> bytes:
        """Write why each text ended, and what was used if that was asked for."""
        events = []
        for index, reason in enumerate(answer.reasons):
            more: dict[str, Any] = {"delta": {}} if self._is_chat else {"text": ""}
            events.append(self._event(served, [_choice(index, reason, **more)]))
        if self._text_body.with_usage:
            events.append(self._event(served, [], usage=usage_of(answer)))
        return b"".join(events)

    def tail(self, receipt: str) -> bytes:
        """Write the receipt, and that this was all."""
        return f": modelkeep-receipt {receipt}\n\n".encode() + DONE

    def broken(self, error: KeepError) -> bytes:
        """Write what went wrong in place of the rest."""
        return sse(error_body(error))

    def _vectors(self, served: Served, answer: TextAnswer) -> Rendered:
        as_base64 = self._text_body.as_base64
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": _base64(each) if as_base64 else each,
            }
            for index, each in enumerate(answer.vectors)
        ]
        used = answer.prompt_tokens
        usage = Usage(prompt_tokens=used, total_tokens=used, estimated=answer.is_estimate)
        model = f"{served.name}:{served.version}"
        return Rendered(to_json({"object": "list", "data": data, "model": model, "usage": usage}))

    def _head(self, served: Served, kind: str) -> dict[str, Any]:
        return {**self._about, "object": kind, "model": f"{served.name}:{served.version}"}

    def _whole(self, index: int, text: str, reason: str) -> dict[str, Any]:
        if self._is_chat:
            message = {"role": "assistant", "content": text}
            return _choice(index, reason, message=message)
        return _choice(index, reason, text=text)

    def _event(
        self, served: Served, choices: Sequence[dict[str, Any]], usage: Usage | None = None
    ) -> bytes:
        head = self._head(served, "chat.completion.chunk" if self._is_chat else "text_completion")
        more = {"usage": usage} if self._text_body.with_usage else {}
        return sse({**head, "choices": choices, **more})


def _base64(vector: tuple[float, ...]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def sse(body: object) -> bytes:
    """One event; JSON has no line ends in it."""
    return b"data: %b\n\n" % to_json(body)


def error_body(error: KeepError) -> ErrorBody:
    """An error in OpenAI's form, with the remedy in its sentence; never the context."""
    status = error.http_status
    param = error.context.get("param")
    usual = "invalid_request_error" if status < 500 else "server_error"
    code = error.code
    if code.startswith("quota."):
        code = "rate_limit_exceeded"
    return ErrorBody(
        error=ErrorFacts(
            message=f"{error.message}; {error.hint}" if error.hint else error.message,
            type=_TYPES.get(status, usual),
            param=param if isinstance(param, str) else None,
            code=_CODES.get(code, code),
        )
    )


def usage_of(answer: TextAnswer) -> Usage:
    """What an answer used."""
    return Usage(
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
        total_tokens=answer.prompt_tokens + answer.completion_tokens,
        estimated=answer.is_estimate,
    )


def _choice(index: int, reason: str | None, **more: Any) -> dict[str, Any]:
    return {"index": index, **more, "logprobs": None, "finish_reason": reason}
