"""The OpenAPI 3.1 document of every path of HTTP, made of the tables and records that serve them.

Paths and methods come from `web.v2_routes`, bodies from the records that decode and encode them, so
the page cannot say what the gateway does not do; a test walks both. Extensions that are not offered
are not in it.

The document is made for the key that asks: each model that the key may use has its own path for
calls, with its own form, so who fills it in by it is answered. A body of JSON and binary tensors
has a form that no schema can say; it is told in words.

Any path may also be answered 400, 408, 413 or 431: what is wrong with a request's form is found
before anybody knows what it is for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from modelkeep import __version__
from modelkeep.core.errors import KeepError, UsageError
from modelkeep.core.principal import Principal
from modelkeep.core.record import json_schemas, replaced, to_json
from modelkeep.flows.call import Served
from modelkeep.flows.serve import Serving
from modelkeep.gate.passage import Step
from modelkeep.gate.schema import InferRequest
from modelkeep.web import v2_routes
from modelkeep.web.heads import arrival_of
from modelkeep.web.messages import Request, Response, path_of
from modelkeep.web.openapi_models import call_example, call_schema
from modelkeep.web.openapi_operations import (
    ANY_STATUS,
    JSON,
    KEYED,
    Operation,
    operation,
    v2_operations,
)
from modelkeep.web.openapi_text import bounded
from modelkeep.web.v2 import error_response

PATH = b"/openapi.json"
# Documents that are kept: one for each set of models that some key may use.
_WRITTEN_MAX = 16
# Models with paths of their own.
_MODELS_MAX = 100
_V2_MODELS = "/v2/models/{model}"
_REFERENCE = "#/components/schemas/{name}"
_MEANINGS = {
    200: "the answer",
    400: "the request is not one that this path takes",
    401: "no key, or one that is not valid",
    403: "the key may not do this, or a policy forbids it",
    404: "no such model, version or path",
    408: "the request did not arrive in time",
    413: "the body is too large",
    415: "the body is of a type or an encoding that is not taken",
    429: "a limit is spent",
    431: "the headers are too large",
    502: "the model's answer is not what it must be",
    503: "the service is not ready, or busy",
    504: "no answer in time",
}


def own_operation() -> Operation:
    """This document."""
    return operation(PATH.decode(), b"GET", "this document", {200: {JSON: dict[str, Any]}})


def document(operations: Iterable[Operation], models: Sequence[Served] = ()) -> dict[str, Any]:
    """The OpenAPI document of these operations.

    Args:
        models: those that get paths of their own for calls, in place of the one for any model.
    """
    operations = [
        own
        for each in operations
        for own in (_of_models(each, models) if each.takes is InferRequest and models else (each,))
    ]
    known = {"model": models[0].name, "version": str(models[0].version)} if models else {}
    schemas, named = _schemas(operations)
    bounded(named)
    paths: dict[str, dict[str, Any]] = {}
    for each in operations:
        paths.setdefault(each.path, {})[each.method.lower()] = _described(
            each, schemas, known if each.path.startswith(_V2_MODELS) else {}
        )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "modelkeep",
            "version": __version__,
            "description": "Open Inference Protocol V2 and OpenAI's protocol, through one gate.",
        },
        "paths": paths,
        "components": {
            "schemas": named,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


class OpenApiApplication:
    """Serves the document to whoever has a key.

    Args:
        texts: operations on language models, for whoever may use one.
        more: operations of other surfaces.
    """

    def __init__(
        self, serving: Serving, texts: Sequence[Operation] = (), more: Sequence[Operation] = ()
    ) -> None:
        self._serving = serving
        self._texts = tuple(texts)
        self._operations = (*v2_operations(), *more, own_operation())
        self._written: dict[tuple[tuple[str, int], ...], bytes] = {}

    def begin(self, request: Request) -> None:
        """Judge a head: route, key."""
        if path_of(request.url) != PATH:
            raise v2_routes.nothing_here()
        if request.method != b"GET":
            raise UsageError(
                "route.method", "this path takes GET only", hint="use GET", allow="GET"
            )
        request.context = self._serving.known(arrival_of(request))

    async def respond(self, request: Request) -> Response:
        """Answer a request, or explain why not."""
        error, call = request.refusal, request.context
        if error is None:
            body = self._document(call.principal)
            return Response(200, b"content-type: application/json\r\n", body)
        if call is None:
            self._serving.turn_away(error, request.address)
            return error_response(error, b"")
        try:
            await self._serving.refuse(call, error)
        except KeepError as lost:
            return error_response(lost, b"")
        call.passage.step(Step.SEND)
        return error_response(error, b"")

    def _document(self, principal: Principal) -> bytes:
        visible = self._serving.visible_to(principal)
        models = [each for each in visible if each.check is not None][:_MODELS_MAX]
        texts = self._texts if any(each.check is None for each in visible) else ()
        key = (*((each.name, each.version) for each in models), ("", len(texts)))
        if key not in self._written:
            if len(self._written) >= _WRITTEN_MAX:
                self._written.clear()
            self._written[key] = to_json(document((*self._operations, *texts), models))
        return self._written[key]


def _of_models(operation: Operation, models: Sequence[Served]) -> Iterator[Operation]:
    for served in models:
        assert served.check is not None
        path = operation.path.replace("{model}", served.name)
        yield replaced(
            operation,
            path=path.replace("{version}", str(served.version)),
            of_model=served.check.schema,
            rules=served.check.rules,
        )


def _schemas(operations: Sequence[Operation]) -> tuple[dict[Any, Any], dict[str, Any]]:
    kinds: list[Any] = []
    for each in operations:
        bodies = [kind for answer in each.answers.values() for kind in answer.values()]
        for kind in (*bodies, each.takes, each.error):
            if kind is not None and kind not in kinds:
                kinds.append(kind)
    found, named = json_schemas(kinds, reference=_REFERENCE)
    return {repr(kind): schema for kind, schema in zip(kinds, found, strict=True)}, named


def _described(
    operation: Operation, schemas: Mapping[str, Any], known: Mapping[str, str]
) -> dict[str, Any]:
    statuses = {*ANY_STATUS, *operation.refusals, *(KEYED if operation.needs_key else ())}
    answers = {
        str(status): _answer(status, {JSON: operation.error}, schemas)
        for status in sorted(statuses - set(operation.answers))
    }
    for status, bodies in operation.answers.items():
        answers[str(status)] = _answer(status, bodies, schemas)
        if status in statuses:  # an error has this status too
            other = schemas[repr(operation.error)]
            content = answers[str(status)]["content"][JSON]
            content["schema"] = {"anyOf": [content["schema"], other]}
    described: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": _identifier(operation),
        "responses": answers,
        "security": [{"key": []}] if operation.needs_key else [],
    }
    parameters = [
        _parameter(name, known) for name in _PARAMETERS if f"{{{name}}}" in operation.path
    ]
    if parameters:
        described["parameters"] = parameters
    if operation.takes is not None:
        of_model = operation.of_model
        body = {
            "schema": call_schema(of_model, operation.rules)
            if of_model
            else schemas[repr(operation.takes)]
        }
        example = call_example(of_model, operation.rules) if of_model else None
        described["requestBody"] = {
            "required": not operation.is_optional,
            "content": {JSON: body | ({"example": example} if example else {})},
        }
    return described


def _answer(status: int, bodies: Mapping[str, Any], schemas: Mapping[str, Any]) -> dict[str, Any]:
    content = {
        media: {"schema": schemas[repr(kind)]} if kind is not None else {}
        for media, kind in bodies.items()
    }
    return {"description": _MEANINGS[status], "content": content}


_PARAMETERS = {
    "model": f"^{v2_routes.MODEL_PATTERN}$",
    "version": f"^{v2_routes.VERSION_PATTERN}$",
}


def _parameter(name: str, known: Mapping[str, str]) -> dict[str, Any]:
    schema = {"type": "string", "pattern": _PARAMETERS[name]}
    found: dict[str, Any] = {"name": name, "in": "path", "required": True, "schema": schema}
    return found | ({"example": known[name]} if name in known else {})


def _identifier(operation: Operation) -> str:
    words = operation.path.replace("{", "by_").replace("}", "").replace(".", "_").split("/")
    return "_".join([operation.method.lower(), *filter(None, words)])
