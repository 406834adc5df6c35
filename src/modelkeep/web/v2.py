"""The Open Inference Protocol V2 over HTTP: permissions of routes, media types, headers, errors.

Everything but health needs a key. The order of refusals: unknown path and method, key, permission,
media type, size. So a stranger learns that `/v2/models/…` is a path and nothing about models.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from modelkeep.core.errors import IntegrityError, KeepError, LimitError, UsageError
from modelkeep.core.record import json_decoder, to_json
from modelkeep.flows.call import Call, Reply, Served
from modelkeep.flows.serve import Serving
from modelkeep.gate.authn import demand_scope
from modelkeep.gate.passage import Step
from modelkeep.web.heads import arrival_of, demand_media
from modelkeep.web.messages import Request, Response
from modelkeep.web.pacing import Paced
from modelkeep.web.v2_answers import JsonWork
from modelkeep.web.v2_records import (
    SERVER,
    ErrorBody,
    IndexRequest,
    Live,
    ModelReady,
    Ready,
    Statistics,
    Tallies,
    all_statistics,
    config_of,
    index_of,
    metadata_of,
    statistics_of,
)
from modelkeep.web.v2_routes import Question, Route, parsed_route, unsupported

_JSON_HEADER = b"content-type: application/json\r\n"
_BINARY_HEADER = b"content-type: application/octet-stream\r\n"
# `application/octet-stream` is what tritonclient sends with binary tensors; curl's default for
# data, a form, is refused so that its sender notices.
_MEDIA_TYPES = frozenset({None, b"application/json", b"application/octet-stream"})
_OTHER_MEDIA = "the body is neither JSON nor JSON with binary tensors"
_ROUTES_MAX = 1024

_index_request = json_decoder(IndexRequest, what="the request")


class _Context:
    """What `begin` found out about a request."""

    __slots__ = ("call", "route", "served")

    def __init__(self, route: Route) -> None:
        self.route = route
        self.call: Call | None = None
        self.served: Served | None = None


class V2Application:
    """V2 over HTTP, and the metrics.

    Args:
        tallies: what a version of a model was asked.
        exposition: the metrics as text of the type `metrics_type`.
    """

    def __init__(
        self,
        serving: Serving,
        *,
        tallies: Tallies,
        exposition: Callable[[], bytes],
        metrics_type: str,
    ) -> None:
        self._serving = serving
        self._tallies = tallies
        self._metrics = Paced(exposition)
        self._metrics_header = f"content-type: {metrics_type}\r\n".encode()
        self._routes: dict[tuple[bytes, bytes], Route] = {}

    # ---- the server's two questions ------------------------------------------------------------

    def begin(self, request: Request) -> None:
        """Judge a head: route, key, permission, media type."""
        route = self._route(request)
        context = request.context = _Context(route)
        question = route.question
        if question in (Question.LIVE, Question.READY):
            _demand_no_body(request)
            return
        context.call = call = self._serving.known(arrival_of(request))
        if route.model:
            context.served = self._serving.permitted(call, route.model, route.version)
            self._remember(request, route)
        if question is Question.INFER:
            demand_media(request, _MEDIA_TYPES, otherwise=_OTHER_MEDIA)
        elif question is Question.METRICS:
            demand_scope(call.principal, "metrics")
        elif question is Question.UNSUPPORTED:
            raise unsupported()

    async def respond(self, request: Request) -> Response:
        """Answer a request, or explain why not."""
        context: _Context | None = request.context
        call = context.call if context is not None else None
        error = request.refusal
        if error is not None:
            if call is None:
                return self._explained(self._serving.turn_away(error, request.address))
            return await self._refused(call, error)
        assert context is not None
        served = context.served
        if context.route.question is not Question.INFER:
            try:
                return await self._looked_up(context, request.body)
            except KeepError as refusal:
                assert call is not None
                return await self._refused(call, refusal)
        assert call is not None
        assert served is not None
        work = JsonWork(request.body, request.headers.get(b"inference-header-content-length"))
        try:
            reply = await self._serving.answer(call, served, work)
        except KeepError as lost:  # the journal failed: nothing of the answer leaves
            return error_response(lost, b"")
        return self._sent(call, reply)

    # ---- questions that are no calls of a model ------------------------------------------------

    def _route(self, request: Request) -> Route:
        key = (request.method, request.url)
        return self._routes.get(key) or parsed_route(request.method, request.url)

    def _remember(self, request: Request, route: Route) -> None:
        """Keep the route of a permitted call, and so of a model that is served.

        What a stranger asks is not kept, and no query: else callers could fill our memory, crowd
        out the paths of others, or learn by the time that it takes what others ask for.
        """
        if len(self._routes) < _ROUTES_MAX and b"?" not in request.url:
            self._routes[request.method, request.url] = route

    async def _looked_up(self, context: _Context, body: bytes | bytearray) -> Response:
        if context.route.question is Question.METRICS:
            return Response(200, self._metrics_header, await self._metrics.page())
        found = self._found(context, body)
        is_unready = isinstance(found, Ready | ModelReady) and not found.ready
        return Response(503 if is_unready else 200, _JSON_HEADER, to_json(found))

    def _found(self, context: _Context, body: bytes | bytearray) -> object:
        serving, served, call = self._serving, context.served, context.call
        found: object
        match context.route.question, served, call:
            case Question.LIVE, _, _:
                found = Live(live=True)
            case Question.READY, _, _:
                found = Ready(ready=serving.is_ready())
            case Question.SERVER, _, Call():
                found = SERVER
            case Question.STATISTICS, _, Call():
                found = all_statistics(serving, call.principal, self._tallies)
            case Question.INDEX, _, Call():
                found = index_of(serving, call.principal, _read_index(body))
            case Question.MODEL, Served(), Call():
                found = metadata_of(serving, served)
            case Question.MODEL_READY, Served(), Call():
                found = ModelReady(name=served.name, ready=serving.is_model_ready(served))
            case Question.MODEL_CONFIG, Served(), Call():
                found = config_of(serving, served)
            case Question.MODEL_STATISTICS, Served(), Call():
                tally = self._tallies(served.name, served.version)
                found = Statistics(model_stats=(statistics_of(served, tally),))
            case _:
                raise AssertionError("a question that nobody answers")
        return found

    # ---- answers -------------------------------------------------------------------------------

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
        receipt = b""
        if reply.position >= 0:
            receipt = b"modelkeep-receipt: %b:%d\r\n" % (self._serving.log_name, reply.position)
        if reply.error is not None:
            return error_response(reply.error, receipt)
        answer = reply.rendered
        assert answer is not None
        if answer.head_bytes:
            receipt += b"inference-header-content-length: %d\r\n" % answer.head_bytes
            return Response(200, _BINARY_HEADER + receipt, answer.body)
        return Response(200, _JSON_HEADER + receipt, answer.body)


def error_response(error: KeepError, headers: bytes) -> Response:
    """V2's error object, with the code and the remedy beside it; never the context."""
    status = error.http_status
    if status == 401:
        headers += b'www-authenticate: Bearer realm="modelkeep"\r\n'
    elif status == 405:
        headers += b"allow: %b\r\n" % error.context["allow"].encode()
    elif status in (429, 503):
        headers += b"retry-after: %d\r\n" % retry_after_s(error)
    body = ErrorBody(error=error.message, code=error.code, hint=error.hint)
    return Response(status, _JSON_HEADER + headers, to_json(body))


def retry_after_s(error: KeepError) -> int:
    """After how many whole seconds another try may help."""
    told = error.context.get("retry_after_s", 1)
    return max(math.ceil(told), 1) if isinstance(told, int | float) and math.isfinite(told) else 1


def _read_index(body: bytes | bytearray) -> IndexRequest:
    if not body:
        return IndexRequest()
    try:
        request = _index_request(body)
    except IntegrityError as error:
        raise UsageError("schema.json", error.message, hint='send {} or {"ready": true}') from None
    assert isinstance(request, IndexRequest)
    return request


def _demand_no_body(request: Request) -> None:
    """Who needs no key gets no room for a body."""
    length = request.headers.get(b"content-length", b"0")
    if b"transfer-encoding" in request.headers or length.strip(b"0"):
        raise LimitError("limit.body", "this path takes no body", bytes_max=0)
