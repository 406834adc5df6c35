"""OpenAI's requests and answers as records: strict, bounded, and nothing ignored in silence.

A parameter is honoured, or has its neutral value, or is refused by name: a caller who asks for
tools, images or a JSON schema learns that they are not had here, and does not get an answer that
was made without them. A record's field of type `None` takes only `null`: clients send it for what
they do not use. Limits of this protocol that are lower than ours (four stops) are not enforced.

What a caller wrote is in the error that the caller reads, and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.core.record import Record, json_decoder
from modelkeep.core.text import (
    CHOICES_MAX,
    MESSAGES_MAX,
    PROMPTS_MAX,
    STOP_CHARS_MAX,
    STOPS_MAX,
    TOKENS_MAX,
    Message,
    TextKind,
    TextRequest,
)

# Of /v1/completions, when it names none; as in the protocol.
COMPLETION_TOKENS_DEFAULT = 16
MODEL_CHARS_MAX = 120
PARTS_MAX = 1024
# Names and texts of one body: sixteen for each message. Millions of them cost half a second.
STRINGS_MAX = 16 * MESSAGES_MAX
_SEED_MAX = 2**63
# What `msgspec` says of a misfit: the field it did not expect, and where.
_UNKNOWN = re.compile(r"unknown field `([^`]{1,100})`")
_MISSING = re.compile(r"missing required field `([^`]{1,100})`")
_PLACE = re.compile(r" - at `\$\.?([^`]{0,200})`")


class StreamOptions(Record, frozen=True):
    """What a stream carries beside the text."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class ResponseFormat(Record, frozen=True):
    """Text, and nothing else."""

    type: Literal["text"]


class TextPart(Record, frozen=True):
    """One part of a message."""

    type: Literal["text"]
    text: str


class ChatMessage(Record, frozen=True):
    """One turn; what an answer of ours holds beside its text may come back as null."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | tuple[TextPart, ...]
    name: None = None
    refusal: None = None
    annotations: None = None
    audio: None = None
    function_call: None = None
    tool_calls: None = None


class _Sampling(Record, frozen=True):
    """What chats and completions have in common; subclasses repeat `frozen`."""

    model: str
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    n: int | None = None
    stop: str | tuple[str, ...] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    # Said about a call, not asked of the model: neither kept nor passed on.
    user: str | None = None
    logit_bias: None = None


class ChatBody(_Sampling, frozen=True, kw_only=True):
    """The body of /v1/chat/completions."""

    messages: tuple[ChatMessage, ...]
    max_completion_tokens: int | None = None
    response_format: ResponseFormat | None = None
    modalities: tuple[Literal["text"], ...] | None = None
    logprobs: Literal[False] | None = None
    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None
    safety_identifier: str | None = None
    audio: None = None
    function_call: None = None
    functions: None = None
    metadata: None = None
    moderation: None = None
    parallel_tool_calls: None = None
    prediction: None = None
    prompt_cache_key: None = None
    prompt_cache_options: None = None
    prompt_cache_retention: None = None
    reasoning_effort: None = None
    tool_choice: Literal["none"] | None = None
    tools: None = None
    top_logprobs: None = None
    verbosity: None = None
    web_search_options: None = None


class CompletionBody(_Sampling, frozen=True, kw_only=True):
    """The body of /v1/completions."""

    prompt: str | tuple[str, ...]
    best_of: Literal[1] | None = None
    echo: Literal[False] | None = None
    logprobs: None = None
    suffix: None = None


class EmbeddingBody(Record, frozen=True):
    """The body of /v1/embeddings."""

    model: str
    input: str | tuple[str, ...]
    encoding_format: Literal["float", "base64"] | None = None
    user: str | None = None
    dimensions: None = None


Body = ChatBody | CompletionBody | EmbeddingBody

_DECODERS: dict[TextKind, Callable[[Any], Any]] = {
    TextKind.CHAT: json_decoder(ChatBody, what="the body"),
    TextKind.COMPLETION: json_decoder(CompletionBody, what="the body"),
    TextKind.EMBEDDING: json_decoder(EmbeddingBody, what="the body"),
}


class TextBody(Record, frozen=True):
    """A body that was read and checked.

    Attributes:
        model: name, perhaps with a version behind a colon, as the caller wrote it.
        is_stream: whether the answer is wanted piece by piece.
        with_usage: whether a stream ends with what it used.
        as_base64: whether vectors are wanted as base64 of their float32.
    """

    model: str
    request: TextRequest
    is_stream: bool = False
    with_usage: bool = False
    as_base64: bool = False


def read_body(kind: TextKind, raw: bytes) -> TextBody:
    """Read a body strictly.

    Raises:
        UsageError: `schema.json`, `schema.unsupported`, `schema.value` or `schema.count`; the
            context's `param` names what is wrong.
    """
    if _strings_of(raw) > STRINGS_MAX:
        raise UsageError("schema.count", f"the body holds more than {STRINGS_MAX} names and texts")
    try:
        body: Body = _DECODERS[kind](raw)
    except IntegrityError as error:
        raise _misfit(error) from error
    if not 0 < len(body.model) <= MODEL_CHARS_MAX:
        raise _wrong("model", f"takes a name of up to {MODEL_CHARS_MAX} characters")
    if isinstance(body, EmbeddingBody):
        request = TextRequest(kind=kind, prompts=_texts("input", body.input))
        return TextBody(
            model=body.model, request=request, as_base64=body.encoding_format == "base64"
        )
    options = body.stream_options
    if options is not None and not body.stream:
        raise _wrong("stream_options", "goes with `stream` only")
    return TextBody(
        model=body.model,
        request=_sampled(kind, body),
        is_stream=bool(body.stream),
        with_usage=options is not None and bool(options.include_usage),
    )


def _strings_of(raw: bytes) -> int:
    """How many texts a body holds, about: never fewer than half of them, and most often exactly."""
    if len(raw) <= 2 * STRINGS_MAX:
        return 0
    return (raw.count(b'"') - raw.count(b'\\"')) // 2


def _sampled(kind: TextKind, body: ChatBody | CompletionBody) -> TextRequest:
    return TextRequest(
        kind=kind,
        messages=_messages(body.messages) if isinstance(body, ChatBody) else (),
        prompts=_texts("prompt", body.prompt) if isinstance(body, CompletionBody) else (),
        max_tokens=_tokens_max(body),
        temperature=_within("temperature", body.temperature, 0.0, 2.0, usual=1.0),
        top_p=_above_zero("top_p", body.top_p),
        top_k=int(_within("top_k", body.top_k, 0, TOKENS_MAX, usual=0)),
        stop=_stops(body.stop),
        seed=_seed(body.seed),
        choices=int(_within("n", body.n, 1, CHOICES_MAX, usual=1)),
        presence_penalty=_within("presence_penalty", body.presence_penalty, -2.0, 2.0, usual=0.0),
        frequency_penalty=_within(
            "frequency_penalty", body.frequency_penalty, -2.0, 2.0, usual=0.0
        ),
    )


def _messages(given: Sequence[ChatMessage]) -> tuple[Message, ...]:
    if not 1 <= len(given) <= MESSAGES_MAX:
        raise _many("messages", f"takes 1 to {MESSAGES_MAX} messages")
    return tuple(
        Message(
            role="system" if each.role == "developer" else each.role,
            content=_joined(each.content, index),
        )
        for index, each in enumerate(given)
    )


def _joined(content: str | tuple[TextPart, ...], index: int) -> str:
    if isinstance(content, str):
        return content
    if not 1 <= len(content) <= PARTS_MAX:
        raise _many(f"messages[{index}].content", f"takes 1 to {PARTS_MAX} parts")
    return "".join(part.text for part in content)


def _texts(name: str, given: str | tuple[str, ...]) -> tuple[str, ...]:
    texts = (given,) if isinstance(given, str) else given
    if not 1 <= len(texts) <= PROMPTS_MAX:
        raise _many(name, f"takes 1 to {PROMPTS_MAX} texts")
    if not all(texts):
        raise _wrong(name, "holds an empty text")
    return texts


def _tokens_max(body: ChatBody | CompletionBody) -> int:
    """How long an answer may be; the newer name counts, and two names may not disagree."""
    if isinstance(body, CompletionBody):
        usual, name, wanted = COMPLETION_TOKENS_DEFAULT, "max_tokens", body.max_tokens
    else:
        usual, name, wanted = 0, "max_completion_tokens", body.max_completion_tokens
        if wanted is None:
            name, wanted = "max_tokens", body.max_tokens
        elif body.max_tokens not in (None, wanted):
            raise _wrong("max_tokens", "is not what `max_completion_tokens` says")
    if wanted is None:
        return usual
    return int(_within(name, wanted, 1, TOKENS_MAX, usual=usual))


def _stops(given: str | tuple[str, ...] | None) -> tuple[str, ...]:
    stops = (given,) if isinstance(given, str) else given or ()
    if len(stops) > STOPS_MAX:
        raise _many("stop", f"takes up to {STOPS_MAX} texts")
    if not all(1 <= len(each) <= STOP_CHARS_MAX for each in stops):
        raise _wrong("stop", f"takes texts of 1 to {STOP_CHARS_MAX} characters")
    return stops


def _seed(given: int | None) -> int | None:
    if given is not None and not -_SEED_MAX <= given < _SEED_MAX:
        raise _wrong("seed", "does not fit 64 bits")
    return given


def _within(name: str, given: float | None, least: float, most: float, *, usual: float) -> float:
    if given is None:
        return usual
    if not least <= given <= most:
        raise _wrong(name, f"is not between {least:g} and {most:g}")
    return given


def _above_zero(name: str, given: float | None) -> float:
    if given is not None and not 0 < given <= 1:
        raise _wrong(name, "is not above 0 and at most 1")
    return 1.0 if given is None else given


def _wrong(param: str, what: str) -> UsageError:
    return UsageError("schema.value", f"`{param}` {what}", param=param)


def _many(param: str, what: str) -> UsageError:
    return UsageError("schema.count", f"`{param}` {what}", param=param)


def _misfit(error: IntegrityError) -> UsageError:
    """The change of blame: what did not decode came from the caller."""
    unknown, place = _UNKNOWN.search(error.message), _PLACE.search(error.message)
    inner = place[1] if place is not None else ""
    if unknown is not None:
        param = f"{inner}.{unknown[1]}" if inner else unknown[1]
        return _unsupported(param)
    top = inner.partition(".")[0].partition("[")[0]
    if top in _NULL_ONLY or "Expected `null`" in error.message:
        return _unsupported(inner)
    if "Invalid enum value" in error.message:
        return _unsupported(inner, " with this value")
    missing = _MISSING.search(error.message)
    if missing is not None:
        inner = f"{inner}.{missing[1]}" if inner else missing[1]
    return UsageError("schema.json", error.message[:400], param=inner or None)


def _unsupported(param: str, how: str = "") -> UsageError:
    return UsageError(
        "schema.unsupported",
        f"`{param}` is not honoured here{how}",
        hint="leave it out; docs/guide/language-models.md lists what is honoured",
        param=param,
    )


# Of these one neutral value is taken, and everything else means something that is not had here.
_NULL_ONLY = frozenset(
    {
        *("tools", "tool_choice", "functions", "function_call", "response_format", "modalities"),
        *("logprobs", "top_logprobs", "logit_bias", "best_of", "echo", "suffix", "dimensions"),
        *("store", "metadata", "audio", "prediction", "reasoning_effort", "web_search_options"),
    }
)
