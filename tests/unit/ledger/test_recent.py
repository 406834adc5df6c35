"""What is remembered is what was added, or nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelkeep.ledger.recent import RecentRecords


@given(
    sizes=st.lists(st.integers(1, 5), max_size=12),
    bytes_max=st.integers(0, 40),
    start=st.integers(0, 40),
    length=st.integers(0, 40),
    needed_from=st.integers(0, 40),
)
def test_a_range_is_whole_or_not_there(sizes, bytes_max, start, length, needed_from):
    recent, everything = RecentRecords(bytes_max), []
    for number, size in enumerate(sizes):
        if number == len(sizes) // 2:
            recent.forget_before(min(needed_from, len(everything)))
        fresh = [b"%02d" % (len(everything) + at) for at in range(size)]
        recent.add(len(everything), fresh)
        everything += fresh
    found = recent.between(start, start + length)
    assert found is None or found == everything[start : start + length]
    if everything and bytes_max >= 2 * len(everything) and needed_from == 0:
        end = min(start + length, len(everything))
        assert recent.between(min(start, end), end) == everything[min(start, end) : end]


def test_what_is_published_is_forgotten_with_the_next():
    recent = RecentRecords()
    recent.add(0, [b"a", b"b"])
    recent.add(2, [b"c"])
    recent.forget_before(2)
    recent.add(3, [b"d"])
    assert recent.between(0, 2) is None
    assert recent.between(2, 4) == [b"c", b"d"]
