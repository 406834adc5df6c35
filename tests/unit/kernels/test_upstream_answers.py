"""What an upstream says, read leniently where it may differ and strictly where it matters."""

from __future__ import annotations

import base64
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import IntegrityError, LimitError
from modelkeep.core.text import Message, TextKind, TextRequest
from modelkeep.kernels.replica_faults import error_of_fault, fault_frame, upstream_fault
from modelkeep.kernels.replica_frames import FaultFrame, Piece
from modelkeep.kernels.upstream_answers import AnswerReader, asked, vectors_end

CHAT = TextRequest(kind=TextKind.CHAT, messages=(Message(role="user", content="hi there"),))
VECTORS = TextRequest(kind=TextKind.EMBEDDING, prompts=("a", "b"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "index", "delta", "content", "finish_reason", "usage", "error", "text"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


def event(**more):
    return json.dumps(more).encode()


def choice(index=0, text=None, reason=None):
    return {"index": index, "delta": {"content": text}, "finish_reason": reason, "own": [1, {}]}


def test_a_stream_becomes_pieces_and_an_end_with_what_the_server_says_it_used():
    reader = AnswerReader(3, CHAT)
    assert reader.pieces(event(choices=[choice(text="a")])) == [Piece(3, 0, "a", 1)]
    assert reader.pieces(event(choices=[choice(text="")])) == []
    assert reader.pieces(event(choices=[choice(reason="length")])) == []
    assert (
        reader.pieces(event(choices=[], usage={"prompt_tokens": 5, "completion_tokens": 9})) == []
    )
    assert not reader.is_done
    assert reader.pieces(b"[DONE]") == []
    end = reader.end()
    assert reader.is_done
    assert (end.reasons, end.prompt_tokens, end.completion_tokens) == (("length",), 5, 9)


def test_a_server_that_does_not_say_what_it_used_is_counted_by_pieces():
    reader = AnswerReader(1, CHAT)
    for text in "abc":
        reader.pieces(event(choices=[choice(text=text)]))
    reader.pieces(event(choices=[choice(reason="stop")]))
    assert (reader.end().prompt_tokens, reader.end().completion_tokens) == (2, 3)


@pytest.mark.parametrize(
    "events",
    [
        [],
        [event(choices=[choice(text="a")])],
        [event(choices=[choice(1, "a")])],
        [event(choices=[choice(-1, "a")])],
        [event(choices=[choice(reason="stop")]), event(choices=[choice(text="more")])],
        [event(choices=[choice(reason="stop")]), b"[DONE]", b"{}"],
        [event(error={"message": "x"})],
        [event(choices=[choice(reason="stop")], usage={"prompt_tokens": -1})],
        [event(choices=[choice(reason="stop")], usage={"prompt_tokens": 10**12})],
        [event(choices=[{"index": 0, "delta": {"content": 3}}])],
        [b"not json"],
        [b'{"choices": [{"delta": {"content": "\\ud800"}}]}'],
        [b"[" * 100_000],
        [b'{"error": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"],
    ],
)
def test_what_is_no_answer_is_refused(events):
    reader = AnswerReader(1, CHAT)
    with pytest.raises(IntegrityError) as refused:
        [*map(reader.pieces, events), reader.end()]
    assert refused.value.code in ("upstream.answer", "record.json")


@given(st.lists(JSON.map(lambda each: json.dumps(each).encode()) | st.binary(max_size=50)))
def test_nothing_that_a_server_says_does_more_than_an_error(events):
    reader = AnswerReader(1, CHAT)
    try:
        for each in events:
            assert all(0 <= piece.choice < 1 for piece in reader.pieces(each))
        reader.end()
    except IntegrityError:
        pass


@given(st.binary(max_size=100) | JSON.map(lambda each: json.dumps({"data": each}).encode()))
def test_nothing_that_is_no_vectors_does_more_than_an_error(raw):
    with pytest.raises(IntegrityError):
        vectors_end(1, VECTORS, raw)


def vectors(*rows, **more):
    data = [{"index": index, "embedding": row, "object": "embedding"} for index, row in rows]
    return json.dumps({"data": data, **more}).encode()


def b64(*numbers):
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def test_vectors_come_in_the_order_of_their_texts_in_either_form():
    raw = vectors((1, [0.5, 1.0]), (0, b64(2.0, 3.0)), usage={"prompt_tokens": 4})
    end = vectors_end(1, VECTORS, raw)
    assert [struct.unpack("<2f", each) for each in end.vectors] == [(2.0, 3.0), (0.5, 1.0)]
    assert end.prompt_tokens == 4


@pytest.mark.parametrize(
    "raw",
    [
        vectors((0, [1.0])),
        vectors((0, [1.0]), (0, [1.0])),
        vectors((0, [1.0]), (1, [1.0]), (2, [1.0])),
        vectors((0, [1.0]), (1, [1.0, 2.0])),
        vectors((0, []), (1, [])),
        vectors((0, [1e300]), (1, [1.0])),
        vectors((0, b64(float("inf"))), (1, b64(1.0))),
        vectors((0, b64(float("nan"))), (1, b64(1.0))),
        vectors((0, "AAA"), (1, b64(1.0))),
        vectors((0, "????"), (1, b64(1.0))),
        vectors((0, "é" * 4), (1, b64(1.0))),
    ],
)
def test_vectors_that_cannot_be_are_refused(raw):
    with pytest.raises(IntegrityError):
        vectors_end(1, VECTORS, raw)


def test_only_what_differs_from_the_usual_is_said_to_the_server():
    assert json.loads(asked(CHAT, "big")) == {
        "model": "big",
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 1.0,
        "top_p": 1.0,
        "messages": [{"role": "user", "content": "hi there"}],
    }
    more = TextRequest(
        kind=TextKind.COMPLETION, prompts=("a",), max_tokens=3, stop=("x",), seed=0, choices=2
    )
    said = json.loads(asked(more, "big"))
    assert (said["prompt"], said["max_tokens"], said["stop"]) == ("a", 3, ["x"])
    assert (said["seed"], said["n"]) == (0, 2)
    assert "top_k" not in said


def test_a_fault_travels_without_a_word_of_the_server():
    frame = fault_frame(4, LimitError("upstream.limited", "secret words", retry_after_s=7))
    assert frame == FaultFrame(4, "upstream.limited", "7")
    error = error_of_fault(frame)
    assert (error.http_status, error.context["retry_after_s"]) == (429, 7)
    assert fault_frame(1, IntegrityError("record.json", "secret words")).code == "upstream.answer"


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_fault_frame_makes_an_error_of_another_kind(code, message):
    """A replica cannot have a caller told that its key is wrong, or wait for ever."""
    error = error_of_fault(FaultFrame(1, code, message))
    assert error.code.startswith(("upstream.", "runtime.failed", "text."))
    for known in ("upstream.limited", "upstream.busy"):
        assert 1 <= upstream_fault(known, message).context["retry_after_s"] <= 3600
