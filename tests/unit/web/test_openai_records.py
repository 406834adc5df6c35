"""OpenAI's bodies: what is honoured is read, everything else is refused by its name."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import UsageError
from modelkeep.core.text import Message, TextKind
from modelkeep.web.openai_answers import error_body
from modelkeep.web.openai_records import read_body

TURN = {"role": "user", "content": "hi"}
CHAT, COMPLETION, EMBEDDING = TextKind.CHAT, TextKind.COMPLETION, TextKind.EMBEDDING
NEEDED = {
    CHAT: {"model": "m", "messages": [TURN]},
    COMPLETION: {"model": "m", "prompt": "hi"},
    EMBEDDING: {"model": "m", "input": "hi"},
}


def read(kind, **more):
    return read_body(kind, json.dumps({**NEEDED[kind], **more}).encode())


def test_what_is_honoured_arrives():
    body = read(
        CHAT,
        messages=[
            {"role": "developer", "content": "be brief"},
            {
                "role": "user",
                "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            },
            {"role": "assistant", "content": "c", "refusal": None, "tool_calls": None},
        ],
        temperature=0,
        top_p=0.5,
        top_k=3,
        n=2,
        stop="x",
        seed=-1,
        max_completion_tokens=7,
        presence_penalty=-2,
        frequency_penalty=2,
        stream=True,
        stream_options={"include_usage": True},
    )
    request = body.request
    assert [(each.role, each.content) for each in request.messages] == [
        ("system", "be brief"),
        ("user", "ab"),
        ("assistant", "c"),
    ]
    assert (request.temperature, request.top_p, request.top_k) == (0, 0.5, 3)
    assert (request.choices, request.stop, request.seed) == (2, ("x",), -1)
    assert (request.max_tokens, request.presence_penalty) == (7, -2)
    assert (body.is_stream, body.with_usage) == (True, True)


def test_neutral_values_and_nulls_are_taken():
    read(
        CHAT,
        tools=None,
        response_format={"type": "text"},
        modalities=["text"],
        logprobs=False,
        store=False,
        service_tier="auto",
        tool_choice="none",
        user="u",
        stop=None,
        stream_options=None,
        logit_bias=None,
    )
    read(COMPLETION, echo=False, best_of=1, suffix=None, logprobs=None)
    read(EMBEDDING, encoding_format="base64", dimensions=None)


def test_the_protocol_s_own_defaults_hold():
    assert read(COMPLETION).request.max_tokens == 16
    assert read(CHAT).request.max_tokens == 0
    assert read(CHAT, max_tokens=5).request.max_tokens == 5
    assert read(CHAT, max_tokens=5, max_completion_tokens=5).request.max_tokens == 5


@pytest.mark.parametrize(
    ("kind", "more", "param"),
    [
        (CHAT, {"tools": [{"type": "function"}]}, "tools"),
        (CHAT, {"tool_choice": "auto"}, "tool_choice"),
        (CHAT, {"functions": []}, "functions"),
        (CHAT, {"response_format": {"type": "json_object"}}, "response_format.type"),
        (CHAT, {"response_format": {"type": "json_schema", "json_schema": {}}}, None),
        (CHAT, {"modalities": ["text", "audio"]}, "modalities[1]"),
        (CHAT, {"audio": {"voice": "x"}}, "audio"),
        (CHAT, {"logprobs": True}, "logprobs"),
        (CHAT, {"top_logprobs": 3}, "top_logprobs"),
        (CHAT, {"logit_bias": {"1": 5}}, "logit_bias"),
        (CHAT, {"reasoning_effort": "high"}, "reasoning_effort"),
        (CHAT, {"store": True}, "store"),
        (CHAT, {"service_tier": "flex"}, "service_tier"),
        (CHAT, {"prediction": {}}, "prediction"),
        (CHAT, {"web_search_options": {}}, "web_search_options"),
        (CHAT, {"never_heard_of": 1}, "never_heard_of"),
        (CHAT, {"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        (CHAT, {"messages": [{**TURN, "name": "x"}]}, "messages[0].name"),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "image_url", "text": ""}]}]},
            "messages[0].content[0].type",
        ),
        (COMPLETION, {"echo": True}, "echo"),
        (COMPLETION, {"suffix": "x"}, "suffix"),
        (COMPLETION, {"logprobs": 2}, "logprobs"),
        (COMPLETION, {"best_of": 4}, "best_of"),
        (EMBEDDING, {"dimensions": 8}, "dimensions"),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(kind, more, param):
    with pytest.raises(UsageError) as refused:
        read(kind, **more)
    error = refused.value
    assert (error.code, error.http_status) == ("schema.unsupported", 400)
    if param is not None:
        assert error_body(error).error.param == param
    assert error_body(error).error.code == "unsupported_parameter"


@pytest.mark.parametrize(
    ("kind", "more", "param"),
    [
        (CHAT, {"temperature": 2.1}, "temperature"),
        (CHAT, {"temperature": -0.1}, "temperature"),
        (CHAT, {"temperature": "1"}, "temperature"),
        (CHAT, {"top_p": 0}, "top_p"),
        (CHAT, {"top_p": 1.1}, "top_p"),
        (CHAT, {"n": 0}, "n"),
        (CHAT, {"n": 17}, "n"),
        (CHAT, {"n": 1.5}, "n"),
        (CHAT, {"seed": 2**63}, "seed"),
        (CHAT, {"stop": ["x"] * 17}, "stop"),
        (CHAT, {"stop": ""}, "stop"),
        (CHAT, {"stop": "x" * 257}, "stop"),
        (CHAT, {"max_tokens": 0}, "max_tokens"),
        (CHAT, {"max_tokens": 10_000_001}, "max_tokens"),
        (CHAT, {"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
        (CHAT, {"messages": []}, "messages"),
        (CHAT, {"messages": [TURN] * 4097}, "messages"),
        (CHAT, {"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        (CHAT, {"messages": "x"}, "messages"),
        (CHAT, {"model": ""}, "model"),
        (CHAT, {"model": "x" * 121}, "model"),
        (CHAT, {"stream_options": {"include_usage": True}}, "stream_options"),
        (CHAT, {"presence_penalty": 2.5}, "presence_penalty"),
        (COMPLETION, {"prompt": ""}, "prompt"),
        (COMPLETION, {"prompt": []}, "prompt"),
        (COMPLETION, {"prompt": [1, 2, 3]}, "prompt[0]"),
        (COMPLETION, {"prompt": ["x"] * 257}, "prompt"),
        (EMBEDDING, {"input": ["a", ""]}, "input"),
        (EMBEDDING, {"encoding_format": "int8"}, "encoding_format"),
    ],
)
def test_what_is_out_of_bounds_is_refused_by_name(kind, more, param):
    with pytest.raises(UsageError) as refused:
        read(kind, **more)
    assert refused.value.http_status == 400
    assert error_body(refused.value).error.param == param


@pytest.mark.parametrize("missing", ["model", "messages"])
def test_what_is_missing_is_named(missing):
    body = {key: value for key, value in NEEDED[CHAT].items() if key != missing}
    with pytest.raises(UsageError) as refused:
        read_body(CHAT, json.dumps(body).encode())
    assert error_body(refused.value).error.param == missing


@given(st.sampled_from(TextKind), st.binary(max_size=300))
def test_no_bytes_do_more_than_a_refusal(kind, raw):
    with pytest.raises(UsageError) as refused:
        read_body(kind, raw)
    assert refused.value.http_status == 400


@given(
    st.sampled_from(TextKind),
    st.dictionaries(
        st.sampled_from(
            ["model", "messages", "prompt", "input", "n", "stop", "tools", "stream", "seed", "x"]
        ),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
            lambda inner: (
                st.lists(inner, max_size=4)
                | st.dictionaries(st.sampled_from(["role", "content", "type"]), inner)
            ),
            max_leaves=12,
        ),
    ),
)
def test_no_json_does_more_than_a_call_or_a_refusal(kind, body):
    with contextlib.suppress(UsageError):
        assert read_body(kind, json.dumps(body).encode()).request.kind is kind


def test_depth_is_bounded():
    for raw in (b"[" * 100_000, b'{"model":' * 50_000, b'{"tools":' + b"[" * 100_000):
        with pytest.raises(UsageError):
            read_body(CHAT, raw)


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        (CHAT, {"messages": [TURN] * 40_000}),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}] * 60_000}]},
        ),
        (COMPLETION, {"prompt": ["a"] * 100_000}),
        (EMBEDDING, {"input": ["\\"] * 200_000}),
        (COMPLETION, {"stop": [""] * 70_000}),
    ],
)
def test_a_body_of_very_many_texts_is_refused_before_it_is_parsed(kind, more):
    with pytest.raises(UsageError) as refused:
        read(kind, **more)
    assert refused.value.code == "schema.count"
    assert "names and texts" in refused.value.message


def test_a_long_text_with_many_quotes_is_one_text():
    text = 'say "it" and \\"that\\"; ' * 100_000
    assert read(CHAT, messages=[{"role": "user", "content": text}]).request.messages[0] == Message(
        role="user", content=text
    )
