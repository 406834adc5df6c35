"""OpenAI's protocol over HTTP: models, chats, completions, embeddings.

Every path needs a key. The order of refusals: unknown path and method, key, media type, size, form
of the body, model and permission. A model is named in the body, so whoever may not use it learns
that only after the body was read. What is recorded of a call never holds a word of it: a model's
name enters a record only in the form that names have.

Errors have the statuses that OpenAI's clients turn into their exceptions, and their body.
"""

from __future__ import annotations

import math
import re
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, cast

from modelkeep.core.errors import KeepError, MissingError, UsageError
from modelkeep.core.record import Record, to_json
from modelkeep.core.text import TextKind
from modelkeep.flows.call import Call, Reply, Served
from modelkeep.flows.converse import Stream, converse, opened
from modelkeep.flows.serve import Serving
from modelkeep.gate.passage import Step
from modelkeep.web.heads import arrival_of, demand_media
from modelkeep.web.messages import Request, Response, path_of
from modelkeep.web.openai_answers import TextWork, error_body
from modelkeep.web.openai_records import TextBody, read_body

_JSON_HEADER = b"content-type: application/json\r\n"
_STREAM_HEADER = b"content-type: text/event-stream\r\nx-accel-buffering: no\r\n"
_KINDS = {
    b"/v1/chat/completions": TextKind.CHAT,
    b"/v1/completions": TextKind.COMPLETION,
    b"/v1/embeddings": TextKind.EMBEDDING,
}
_MODELS = b"/v1/models"
_NAME = r"(?P<name>[a-z0-9][a-z0-9._-]{0,99})(?::(?P<version>[0-9]{1,9}))?"
_MODEL = re.compile(_NAME)
_COLON = re.compile(rb"%3[Aa]")


class Model(Record, frozen=True):
    """A model as OpenAI lists it; of when it was made the protocol has no better answer here."""

    id: str
    object: str = "model"
    created: int = 0
    owned_by: str = "modelkeep"


class _Context:
    """What `begin` found out about a request."""

    __slots__ = ("call", "kind", "path")

    def __init__(self, path: bytes, kind: TextKind | None) -> None:
        self.path = path
        self.kind = kind
        self.call: Call | None = None


class _Parts:
    """A stream's parts, for the connection that sends them.

    A generator that was never begun does nothing when it is closed; a stream that nobody began to
    read has to be recorded all the same.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        # It is declared by what its readers need of it.
        self._parts = cast("AsyncGenerator[bytes, None]", stream.parts())

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._parts

    async def aclose(self) -> None:
        """End it; repeatable."""
        await self._parts.aclose()
        await self._stream.abandoned()


class OpenaiApplication:
    """OpenAI's protocol; its paths begin with `/v1/`."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    # ---- the server's two questions ------------------------------------------------------------

    def begin(self, request: Request) -> None:
        """Judge a head: route, key, media type."""
        path = path_of(request.url)
        kind = _KINDS.get(path)
        if kind is None and path != _MODELS and not path.startswith(_MODELS + b"/"):
            raise MissingError(
                "route.missing", "there is nothing here", hint="try /v1/chat/completions"
            )
        wanted = b"GET" if kind is None else b"POST"
        if request.method != wanted:
            raise UsageError(
                "route.method",
                f"this path takes {wanted.decode()} only",
                hint=f"use {wanted.decode()}",
                allow=wanted.decode(),
            )
        context = request.context = _Context(path, kind)
        context.call = self._serving.known(arrival_of(request))
        if kind is not None:
            request.ends_with_client = True  # tokens that nobody reads cost as much as others
            demand_media(request, {b"application/json"}, otherwise="the body is not JSON")

    async def respond(self, request: Request) -> Response:
        """Answer a request, or explain why not."""
        context: _Context | None = request.context
        call = context.call if context is not None else None
        error = request.refusal
        if error is not None and call is None:
            return self._explained(self._serving.turn_away(error, request.address))
        assert context is not None
        assert call is not None
        try:
            if error is not None:
                raise error
            if context.kind is None:
                return self._listed(call, context.path)
            raw = bytes(request.body)
            body = read_body(context.kind, raw)
            served = self._permitted(call, body.model)
        except KeepError as refusal:
            return await self._refused(call, refusal)
        return await self._answered(call, served, raw, body)

    # ---- models --------------------------------------------------------------------------------

    def _listed(self, call: Call, path: bytes) -> Response:
        """The language models that a principal may use, or one of them."""
        if path == _MODELS:
            found = self._serving.visible_to(call.principal)
            models = [Model(id=each.name) for each in found if each.check is None]
            return _json_response(200, {"object": "list", "data": models})
        wanted = _COLON.sub(b":", path[len(_MODELS) + 1 :]).decode("ascii", "replace")
        served = self._permitted(call, wanted)
        if served.check is not None:
            raise _no_model()
        return _json_response(200, Model(id=wanted))

    def _permitted(self, call: Call, model: str) -> Served:
        """The model that a call names."""
        match = _MODEL.fullmatch(model)
        if match is None:
            raise _no_model()
        version = match["version"]
        return self._serving.permitted(
            call, match["name"], int(version) if version is not None else None
        )

    # ---- answers -------------------------------------------------------------------------------

    async def _answered(self, call: Call, served: Served, raw: bytes, body: TextBody) -> Response:
        identifier, now_s = secrets.token_hex(12), int(time.time())
        work = TextWork(raw, body, identifier=identifier, created_s=now_s)
        try:
            if body.is_stream:
                begun = await opened(self._serving, call, served, work)
                if isinstance(begun, Stream):
                    return self._streamed(begun)
                return self._sent(call, begun)
            return self._sent(call, await converse(self._serving, call, served, work))
        except KeepError as lost:  # the journal failed: nothing of the answer leaves
            return error_response(lost, b"")

    async def _refused(self, call: Call, error: KeepError) -> Response:
        try:
            reply = await self._serving.refuse(call, error)
        except KeepError as lost:
            return error_response(lost, b"")
        return self._sent(call, reply)

    def _sent(self, call: Call, reply: Reply) -> Response:
        """Hand an answer out; the table stops it here if its record is not durable."""
        call.passage.step(Step.SEND)
        return self._explained(reply)

    def _explained(self, reply: Reply) -> Response:
        receipt = self._receipt(reply.position)
        if reply.error is not None:
            return error_response(reply.error, receipt)
        assert reply.rendered is not None
        return Response(200, _JSON_HEADER + receipt, reply.rendered.body)

    def _streamed(self, stream: Stream) -> Response:
        """The head's receipt is of the intent; the record's own stands before the stream's end."""
        headers = _STREAM_HEADER + self._receipt(stream.position)
        return Response(200, headers, b"", _Parts(stream))

    def _receipt(self, position: int) -> bytes:
        if position < 0:
            return b""
        return b"modelkeep-receipt: %b:%d\r\n" % (self._serving.log_name, position)


def error_response(error: KeepError, headers: bytes) -> Response:
    """An error in OpenAI's form."""
    status = error.http_status
    if status == 401:
        headers += b'www-authenticate: Bearer realm="modelkeep"\r\n'
    elif status == 405:
        headers += b"allow: %b\r\n" % error.context["allow"].encode()
    elif status in (429, 503):
        headers += b"retry-after: %d\r\n" % _retry_after_s(error)
    return Response(status, _JSON_HEADER + headers, to_json(error_body(error)))


def _retry_after_s(error: KeepError) -> int:
    told = error.context.get("retry_after_s", 1)
    return max(math.ceil(told), 1) if isinstance(told, int | float) and math.isfinite(told) else 1


def _no_model() -> MissingError:
    return MissingError(
        "model.missing", "no such model is served", hint="/v1/models lists the models"
    )


def _json_response(status: int, body: Any) -> Response:
    return Response(status, _JSON_HEADER, to_json(body))
