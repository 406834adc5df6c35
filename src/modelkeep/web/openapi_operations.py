"""What there is to ask over HTTP: path, method, bodies and statuses of each operation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelkeep.core.artifact import Schema
from modelkeep.core.record import Record
from modelkeep.gate.rule_settings import InputRule
from modelkeep.gate.schema import InferRequest
from modelkeep.web import v2_routes
from modelkeep.web.v2_answers import AnswerBody
from modelkeep.web.v2_records import (
    ErrorBody,
    IndexEntry,
    IndexRequest,
    Live,
    ModelConfig,
    ModelMetadata,
    ModelReady,
    Ready,
    ServerMetadata,
    Statistics,
)
from modelkeep.web.v2_routes import Question

JSON, BINARY, TEXT, EVENTS = (
    "application/json",
    "application/octet-stream",
    "text/plain",
    "text/event-stream",
)
ANY_STATUS = (400, 408, 413, 431)
KEYED = (401, 503)
OF_MODEL = (403, 404)
OF_CALL = (415, 429, 502, 504)


class Operation(Record, frozen=True):
    """One method of one path.

    Attributes:
        path: with `{model}` and `{version}` in it.
        answers: type of the body by status and media type; None for bytes or text.
        takes: record of the request's body; None for none.
        refusals: statuses of errors beside those of every path.
        needs_key: false for what a stranger may ask.
        error: record of an error's body.
        is_optional: whether the request's body may be left out.
        of_model: whose calls these are; its form takes the place of `takes`.
        rules: what the operator says of its inputs.
    """

    path: str
    method: str
    summary: str
    answers: dict[int, dict[str, Any]]
    takes: Any = None
    refusals: tuple[int, ...] = ()
    needs_key: bool = True
    error: Any = ErrorBody
    is_optional: bool = False
    of_model: Schema | None = None
    rules: tuple[InputRule, ...] = ()


_PLAIN: Mapping[Question, tuple[str, dict[int, dict[str, Any]], dict[str, Any]]] = {
    Question.LIVE: ("whether the process answers", {200: {JSON: Live}}, {"needs_key": False}),
    Question.READY: (
        "whether every model has a replica",
        {200: {JSON: Ready}, 503: {JSON: Ready}},
        {"needs_key": False},
    ),
    Question.SERVER: ("who answers", {200: {JSON: ServerMetadata}}, {}),
    Question.STATISTICS: ("what all models were asked", {200: {JSON: Statistics}}, {}),
    Question.INDEX: (
        "the models that the key may use",
        {200: {JSON: list[IndexEntry]}},
        {"takes": IndexRequest, "is_optional": True},
    ),
    Question.METRICS: ("numbers for Prometheus", {200: {TEXT: None}}, {"refusals": (403,)}),
}
_OF_MODEL: Mapping[Question, tuple[str, dict[int, dict[str, Any]], dict[str, Any]]] = {
    Question.MODEL: ("what a model takes and gives", {200: {JSON: ModelMetadata}}, {}),
    Question.MODEL_READY: (
        "whether a model has a replica",
        {200: {JSON: ModelReady}, 503: {JSON: ModelReady}},
        {},
    ),
    Question.MODEL_CONFIG: ("a model as Triton describes it", {200: {JSON: ModelConfig}}, {}),
    Question.MODEL_STATISTICS: ("what a model was asked", {200: {JSON: Statistics}}, {}),
    Question.INFER: (
        "ask a model; binary tensors may follow the JSON, with Inference-Header-Content-Length",
        {200: {JSON: AnswerBody, BINARY: None}},
        {"takes": InferRequest},
    ),
}


def v2_operations() -> list[Operation]:
    """V2 and the metrics."""
    found = []
    for raw, (method, question) in v2_routes.PLAIN.items():
        summary, answers, more = _PLAIN[question]
        found.append(operation(raw.decode(), method, summary, answers, **more))
    for beginning in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        for verb, (method, question) in v2_routes.OF_MODEL.items():
            summary, answers, more = _OF_MODEL[question]
            refusals = OF_MODEL + (OF_CALL if question is Question.INFER else ())
            path = beginning + verb.decode()
            found.append(
                operation(path, method, summary, answers, **{**more, "refusals": refusals})
            )
    return found


def operation(path: str, method: bytes, summary: str, answers: Any, **more: Any) -> Operation:
    """One method of one path; `more` are further fields of it."""
    return Operation(path=path, method=method.decode(), summary=summary, answers=answers, **more)
