"""Reading a long ledger from its end costs what is shown, not what there is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scenes import Scene

from modelkeep.core.entry import Entry
from modelkeep.core.errors import MissingError
from modelkeep.flows.ledger_find import entry_at, found, newest_first, tailed
from modelkeep.ledger.find import Query

COUNT = 5000


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """An open keep with a long ledger, and how many of its entries were read."""
    scene = Scene(tmp_path_factory.mktemp("long"))
    scene.create().close()
    entries = [
        Entry(kind=f"note.{'odd' if n % 2 else 'even'}", at_ns=n, actor="a") for n in range(COUNT)
    ]
    with scene.open() as keep:
        for start in range(0, COUNT, 500):
            keep.opened.recorder.record(entries[start : start + 500])
    with scene.open() as keep:
        read = []

        def history(start):
            for each in keep.opened.history(start):
                read.append(each[0])
                yield each

        yield replace(keep.opened, history=history), read


def test_the_last_entries_are_read_from_the_end(counted):
    keep, read = counted
    tailed(keep, last=1, query=Query())  # what opening left to State is read once
    read.clear()
    last = tailed(keep, last=20, query=Query(kind="note."))
    assert [entry.at_ns for _, entry in last] == list(range(COUNT - 20, COUNT))
    assert len(read) < 2500
    odd = tailed(keep, last=3, query=Query(kind="note.odd"))
    assert [entry.at_ns for _, entry in odd] == [COUNT - 5, COUNT - 3, COUNT - 1]
    assert tailed(keep, last=0, query=Query()) == []
    assert tailed(keep, last=-1, query=Query()) == []


def test_backwards_and_forwards_are_the_same_entries(counted):
    keep, _ = counted
    forwards = list(found(keep, Query()))
    assert list(newest_first(keep)) == forwards[::-1]
    assert len(forwards) >= COUNT


def test_one_entry_is_read_alone(counted):
    keep, read = counted
    first = next(index for index, entry in found(keep, Query(kind="note.")))
    read.clear()
    assert entry_at(keep, first + 17).at_ns == 17
    assert len(read) < 10
    for index in (-1, 10**9, 2**63):
        with pytest.raises(MissingError, match=r"ledger\.no_entry"):
            entry_at(keep, index)
