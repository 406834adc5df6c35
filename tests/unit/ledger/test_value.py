"""Private facts open with their own key and no other, and not at all without it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.entry import Entry
from modelkeep.core.errors import IntegrityError
from modelkeep.core.record import from_json, to_json
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import Signer
from modelkeep.ledger.value import (
    RANDOM_BYTES,
    demand_value,
    erased_name,
    erasure,
    opened_value,
    parsed_value_name,
    private_names,
    sealed_value,
    value_name,
    value_of,
)

BODY_KEY = Secret(b"b" * 32)
SIGNER = Signer(Secret(b"s" * 32))
FACTS = {"who": "Alice", "age": 44, "yes": True, "share": 0.5, "none": None}


def sealed(facts=FACTS, seed=1):
    return sealed_value(facts, body_key=BODY_KEY, random=bytes([seed]) * RANDOM_BYTES)


def entry_of(value):
    made = Entry(kind="note.x", at_ns=1, actor="a", facts={"public": 1, **value.facts})
    return from_json(Entry, to_json(made), what="entry")  # as it comes back from a store


def opened(entry, kept, key=BODY_KEY):
    return opened_value(entry, kept, body_key=key)


facts = st.dictionaries(
    st.from_regex(r"[a-z][a-z0-9_]{0,10}", fullmatch=True),
    st.one_of(st.text(), st.booleans(), st.none(), st.integers(-(2**63), 2**63 - 1)),
    max_size=5,
)


@given(facts)
def test_what_was_sealed_is_opened(plain):
    value = sealed(plain)
    entry = entry_of(value)
    assert value_of(entry) == value.value_id
    assert private_names(entry) == tuple(plain)
    assert opened(entry, value.kept_key) == plain


def test_neither_entry_nor_key_object_shows_the_content():
    value = sealed()
    assert b"Alice" not in to_json(value.facts) + value.kept_key


def test_without_the_key_object_the_body_key_opens_nothing():
    """What erasing rests on: the entry's ciphertext is under a key that nothing derives."""
    value = sealed()
    entry = entry_of(value)
    for other in (sealed(seed=2).kept_key, bytes(80), b"", value.kept_key[:-1]):
        with pytest.raises(IntegrityError):
            opened(entry, other)
    with pytest.raises(IntegrityError):
        opened(entry, value.kept_key, Secret(b"x" * 32))


def test_an_entry_commits_to_its_one_key():
    """A key object that was made for another value, or under another name, does not count."""
    mine, other = sealed(), sealed(seed=2)
    with pytest.raises(IntegrityError):
        demand_value(
            value_name(mine.value_id), other.kept_key, body_key=BODY_KEY, public=SIGNER.public
        )
    demand_value(value_name(mine.value_id), mine.kept_key, body_key=BODY_KEY, public=SIGNER.public)


def test_a_mark_of_erasure_is_this_keeps_and_of_one_value():
    mine, other = sealed().value_id, sealed(seed=2).value_id
    mark = erasure(mine, signer=SIGNER)
    demand_value(erased_name(mine), mark, body_key=BODY_KEY, public=SIGNER.public)
    stranger = Signer(Secret(b"x" * 32))
    for name, raw, public in (
        (erased_name(other), mark, SIGNER.public),
        (erased_name(mine), mark, stranger.public),
        (erased_name(mine), erasure(mine, signer=stranger), SIGNER.public),
        (erased_name(mine), mark[:-1], SIGNER.public),
        (value_name(mine), mark, SIGNER.public),
    ):
        with pytest.raises(IntegrityError):
            demand_value(name, raw, body_key=BODY_KEY, public=public)


@given(st.text(alphabet="0123456789abcdef/valuersd", max_size=90), st.binary(max_size=120))
def test_rubbish_is_refused_and_nothing_else(name, raw):
    with pytest.raises(IntegrityError):
        demand_value(name, raw, body_key=BODY_KEY, public=SIGNER.public)


def test_names_are_read_as_written():
    value_id = sealed().value_id
    assert parsed_value_name(value_name(value_id)) == ("value", value_id)
    assert parsed_value_name(erased_name(value_id)) == ("erased", value_id)
    assert parsed_value_name(f"value/00/{value_id}") == ("", "")
    assert parsed_value_name("value/../x") == ("", "")


@pytest.mark.parametrize(
    "wrong", [{"value": "x"}, {"value": 7}, {"sealed": None}, {"value": "../../etc"}]
)
def test_an_entry_that_only_looks_like_it_has_none(wrong):
    base = {"value": sealed().value_id, **wrong}
    if "sealed" not in wrong:
        base["sealed"] = "AA=="
    entry = Entry(kind="note.x", at_ns=1, actor="a", facts=base)
    if "sealed" in wrong:
        assert value_of(entry)
        with pytest.raises(IntegrityError):
            opened(entry, sealed().kept_key)
    else:
        assert value_of(entry) == ""
