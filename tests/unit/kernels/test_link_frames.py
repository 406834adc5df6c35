"""Frames beside calls and answers: whatever comes, a place outside the memory is never read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import IntegrityError
from modelkeep.kernels.link_frames import (
    Freed,
    Offer,
    Ping,
    Pong,
    Share,
    SharedAnswer,
    SharedCall,
    aligned,
    checked_spans,
    decoded_asked,
    decoded_said,
    spans_from,
)
from modelkeep.kernels.replica_frames import FrameReader, framed

NUMBERS = st.integers(-(2**63), 2**64 - 1)


@given(st.binary(max_size=200))
def test_no_bytes_do_anything_but_decode_or_be_refused(raw):
    for decode in (decoded_asked, decoded_said):
        try:
            decode(raw)
        except IntegrityError as error:
            assert error.code == "record.msgpack"  # noqa: PT017 - most bytes are refused


@pytest.mark.parametrize(
    "row",
    [Share(4096), SharedCall(1, ((1, 2),), ((0, 8),)), Freed(64), Ping(3)],
    ids=str,
)
def test_what_a_gateway_sends_comes_out_again(row):
    (raw,) = FrameReader().frames(framed(row))
    assert decoded_asked(raw) == row


@pytest.mark.parametrize("row", [Offer(("ping",)), Pong(3), SharedAnswer(1, ((2,),), 0, (8,))])
def test_what_a_replica_sends_comes_out_again(row):
    (raw,) = FrameReader().frames(framed(row))
    assert decoded_said(raw) == row


@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=10), st.integers(0, 1 << 30))
def test_spans_that_pass_lie_within_and_claim_no_more_than_there_is(spans, size):
    try:
        checked_spans(spans, size)
    except IntegrityError as error:
        assert error.code == "frame.span"  # noqa: PT017 - most spans are refused
        return
    assert all(0 <= offset <= offset + length <= size for offset, length in spans)
    assert sum(length for _, length in spans) <= size


def test_many_places_of_the_same_bytes_are_refused():
    checked_spans([(0, 1024)], 1024)
    with pytest.raises(IntegrityError):
        checked_spans([(0, 1024)] * 2, 1024)
    with pytest.raises(IntegrityError):
        checked_spans([(0, 0)] * 5000, 1024)


@given(st.lists(st.integers(0, 5000), max_size=8), st.integers(0, 100))
def test_tensors_one_after_the_other_do_not_overlap(lengths, at):
    offset = at * 64
    end = offset
    for start, length in spans_from(offset, lengths):
        assert start == end
        assert start % 64 == 0
        end = start + aligned(length)
