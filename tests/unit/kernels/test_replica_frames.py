"""Frames between gateway and replica: however the stream is cut, the same frames come out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.artifact import Port
from modelkeep.core.errors import IntegrityError
from modelkeep.kernels.replica_frames import (
    AnswerFrame,
    FrameReader,
    Hello,
    call_frame,
    decoded_call,
    decoded_reply,
    framed,
)
from modelkeep.workers.replica import joined_inputs, misfit, split_answers

PORT = Port(name="x", dtype="FP32", shape=(-1, 2))
OUTPUTS = (Port(name="y", dtype="FP32", shape=(-1, 2)),)


def call_of(number, rows):
    raw = np.full((rows, 2), number, np.float32).tobytes()
    return call_frame(number, ((rows, 2),), (raw,))


@given(st.lists(st.integers(1, 5), min_size=1, max_size=12), st.data())
def test_however_a_stream_is_cut_the_same_calls_come_out(rows, data):
    stream = b"".join(call_of(number, count) for number, count in enumerate(rows))
    reader = FrameReader()
    calls = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        calls += [decoded_call(raw) for raw in reader.frames(stream[:size])]
        stream = stream[size:]
    assert [(call.number, call.shapes[0][0]) for call in calls] == list(enumerate(rows))
    assert all(misfit([PORT], call) == "" for call in calls)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=8))
def test_joined_calls_get_their_own_rows_back(rows):
    reader = FrameReader()
    stream = b"".join(call_of(number, count) for number, count in enumerate(rows))
    calls = [decoded_call(raw) for raw in reader.frames(stream)]
    joined = joined_inputs(calls, [PORT])["x"]
    assert joined.shape == (sum(rows), 2)
    for number, (count, answer) in enumerate(
        zip(rows, split_answers(calls, [joined * 2], OUTPUTS), strict=True)
    ):
        assert answer.number == number
        got = np.frombuffer(answer.tensors[0], np.float32).reshape(answer.shapes[0])
        assert got.tolist() == [[number * 2.0] * 2] * count


@given(st.binary(max_size=200))
def test_no_bytes_do_anything_but_decode_or_be_refused(raw):
    for decode in (decoded_call, decoded_reply):
        code = "record.msgpack"
        try:
            decode(raw)
        except IntegrityError as error:
            code = error.code
        assert code == "record.msgpack"


def test_a_frame_that_claims_too_much_is_refused_before_it_is_buffered():
    reader = FrameReader(bytes_max=100)
    assert list(reader.frames((100).to_bytes(4, "little"))) == []
    with pytest.raises(IntegrityError) as raised:
        list(FrameReader(bytes_max=100).frames((101).to_bytes(4, "little")))
    assert raised.value.code == "frame.size"


def test_replies_tell_themselves_apart():
    hello = Hello("p", "digits", 1)
    answer = AnswerFrame(7, ((1,),), (memoryview(b"x"),))
    (raw,) = FrameReader().frames(framed(hello))
    assert decoded_reply(raw) == hello
    (raw,) = FrameReader().frames(framed(answer))
    got = decoded_reply(raw)
    assert (got.number, bytes(got.tensors[0])) == (7, b"x")


@pytest.mark.parametrize(
    ("shapes", "tensors"),
    [
        ((), ()),
        (((1, 3),), (b"\0" * 12,)),
        (((1, 2),), (b"\0" * 7,)),
        (((0, 2),), (b"",)),
        (((-1, 2),), (b"",)),
    ],
)
def test_a_call_of_another_form_is_named_a_misfit(shapes, tensors):
    (raw,) = FrameReader().frames(call_frame(1, shapes, tensors))
    assert misfit([PORT], decoded_call(raw))
