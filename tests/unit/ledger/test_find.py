"""What is asked for is found, and times are read as RFC 3339 says."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.entry import Entry
from modelkeep.core.errors import UsageError
from modelkeep.core.instant import rfc3339
from modelkeep.ledger.find import Query, fact_text, instant_ns

ENTRY = Entry(
    kind="model.admitted",
    at_ns=1_000,
    actor="cli:root",
    facts={"model": "fraud", "version": 3, "ok": True, "rules": ("a", "b"), "none": None},
)


@pytest.mark.parametrize(
    ("query", "is_met"),
    [
        (Query(), True),
        (Query(kind="model."), True),
        (Query(kind="model.admitted"), True),
        (Query(kind="token."), False),
        (Query(actor="cli:root"), True),
        (Query(actor="cli"), False),
        (Query(tenant="default"), True),
        (Query(tenant="other"), False),
        (Query(since_ns=1_000), True),
        (Query(since_ns=1_001), False),
        (Query(until_ns=1_000), False),
        (Query(until_ns=1_001), True),
        (Query(facts=(("model", "fraud"), ("version", "3"))), True),
        (Query(facts=(("ok", "true"), ("rules", '["a","b"]'), ("none", "null"))), True),
        (Query(facts=(("model", "fra"),)), False),
        (Query(facts=(("absent", ""),)), False),
    ],
)
def test_an_entry_is_met_by_all_that_is_asked(query, is_met):
    assert query.is_met_by(ENTRY) is is_met


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1970-01-01", 0),
        ("1970-01-01T00:00:01Z", 10**9),
        ("1970-01-01t00:00:01z", 10**9),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01 00:00Z", 0),
        ("1969-12-31T23:59:59.5Z", -(10**9) + 500_000_000),
        ("2023-11-14T22:13:20.123456789Z", 1_700_000_000_123_456_789),
    ],
)
def test_a_time_is_read(text, wanted):
    assert instant_ns(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026",
        "2026-13-01",
        "2026-01-01T25:00Z",
        "2026-01-01T00:00",
        "\u0662\u0660\u0662\u0666-01-01",
        "2026-01-01T00:00:00.1234567890Z",
        "0000-01-01",
        "2026-W01-1",
    ],
)
def test_what_is_no_time_is_refused(text):
    with pytest.raises(UsageError, match=r"time\.form"):
        instant_ns(text)


@given(st.integers(-(10**18), 2**62))
def test_what_is_written_is_read(at_ns):
    assert instant_ns(rfc3339(at_ns)) == at_ns // 10**6 * 10**6


@given(st.text())
def test_any_text_is_a_time_or_refused(text):
    with suppress(UsageError):
        assert isinstance(instant_ns(text), int)


def test_facts_read_as_they_are_asked_for():
    assert [fact_text(each) for each in (1, 0.5, True, None, "x y", ("a",))] == [
        "1", "0.5", "true", "null", "x y", '["a"]',
    ]  # fmt: skip
