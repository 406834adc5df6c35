"""Wrapped bytes have one form, one bound and one kind; a label stands inside."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import IntegrityError, KeepError
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.wrapped_key import (
    WRAPPED_BYTES_MAX,
    box_of,
    key_of_hex,
    key_of_labelled,
    labelled_key,
    opened_key,
    sealed_key,
    secret_of_text,
    wrapped_bytes,
)

KEY = Secret(bytes(range(32)))
WRAPPING = Secret(b"w" * 32)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_wrapped_key_or_an_error_of_ours(raw):
    for read in (
        lambda: box_of("file", raw),
        lambda: opened_key(WRAPPING, raw, kind="file"),
        lambda: key_of_labelled("file", raw),
        lambda: key_of_hex(raw, what="it"),
        lambda: secret_of_text(raw, what="it"),
    ):
        with contextlib.suppress(KeepError):
            read()


@given(st.binary(max_size=500))
def test_what_was_written_is_read(box):
    assert box_of("vault", wrapped_bytes("vault", box)) == box


def test_one_byte_past_the_bound_is_refused_before_it_is_decoded():
    with pytest.raises(IntegrityError) as refused:
        box_of("file", b" " * (WRAPPED_BYTES_MAX + 1))
    assert refused.value.code == "keysource.size"
    with pytest.raises(IntegrityError) as refused:
        box_of("file", b" " * WRAPPED_BYTES_MAX)
    assert refused.value.code == "record.json"


@pytest.mark.parametrize(
    "raw",
    [
        b'{"kind":"file","box":"AB=="}',  # spare bits
        b'{"kind":"file", "box":"AA=="}',
        b'{"box":"AA==","kind":"file"}',
        b'{"kind":"file","box":"AA=="}\n',
        b'{"kind":"fil\\u0065","box":"AA=="}',
    ],
)
def test_another_spelling_of_the_same_bytes_is_refused(raw):
    with pytest.raises(IntegrityError):
        box_of("file", raw)


def test_a_label_of_another_kind_is_no_key():
    for kind, raw in (
        ("vault", labelled_key("gcp", KEY)),
        ("vault", labelled_key("vault", KEY) + b"x"),
        ("vault", labelled_key("vault", KEY)[:-1]),
        ("vault", KEY.reveal()),
    ):
        with pytest.raises(IntegrityError) as refused:
            key_of_labelled(kind, raw)
        assert refused.value.code == "keysource.purpose"


@pytest.mark.parametrize("read", [key_of_hex, secret_of_text])
def test_what_is_no_secret_is_not_shown(read):
    with pytest.raises(KeepError) as refused:
        read(b"hunter2\0hunter2", what="it")
    assert "hunter2" not in str(refused.value.as_facts())


def test_relabelled_bytes_do_not_open():
    wrapped = sealed_key(WRAPPING, KEY, kind="file", salt=b"s" * 32)
    assert opened_key(WRAPPING, wrapped, kind="file") == KEY
    with pytest.raises(KeepError) as refused:
        opened_key(WRAPPING, wrapped_bytes("exec", box_of("file", wrapped)), kind="exec")
    assert refused.value.code == "keys.source"
