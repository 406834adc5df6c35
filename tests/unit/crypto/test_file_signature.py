"""Detached signatures: of exactly these bytes, in exactly one form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import IntegrityError, KeepError
from modelkeep.crypto.file_signature import (
    SIGNATURE_TEXT_BYTES,
    FileDigest,
    parsed_signature,
    signed_file,
)
from modelkeep.crypto.recipients import Identity
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import verify

ME = Identity(Secret(bytes(32)))


def digest(raw):
    found = FileDigest()
    found.update(raw)
    return found


TEXT = signed_file(digest(b"weights"), ME.signer)


@given(st.lists(st.binary(max_size=50)))
def test_a_signature_verifies_however_the_file_is_read(blocks):
    parts = FileDigest()
    for block in blocks:
        parts.update(block)
    found = parsed_signature(signed_file(parts, ME.signer))
    assert found.verifier == ME.signer.public
    found.verify(digest(b"".join(blocks)))


@given(st.binary(max_size=50))
def test_other_bytes_do_not_verify(raw):
    if raw != b"weights":
        with pytest.raises(IntegrityError) as refused:
            parsed_signature(TEXT).verify(digest(raw))
        assert refused.value.code == "signature.bad"


def test_a_signature_of_a_file_serves_nothing_else():
    found = parsed_signature(TEXT)
    for context in ("manifest", "sealed-file", "pack"):
        with pytest.raises(IntegrityError):
            verify(
                found.signature, digest(b"weights").message, context=context, public=found.verifier
            )


def test_the_form_is_fixed():
    assert len(TEXT) == SIGNATURE_TEXT_BYTES - 1
    assert TEXT.startswith(b"modelkeep signature v0\nmkv1")
    assert signed_file(digest(b"weights"), ME.signer) == TEXT


def test_any_flipped_bit_is_noticed():
    for at in range(len(TEXT) * 8):
        changed = bytearray(TEXT)
        changed[at // 8] ^= 1 << (at % 8)
        with pytest.raises(KeepError):
            parsed_signature(bytes(changed)).verify(digest(b"weights"))


@pytest.mark.parametrize(
    "change",
    [
        lambda _: b"",
        lambda text: text[:-1],
        lambda text: text + b"\n",
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text.replace(b"v0", b"v1"),
        lambda text: b" " + text,
        lambda text: text[:23] + text[23:83].upper() + text[83:],
        lambda text: text[:-2] + b"\n",
        lambda text: text[:-2] + b"==\n",
    ],
)
def test_nothing_but_the_one_form_is_read(change):
    with pytest.raises(IntegrityError) as refused:
        parsed_signature(change(TEXT))
    assert refused.value.code == "signature.form"


@given(st.binary(max_size=200))
def test_no_bytes_make_the_parser_do_anything_but_refuse(raw):
    with pytest.raises(IntegrityError):
        parsed_signature(raw)
