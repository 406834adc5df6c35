"""Which path means what in V2 over HTTP, by which methods; `web.openapi` documents this table.

The paths of Triton's extensions that are not offered are known too: a client that asks for them
gets the protocol's error, and not the impression that it spoke to something else.
"""

from __future__ import annotations

import re
from enum import StrEnum

from modelkeep.core.errors import MissingError, UsageError
from modelkeep.core.record import Record
from modelkeep.web.messages import path_of

GET, POST = b"GET", b"POST"


class Question(StrEnum):
    """What is asked for."""

    LIVE = "live"
    READY = "ready"
    METRICS = "metrics"
    SERVER = "server"
    STATISTICS = "statistics"
    INDEX = "index"
    MODEL = "model"
    MODEL_READY = "model_ready"
    MODEL_CONFIG = "model_config"
    MODEL_STATISTICS = "model_statistics"
    INFER = "infer"
    UNSUPPORTED = "unsupported"


class Route(Record, frozen=True):
    """What a request's method and path mean."""

    question: Question
    model: str = ""
    version: int | None = None


PLAIN: dict[bytes, tuple[bytes, Question]] = {
    b"/v2/health/live": (GET, Question.LIVE),
    b"/v2/health/ready": (GET, Question.READY),
    b"/v2": (GET, Question.SERVER),
    b"/v2/models/stats": (GET, Question.STATISTICS),
    b"/v2/repository/index": (POST, Question.INDEX),
    b"/metrics": (GET, Question.METRICS),
}
# What may follow `/v2/models/M` and `/v2/models/M/versions/V`.
OF_MODEL: dict[bytes, tuple[bytes, Question]] = {
    b"": (GET, Question.MODEL),
    b"/ready": (GET, Question.MODEL_READY),
    b"/config": (GET, Question.MODEL_CONFIG),
    b"/stats": (GET, Question.MODEL_STATISTICS),
    b"/infer": (POST, Question.INFER),
}
# Triton's extensions that we do not have, as templates; `{}` is one part of a path.
UNSUPPORTED: dict[str, tuple[bytes, ...]] = {
    "/v2/trace/setting": (GET, POST),
    "/v2/models/{}/trace/setting": (GET, POST),
    "/v2/logging": (GET, POST),
    "/v2/systemsharedmemory/status": (GET,),
    "/v2/systemsharedmemory/region/{}/status": (GET,),
    "/v2/systemsharedmemory/region/{}/register": (POST,),
    "/v2/systemsharedmemory/region/{}/unregister": (POST,),
    "/v2/systemsharedmemory/unregister": (POST,),
    "/v2/cudasharedmemory/status": (GET,),
    "/v2/cudasharedmemory/region/{}/status": (GET,),
    "/v2/cudasharedmemory/region/{}/register": (POST,),
    "/v2/cudasharedmemory/region/{}/unregister": (POST,),
    "/v2/cudasharedmemory/unregister": (POST,),
    "/v2/repository/models/{}/load": (POST,),
    "/v2/repository/models/{}/unload": (POST,),
}
MODEL_PATTERN = "[a-z0-9][a-z0-9._-]{0,99}"
VERSION_PATTERN = "[0-9]{1,9}"
_MODEL = re.compile(
    rf"/v2/models/(?P<model>{MODEL_PATTERN})(?:/versions/(?P<version>{VERSION_PATTERN}))?"
    rf"(?P<verb>{'|'.join(each.decode() for each in OF_MODEL if each)})?".encode()
)
_UNSUPPORTED = tuple(
    (re.compile(template.replace("{}", "[^/]{1,300}").encode()), methods)
    for template, methods in UNSUPPORTED.items()
)


def parsed_route(method: bytes, target: bytes) -> Route:
    """What a request is for.

    Raises:
        MissingError: `route.missing`.
        UsageError: `route.method`.
    """
    path = path_of(target)
    plain = PLAIN.get(path)
    if plain is not None:
        _demand_method(method, plain[:1])
        return Route(question=plain[1])
    match = _MODEL.fullmatch(path)
    if match is not None:
        wanted, question = OF_MODEL[match["verb"] or b""]
        _demand_method(method, (wanted,))
        version = match["version"]
        return Route(
            question=question,
            model=match["model"].decode(),
            version=int(version) if version is not None else None,
        )
    for pattern, methods in _UNSUPPORTED:
        if pattern.fullmatch(path):
            _demand_method(method, methods)
            return Route(question=Question.UNSUPPORTED)
    raise nothing_here()


def nothing_here() -> MissingError:
    """What a path that leads nowhere is answered."""
    return MissingError("route.missing", "there is nothing here", hint="try /v2 or /v2/health/live")


def unsupported() -> MissingError:
    """What a question for an extension that we do not have is answered."""
    return MissingError(
        "route.unsupported",
        "modelkeep does not have this extension of the protocol",
        hint="models, traces, logs and memory are the operator's, not a caller's",
    )


def _demand_method(method: bytes, wanted: tuple[bytes, ...]) -> None:
    if method not in wanted:
        allowed = ", ".join(each.decode() for each in wanted)
        raise UsageError(
            "route.method",
            f"this path takes {allowed} only",
            hint=f"use {allowed}",
            allow=allowed,
        )
