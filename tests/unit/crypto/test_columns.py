"""A cell opens where it was sealed, whole and under its own key, and nowhere else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.crypto.columns import (
    GRAIN_BYTES,
    KEYS_MAX,
    NONCE_BYTES,
    VALUE_BYTES_MAX,
    CellCipher,
    ColumnKeys,
    Kind,
)
from modelkeep.crypto.kdf import derived_key
from modelkeep.crypto.secret import Secret

OLD, NEW = Secret(bytes(range(32))), Secret(bytes(range(1, 33)))
KEYS = ColumnKeys(newest="new", secrets={"old": OLD, "new": NEW})
NONCE = bytes(range(NONCE_BYTES))
PLACE = "people.email"
CIPHER = CellCipher(KEYS, PLACE)
ONLY_OLD = CellCipher(ColumnKeys(newest="old", secrets={"old": OLD}), PLACE)
VALUE = b"ada@example.org"

values = st.binary(max_size=200)
nonces = st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES)


def code_of(cipher, cell, **more):
    with pytest.raises(IntegrityError) as refused:
        cipher.opened(cell, **more)
    assert VALUE.decode() not in str(refused.value)
    return refused.value.code


@given(values, nonces, st.binary(max_size=50))
def test_what_was_sealed_opens(value, nonce, row):
    assert CIPHER.opened(CIPHER.sealed(value, nonce=nonce, row=row), row=row) == value
    assert CIPHER.opened(CIPHER.searchable(value)) == value


@given(values, values)
def test_searchable_cells_are_equal_exactly_when_their_values_are(one, other):
    assert (CIPHER.searchable(one) == CIPHER.searchable(other)) == (one == other)


def test_sealed_cells_of_one_value_differ_and_a_repeated_nonce_shows_equality_only():
    first = CIPHER.sealed(VALUE, nonce=NONCE)
    assert first != CIPHER.sealed(VALUE, nonce=bytes(NONCE_BYTES))
    other = CIPHER.sealed(VALUE[::-1], nonce=NONCE)
    start = len(CIPHER.head(Kind.SEALED)) + NONCE_BYTES
    together = bytes(a ^ b for a, b in zip(first[start:], other[start:], strict=True))
    plain = bytes(a ^ b for a, b in zip(VALUE, VALUE[::-1], strict=True))
    assert together[16 : 16 + len(plain)] != plain, "two cells share a key stream"


def test_a_search_names_the_cell_under_every_key():
    assert ONLY_OLD.searchable(VALUE) in CIPHER.searched(VALUE)
    assert CIPHER.searchable(VALUE) in CIPHER.searched(VALUE)
    assert len(CIPHER.searched(VALUE)) == 2


def test_the_newest_key_writes_and_the_old_one_still_reads():
    assert CIPHER.opened(ONLY_OLD.sealed(VALUE, nonce=NONCE)) == VALUE
    assert CIPHER.sealed(VALUE, nonce=NONCE).startswith(CIPHER.head(Kind.SEALED))
    assert code_of(ONLY_OLD, CIPHER.sealed(VALUE, nonce=NONCE)) == "columns.unknown_key"


def made():
    yield CIPHER.sealed(VALUE, nonce=NONCE, row=b"row 1"), b"row 1"
    yield CIPHER.searchable(VALUE), b""


def test_no_flipped_bit_opens():
    for cell, row in made():
        for at in range(len(cell) * 8):
            changed = bytearray(cell)
            changed[at // 8] ^= 1 << (at % 8)
            code = code_of(CIPHER, bytes(changed), row=row)
            assert code in {"columns.form", "columns.unknown_key", "columns.tag"}


def test_no_cell_opens_that_is_cut_or_longer():
    for cell, row in made():
        for length in range(len(cell)):
            code_of(CIPHER, cell[:length], row=row)
        code_of(CIPHER, cell + b"\0", row=row)
        code_of(CIPHER, cell + bytes(VALUE_BYTES_MAX), row=row)


def test_a_cell_that_was_moved_does_not_open():
    elsewhere = CellCipher(KEYS, "people.phone")
    bound = CIPHER.sealed(VALUE, nonce=NONCE, row=b"row 1")
    assert code_of(elsewhere, CIPHER.searchable(VALUE)) == "columns.tag"
    assert code_of(elsewhere, bound, row=b"row 1") == "columns.tag"
    assert code_of(CIPHER, bound, row=b"row 2") == "columns.tag"
    assert code_of(CIPHER, bound) == "columns.tag"
    assert code_of(CIPHER, CIPHER.sealed(VALUE, nonce=NONCE), row=b"row 1") == "columns.tag"


def test_a_cell_under_another_secret_of_the_same_name_does_not_open():
    foreign = CellCipher(ColumnKeys(newest="new", secrets={"new": OLD}), PLACE)
    assert code_of(CIPHER, foreign.searchable(VALUE)) == "columns.tag"


@given(st.binary(max_size=300) | st.binary(max_size=100).map(b"\x02\x03new".__add__))
def test_no_bytes_make_it_raise_anything_but_integrity_errors(raw):
    code_of(CIPHER, raw)


@pytest.mark.parametrize("grain", range(3))
def test_lengths_show_only_to_a_grain(grain):
    first = len(CIPHER.searchable(bytes(grain * GRAIN_BYTES)))
    within = range(grain * GRAIN_BYTES, (grain + 1) * GRAIN_BYTES)
    assert {len(CIPHER.searchable(bytes(length))) for length in within} == {first}
    assert len(CIPHER.searchable(bytes((grain + 1) * GRAIN_BYTES))) == first + GRAIN_BYTES


def test_a_value_may_be_a_mebibyte_and_not_a_byte_longer():
    longest = bytes(VALUE_BYTES_MAX)
    assert CIPHER.opened(CIPHER.sealed(longest, nonce=NONCE)) == longest
    for make in (CIPHER.searchable, CIPHER.searched, lambda v: CIPHER.sealed(v, nonce=NONCE)):
        with pytest.raises(UsageError) as refused:
            make(longest + b"x")
        assert refused.value.code == "columns.size"


def test_a_nonce_of_another_length_is_our_own_mistake():
    with pytest.raises(AssertionError):
        CIPHER.sealed(VALUE, nonce=bytes(12))


@pytest.mark.parametrize(
    ("newest", "secrets"),
    [
        ("a", {}),
        ("a", {"b": NEW}),
        ("a", {"a": Secret(bytes(16))}),
        ("A", {"A": NEW}),
        ("", {"": NEW}),
        ("a" * 33, {"a" * 33: NEW}),
        ("k0", {f"k{number}": NEW for number in range(KEYS_MAX + 1)}),
    ],
)
def test_a_ring_that_is_not_well_formed_is_refused(newest, secrets):
    with pytest.raises(UsageError) as refused:
        ColumnKeys(newest=newest, secrets=secrets)
    assert refused.value.code == "columns.keys"


@pytest.mark.parametrize("place", ["", "People.email", "a/b", "a" * 101, ".a"])
def test_a_place_that_is_not_well_formed_is_refused(place):
    with pytest.raises(UsageError) as refused:
        CellCipher(KEYS, place)
    assert refused.value.code == "columns.place"


def test_a_ring_does_not_change_with_the_mapping_it_was_made_of():
    secrets = {"a": NEW}
    keys = ColumnKeys(newest="a", secrets=secrets)
    secrets.clear()
    assert keys.secrets["a"] == NEW
    assert "Secret(…)" in repr(keys)


def test_a_ring_of_a_parent_has_a_key_per_purpose():
    keys = ColumnKeys.derived(OLD, ["2025", "2026"], newest="2026")
    assert keys.secrets["2026"] == derived_key(OLD, "columns/2026")
    assert keys.secrets["2025"] != keys.secrets["2026"]


def test_cells_of_this_release_open_in_every_later_one():
    """Golden bytes: a change here is a new kind of cell, not a new number in this test."""
    assert CIPHER.searchable(VALUE).hex() == (
        "02036e6577d6e61760aff3c12660e1212f50bfc613a48c47583db98ea1b7c8655d711827d2648acd"
        "1a45f329e9c9d1cbb4d9385208"
    )
    assert CIPHER.sealed(VALUE, nonce=NONCE, row=b"row 1").hex() == (
        "01036e6577000102030405060708090a0b0c0d0e0f97eed7314480c79b67e09bcc324c74f2e29e72"
        "3c9210d35a3a5997659b71cae1dab16b7cfeec59fef1b824faff6912e9"
    )
