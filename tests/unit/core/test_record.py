"""Records decode strictly: what is not exactly such a record is an IntegrityError, never less."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.artifact import Canary, Manifest
from modelkeep.core.entry import Entry
from modelkeep.core.errors import IntegrityError
from modelkeep.core.record import (
    Record,
    Row,
    as_plain,
    converted,
    field_facts,
    from_json,
    from_msgpack,
    json_decoder,
    msgpack_decoder,
    parsed_json,
    to_json,
    to_msgpack,
)


class Point(Record, frozen=True):
    """A point.

    Attributes:
        x: how far to the right,
            in metres.
        labels: what people call it.
    """

    x: int
    y: float = 0.0
    labels: tuple[str, ...] = ()


class Pair(Row, frozen=True, tag="pair"):
    """Two numbers in a row."""

    left: int
    right: int


def test_a_record_comes_back_from_both_encodings():
    point = Point(x=3, y=0.5, labels=("a", "ü"))
    assert from_json(Point, to_json(point), what="it") == point
    assert from_msgpack(Point, to_msgpack(point), what="it") == point
    assert converted(Point, as_plain(point), what="it") == point


@given(st.builds(Entry, kind=st.text(), at_ns=st.integers(0, 2**63 - 1), actor=st.text()))
def test_any_entry_comes_back(entry):
    assert from_json(Entry, to_json(entry), what="it") == entry
    assert from_msgpack(Entry, to_msgpack(entry), what="it") == entry


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"x":1,"z":2}',
        b'{"x":"1"}',
        b'{"x":1.5}',
        b'{"x":true}',
        b'{"x":null}',
        b'{"x":1,"labels":"a"}',
        b'{"x":1,"labels":[1]}',
        b'{"x":1}}',
        b'{"x":1} x',
        b'{"x":1',
        b'{"x":1,"y":NaN}',
        b'\xff{"x":1}',
        b'{"x":1,"labels":["\xff"]}',
        b'{"x":1,"labels":["\\ud800"]}',
    ],
)
def test_json_that_is_not_exactly_such_a_record_is_refused(raw):
    with pytest.raises(IntegrityError) as refused:
        from_json(Point, raw, what="the point")
    assert refused.value.code == "record.json"
    assert refused.value.message.startswith("the point is not valid")


def test_trailing_bytes_are_refused_in_messagepack_too():
    raw = to_msgpack(Point(x=1))
    for more in (b"\0", raw):
        with pytest.raises(IntegrityError) as refused:
            from_msgpack(Point, raw + more, what="it")
        assert refused.value.code == "record.msgpack"
    for cut in range(len(raw)):
        with pytest.raises(IntegrityError):
            from_msgpack(Point, raw[:cut], what="it")


def test_nesting_without_end_is_refused_and_never_crashes():
    deep = 200_000
    for raw in (b"[" * deep, b'{"a":' * deep, b'{"inputs":' + b"[" * deep):
        with pytest.raises(IntegrityError):
            parsed_json(raw, what="it")
        with pytest.raises(IntegrityError):
            from_json(Canary, raw, what="it")
    with pytest.raises(IntegrityError):
        from_msgpack(Canary, b"\x81\xa6inputs" + b"\x91" * deep, what="it")


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_an_integrity_error(raw):
    for decode in (
        lambda: from_json(Manifest, raw, what="it"),
        lambda: from_msgpack(Manifest, raw, what="it"),
        lambda: parsed_json(raw, what="it"),
        lambda: json_decoder(Point, what="it")(raw),
        lambda: msgpack_decoder(Pair, what="it")(raw),
    ):
        with contextlib.suppress(IntegrityError):
            decode()


def test_a_row_keeps_its_tag_and_its_length():
    decode = msgpack_decoder(Pair, what="a pair")
    assert decode(to_msgpack(Pair(1, 2))) == Pair(1, 2)
    for wrong in (["other", 1, 2], ["pair", 1], ["pair", 1, 2, 3], ["pair", 1, "2"], [1, 2]):
        with pytest.raises(IntegrityError):
            decode(to_msgpack(wrong))


def test_a_record_cannot_be_changed():
    point = Point(x=1)
    with pytest.raises(AttributeError):
        point.x = 2


def test_plain_containers_are_checked_like_bytes():
    assert converted(Point, {"x": 1, "labels": ["a"]}, what="it") == Point(x=1, labels=("a",))
    for wrong in ({}, {"x": "1"}, {"x": 1, "z": 1}, [], None, 1):
        with pytest.raises(IntegrityError) as refused:
            converted(Point, wrong, what="it")
        assert refused.value.code == "record.plain"


def test_a_records_fields_can_be_explained_from_itself():
    x, y, labels = field_facts(Point)
    assert (x.name, x.type, x.default) == ("x", "int", "required")
    assert x.sentence == "how far to the right, in metres."
    assert (y.default, y.sentence) == ("0.0", "")
    assert labels.is_tuple
