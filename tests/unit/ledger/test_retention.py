"""Old segments go: only whole, only covered, only the oldest, never the last."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.ledger.retention import KeptSegment, kept_from

# Positions 0-9, 10-19, 20-29, 30-…; one written each second, 100 bytes each.
SEGMENTS = [KeptSegment(10 * n, 100, n) for n in range(4)]


@pytest.mark.parametrize(
    ("covered", "before_ns", "bytes_max", "kept"),
    [
        (40, 0, 0, 0),  # nothing is too old, nothing too much
        (40, 1, 0, 10),
        (40, 2, 0, 20),
        (40, 99, 0, 30),  # the last stays
        (15, 99, 0, 10),  # what no batch covers stays
        (9, 99, 0, 0),
        (40, 0, 400, 0),
        (40, 0, 399, 10),
        (40, 0, 101, 30),
        (40, 0, 1, 30),
        (19, 0, 1, 10),
    ],
)
def test_what_goes(covered, before_ns, bytes_max, kept):
    found = kept_from(SEGMENTS, covered=covered, before_ns=before_ns, bytes_max=bytes_max)
    assert found == kept


def test_an_empty_journal_keeps_everything():
    assert kept_from([], covered=0, before_ns=99, bytes_max=1) == 0


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    covered=st.integers(0, 60),
    before_ns=st.integers(0, 9),
    bytes_max=st.integers(0, 500),
)
def test_nothing_uncovered_ever_goes(lengths, covered, before_ns, bytes_max):
    firsts = [sum(lengths[:at]) for at in range(len(lengths))]
    segments = [KeptSegment(first, 50, at) for at, first in enumerate(firsts)]
    kept = kept_from(segments, covered=covered, before_ns=before_ns, bytes_max=bytes_max)
    assert kept in firsts
    assert kept == 0 or kept <= covered
