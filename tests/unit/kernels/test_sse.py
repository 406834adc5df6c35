"""Cutting server-sent events out of bytes: the same events however they come, and bounds."""

from __future__ import annotations

import contextlib
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import IntegrityError
from modelkeep.kernels.sse import EventReader

LINES = st.sampled_from(
    [b"data: a", b"data:b", b"data", b"data: ", b": note", b"id: 7", b"event: x", b"", b"junk"]
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


def events_of(*parts, bytes_max=1024):
    reader = EventReader(bytes_max)
    return [event for part in parts for event in reader.events(part)]


@given(st.lists(st.tuples(LINES, ENDS)), st.lists(st.integers(0, 200)))
def test_events_are_the_same_however_the_bytes_are_cut(lines, cuts):
    raw = b"".join(line + end for line, end in lines)
    places = sorted({min(cut, len(raw)) for cut in cuts} | {0, len(raw)})
    parts = [raw[a:b] for a, b in pairwise(places)]
    assert events_of(*parts) == events_of(raw)
    assert events_of(*(raw[i : i + 1] for i in range(len(raw)))) == events_of(raw)


@given(st.lists(st.binary(max_size=200)))
def test_no_bytes_do_more_than_make_events_or_one_error(parts):
    reader = EventReader(64)
    with contextlib.suppress(IntegrityError):
        for part in parts:
            assert all(len(event) <= 64 for event in reader.events(part))


def test_the_standard_s_own_examples():
    assert events_of(b"data: YHOO\ndata: +2\ndata: 10\n\n") == [b"YHOO\n+2\n10"]
    text = b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third\n\n"
    assert events_of(text) == [b"first event", b"second event", b" third"]
    assert events_of(b"data\n\ndata\ndata\n\ndata:") == [b"", b"\n"]
    assert events_of(b"data:test\n\ndata: test\n\n") == [b"test", b"test"]
    assert events_of(b"\xef\xbb\xbfdata: a\n\n") == [b"a"]


@pytest.mark.parametrize("line", [b"data: %b", b"x%b", b": %b"])
def test_an_event_at_the_bound_passes_and_one_past_it_does_not(line):
    whole = line % (b"x" * (100 - len(line) + 2))
    assert len(whole) == 100
    assert events_of(whole, b"\n\n", bytes_max=100) == ([whole[6:]] if line[:4] == b"data" else [])
    for parts in ((whole + b"x",), (whole, b"x"), (whole + b"\n", b"x"), (whole + b"x\n\n",)):
        with pytest.raises(IntegrityError):
            events_of(*parts, bytes_max=100)


def test_a_line_in_single_bytes_costs_no_more_than_its_bytes():
    """An event of a megabyte that comes byte by byte; a reader that joins each time takes hours."""
    reader = EventReader()
    started_s = time.process_time()
    for _ in range(200_000):
        assert not list(reader.events(b"x"))
    assert time.process_time() - started_s < 5
