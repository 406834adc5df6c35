"""The Open Inference Protocol V2 over HTTP: routes, permissions of routes, bodies, headers.

Everything but health needs a key. The order of refusals: unknown path and method, key, permission,
media type, size. So a stranger learns that `/v2/models/…` is a path and nothing about models.

A body is sent in one of two forms: JSON, or JSON followed by binary tensors with
`Inference-Header-Content-Length` saying where they begin; both ways alike.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from modelkeep import __version__
from modelkeep.core.artifact import Port
from modelkeep.core.errors import IntegrityError, KeepError, MissingError, UsageError
from modelkeep.core.record import Record, to_json
from modelkeep.flows.serve import Call, Rendered, Reply, Served, Serving
from modelkeep.gate.authn import demand_scope
from modelkeep.gate.passage import Step
from modelkeep.gate.schema import CheckedCall
from modelkeep.kernels.wire import FLOAT_DTYPES, Tensor, values_of
from modelkeep.web.http1 import Request, Response

TARGET_BYTES_MAX = 2048
_JSON_HEADER = b"content-type: application/json\r\n"
_BINARY_HEADER = b"content-type: application/octet-stream\r\n"
# `application/octet-stream` is what tritonclient sends with binary tensors; curl's default for
# data, a form, is refused so that its sender notices.
_MEDIA_TYPES = frozenset({b"application/json", b"application/octet-stream"})
_MODEL = re.compile(
    rb"/v2/models/(?P<model>[a-z0-9][a-z0-9._-]{0,99})"
    rb"(?:/versions/(?P<version>[0-9]{1,9}))?(?P<verb>/ready|/infer)?"
)
_VERB_METHODS = {b"": b"GET", b"/ready": b"GET", b"/infer": b"POST"}
_PLAIN_PATHS = (b"/v2", b"/v2/health/live", b"/v2/health/ready", b"/metrics")


class Route(Record, frozen=True):
    """What a path means."""

    path: bytes
    model: str = ""
    version: int | None = None
    verb: bytes = b""


class AnswerTensor(Record, frozen=True, omit_defaults=True):
    """One output in the JSON part of an answer."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: dict[str, int] | None = None
    data: tuple[Any, ...] | None = None


class AnswerBody(Record, frozen=True, omit_defaults=True):
    """The JSON part of an answer."""

    model_name: str
    model_version: str
    outputs: tuple[AnswerTensor, ...]
    id: str = ""


class _Context:
    """What `begin` found out about a request."""

    __slots__ = ("call", "route", "served")

    def __init__(self, route: Route) -> None:
        self.route = route
        self.call: Call | None = None
        self.served: Served | None = None


class V2Application:
    """The gateway's HTTP surface."""

    def __init__(self, serving: Serving, *, exposition: Any, metrics_type: str) -> None:
        self._serving = serving
        self._exposition = exposition
        self._metrics_header = f"content-type: {metrics_type}\r\n".encode()
        self._routes: dict[tuple[bytes, bytes], Route] = {}

    # ---- the server's two questions ------------------------------------------------------------

    def begin(self, request: Request) -> None:
        """Judge a head: route, key, permission, media type."""
        route = self._route(request)
        context = request.context = _Context(route)
        if route.path.startswith(b"/v2/health/"):
            return
        context.call = call = self._serving.known(request.headers.get(b"authorization"))
        if route.model:
            context.served = self._serving.permitted(call, route.model, route.version)
        elif route.path == b"/metrics":
            demand_scope(call.principal, "metrics")
        if route.verb == b"/infer":
            _demand_media(request)

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
        if context.route.verb != b"/infer":
            return self._looked_up(context)
        assert call is not None
        assert context.served is not None
        try:
            head_bytes = _head_bytes(request)
        except KeepError as refusal:
            return await self._refused(call, refusal)
        try:
            reply = await self._serving.answer(
                call, context.served, request.body, head_bytes, rendered
            )
        except KeepError as lost:  # the journal failed: nothing of the answer leaves
            return _error_response(lost, b"")
        return self._sent(call, reply)

    # ---- routes --------------------------------------------------------------------------------

    def _route(self, request: Request) -> Route:
        key = (request.method, request.url)
        route = self._routes.get(key)
        if route is None:
            route = _parsed_route(request.method, request.url)
            # Only what is served is kept: whoever calls may not fill our memory with paths.
            if route.model and len(self._routes) < 1024 and self._serving.versions_of(route.model):
                self._routes[key] = route
        return route

    def _looked_up(self, context: _Context) -> Response:
        route, served, serving = context.route, context.served, self._serving
        if route.path == b"/v2/health/live":
            return _json_response(200, {"live": True})
        if route.path == b"/v2/health/ready":
            is_ready = serving.is_ready()
            return _json_response(200 if is_ready else 503, {"ready": is_ready})
        if route.path == b"/metrics":
            return Response(200, self._metrics_header, self._exposition())
        if served is None:
            return _json_response(
                200,
                {"name": "modelkeep", "version": __version__, "extensions": ["binary_tensor_data"]},
            )
        if route.verb == b"/ready":
            is_ready = serving.is_model_ready(served)
            body = {"name": served.name, "ready": is_ready}
            return _json_response(200 if is_ready else 503, body)
        return _json_response(200, _metadata(served, serving.versions_of(served.name)))

    # ---- answers -------------------------------------------------------------------------------

    async def _refused(self, call: Call, error: KeepError) -> Response:
        try:
            reply = await self._serving.refuse(call, error)
        except KeepError as lost:
            return _error_response(lost, b"")
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
            return _error_response(reply.error, receipt)
        answer = reply.rendered
        assert answer is not None
        if answer.head_bytes:
            receipt += b"inference-header-content-length: %d\r\n" % answer.head_bytes
            return Response(200, _BINARY_HEADER + receipt, answer.body)
        return Response(200, _JSON_HEADER + receipt, answer.body)


def rendered(served: Served, checked: CheckedCall, outputs: Sequence[Tensor]) -> Rendered:
    """Write an answer as V2 wants it.

    Raises:
        IntegrityError: `answer.finite`, when JSON cannot hold the model's output.
    """
    tensors = []
    binary: list[Any] = []
    for wanted in checked.outputs:
        output = outputs[wanted.index]
        if wanted.is_binary:
            size = {"binary_data_size": len(output.raw)}
            tensors.append(
                AnswerTensor(
                    name=output.name, datatype=output.dtype, shape=output.shape, parameters=size
                )
            )
            binary.append(output.raw)
        else:
            tensors.append(
                AnswerTensor(
                    name=output.name,
                    datatype=output.dtype,
                    shape=output.shape,
                    data=_json_values(output),
                )
            )
    head = to_json(
        AnswerBody(
            model_name=served.name,
            model_version=str(served.version),
            outputs=tuple(tensors),
            id=checked.identifier,
        )
    )
    if not binary:
        return Rendered(head)
    return Rendered(b"".join((head, *binary)), len(head))


def _json_values(output: Tensor) -> tuple[Any, ...]:
    values = values_of(output)
    if output.dtype in FLOAT_DTYPES and not (
        math.isfinite(sum(values)) or all(map(math.isfinite, values))
    ):
        raise IntegrityError(
            "answer.finite",
            f"output {output.name!r} holds a value that JSON cannot hold",
            hint="ask for this output as binary tensor to see it",
        )
    return values


def _parsed_route(method: bytes, target: bytes) -> Route:
    path = _path_of(target)
    if path in _PLAIN_PATHS:
        wanted, route = b"GET", Route(path=path)
    else:
        match = _MODEL.fullmatch(path)
        if match is None:
            raise MissingError(
                "route.missing", "there is nothing here", hint="try /v2 or /v2/health/live"
            )
        version = match["version"]
        verb = match["verb"] or b""
        wanted = _VERB_METHODS[verb]
        route = Route(
            path=path,
            model=match["model"].decode(),
            version=int(version) if version is not None else None,
            verb=verb,
        )
    if method != wanted:
        raise UsageError(
            "route.method",
            f"this path takes {wanted.decode()} only",
            hint=f"use {wanted.decode()}",
            allow=wanted.decode(),
        )
    return route


def _path_of(target: bytes) -> bytes:
    """The path of a target in origin form or absolute form (RFC 9112, 3.2), without its query."""
    if len(target) > TARGET_BYTES_MAX:
        raise MissingError("route.missing", "there is nothing here: the path is too long")
    scheme, separator, rest = target.partition(b"://")
    if separator and scheme.lower() in (b"http", b"https"):
        _, slash, tail = rest.partition(b"/")
        target = slash + tail
    return target.partition(b"?")[0]


def _demand_media(request: Request) -> None:
    coding = request.headers.get(b"content-encoding", b"identity")
    if coding.lower() != b"identity":
        raise UsageError(
            "media.encoding", "compressed bodies are not taken", hint="send the body as it is"
        )
    media = request.headers.get(b"content-type")
    if media is not None and media.partition(b";")[0].strip().lower() not in _MEDIA_TYPES:
        raise UsageError(
            "media.type",
            "the body is neither JSON nor JSON with binary tensors",
            hint="send `Content-Type: application/json`",
        )


def _head_bytes(request: Request) -> int | None:
    value = request.headers.get(b"inference-header-content-length")
    if value is None:
        return None
    if not (value.isdigit() and len(value) <= 10):
        raise UsageError("schema.binary", "Inference-Header-Content-Length is not a length")
    return int(value)


def _metadata(served: Served, versions: tuple[int, ...]) -> dict[str, Any]:
    schema = served.check.schema
    return {
        "name": served.name,
        "versions": [str(version) for version in versions],
        "platform": "onnxruntime_onnx",
        "inputs": [_port(port) for port in schema.inputs],
        "outputs": [_port(port) for port in schema.outputs],
    }


def _port(port: Port) -> dict[str, Any]:
    return {"name": port.name, "datatype": port.dtype, "shape": port.shape}


def _json_response(status: int, body: object) -> Response:
    return Response(status, _JSON_HEADER, to_json(body))


def _error_response(error: KeepError, headers: bytes) -> Response:
    """V2's error object, with the code and the remedy beside it; never the context."""
    status = error.http_status
    body = {"error": error.message, "code": error.code}
    if error.hint:
        body["hint"] = error.hint
    if status == 401:
        headers += b'www-authenticate: Bearer realm="modelkeep"\r\n'
    elif status == 405:
        headers += b"allow: %b\r\n" % error.context["allow"].encode()
    elif status in (429, 503):
        headers += b"retry-after: 1\r\n"
    return Response(status, _JSON_HEADER + headers, to_json(body))
