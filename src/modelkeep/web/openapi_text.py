"""OpenAI's paths and the path of tokens, as operations of the OpenAPI document.

Records say the form of a body; bounds of single values are checked by code, so they are said here
by the numbers that the code uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelkeep.core.record import Record
from modelkeep.core.text import (
    CHOICES_MAX,
    MESSAGES_MAX,
    PROMPTS_MAX,
    STOP_CHARS_MAX,
    STOPS_MAX,
    TOKENS_MAX,
)
from modelkeep.web.openai_answers import ErrorBody
from modelkeep.web.openai_records import (
    MODEL_CHARS_MAX,
    PARTS_MAX,
    ChatBody,
    CompletionBody,
    EmbeddingBody,
)
from modelkeep.web.openapi_operations import EVENTS, JSON, OF_CALL, OF_MODEL, Operation, operation
from modelkeep.web.tokens import RefusalBody, TokenBody

_SEED_END = 2**63


class _Token(Record, frozen=True):
    """A service account asks for a token (OAuth 2.0); `password` is the other grant."""

    grant_type: str
    client_id: str
    client_secret: str
    scope: str = ""


def _between(least: float, most: float) -> dict[str, Any]:
    return {"minimum": least, "maximum": most}


_TEXTS = {"minLength": 1, "minItems": 1, "maxItems": PROMPTS_MAX, "items": {"minLength": 1}}
_BOUNDS: Mapping[str, Mapping[str, Any]] = {
    "model": {"minLength": 1, "maxLength": MODEL_CHARS_MAX},
    "messages": {"minItems": 1, "maxItems": MESSAGES_MAX},
    "prompt": _TEXTS,
    "input": _TEXTS,
    "temperature": _between(0, 2),
    "top_p": {"exclusiveMinimum": 0, "maximum": 1},
    "top_k": _between(0, TOKENS_MAX),
    "n": _between(1, CHOICES_MAX),
    "presence_penalty": _between(-2, 2),
    "frequency_penalty": _between(-2, 2),
    "max_tokens": _between(1, TOKENS_MAX),
    "max_completion_tokens": _between(1, TOKENS_MAX),
    "seed": _between(-_SEED_END, _SEED_END - 1),
    "stop": {
        "minLength": 1,
        "maxLength": STOP_CHARS_MAX,
        "maxItems": STOPS_MAX,
        "items": {"minLength": 1, "maxLength": STOP_CHARS_MAX},
    },
    "content": {"minItems": 1, "maxItems": PARTS_MAX},
}
# `stream_options` goes with `stream`; two names of one bound may not disagree.
_TOGETHER = (
    {
        "if": {
            "properties": {"stream_options": {"type": "object"}},
            "required": ["stream_options"],
        },
        "then": {"properties": {"stream": {"const": True}}, "required": ["stream"]},
    },
    {
        "not": {
            "properties": {
                "max_tokens": {"type": "number"},
                "max_completion_tokens": {"type": "number"},
            },
            "required": ["max_tokens", "max_completion_tokens"],
        }
    },
)


def text_operations() -> list[Operation]:
    """OpenAI's protocol."""
    form: dict[str, Any] = {"error": ErrorBody}
    call = {**form, "refusals": (*OF_MODEL, *OF_CALL)}
    whole = {200: {JSON: dict[str, Any]}}
    streamed = {200: {JSON: dict[str, Any], EVENTS: None}}
    return [
        operation("/v1/models", b"GET", "the language models that the key may use", whole, **form),
        operation("/v1/models/{model}", b"GET", "one language model", whole, **form,
                  refusals=OF_MODEL),
        operation("/v1/chat/completions", b"POST", "talk to a model", streamed,
                  takes=ChatBody, **call),
        operation("/v1/completions", b"POST", "have a text continued", streamed,
                  takes=CompletionBody, **call),
        operation("/v1/embeddings", b"POST", "vectors of texts", whole,
                  takes=EmbeddingBody, **call),
    ]  # fmt: skip


def token_operations() -> list[Operation]:
    """Tokens for the password of a service account."""
    said = "a short-lived token for a service account; a form with the same names is taken too"
    return [
        operation("/v1/token", b"POST", said, {200: {JSON: TokenBody}}, takes=_Token,
                  error=RefusalBody, needs_key=False, refusals=(401, 415, 429, 503)),
    ]  # fmt: skip


def bounded(named: Mapping[str, Any]) -> None:
    """Write the bounds of single values into the schemas that were made of records."""
    for name in ("ChatBody", "CompletionBody", "EmbeddingBody", "ChatMessage"):
        schema = named.get(name)
        if schema is None:
            continue
        for key, said in schema["properties"].items():
            said.update(_BOUNDS.get(key, {}))
        if "stream" in schema["properties"]:
            schema["allOf"] = list(_TOGETHER)
    token = named.get("_Token")
    if token is not None:
        token["properties"]["grant_type"] = {"const": "client_credentials"}
        token["properties"]["client_id"] |= {"minLength": 1, "maxLength": 200}
        token["properties"]["client_secret"] |= {"minLength": 1, "maxLength": 256}
        token["additionalProperties"] = {"type": "string"}
