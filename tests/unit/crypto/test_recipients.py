"""Recipients: the published X-Wing key comes out, and only the right identity ever opens."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.crypto import recipients
from modelkeep.crypto.recipients import (
    SEALED_KEY_BYTES,
    Identity,
    new_identity,
    opened_by,
    parsed_recipient,
    recipient_of,
    sealed_to,
)
from modelkeep.crypto.secret import Secret

ME = Identity(Secret(bytes(range(32))))
OTHER = Identity(Secret(bytes(32)))
KEY = Secret(bytes(range(100, 132)))
SEALED = sealed_to(ME.recipient, KEY, info=b"test")


def refused(sealed, *, identity=ME, info=b"test"):
    with pytest.raises(IntegrityError) as found:
        opened_by(identity, sealed, info=info)
    assert found.value.code == "recipient.sealed"


def test_the_published_key_pair_of_x_wing_comes_out():
    """draft-connolly-cfrg-xwing-kem, appendix C, first vector: the beginning of its public key."""
    seed = "7f9c2ba4e88f827d616045507605853ed73b8093f6efbc88eb1a6eacfa66ef26"
    _, public = recipients._key_pair(Secret(bytes.fromhex(seed)))
    assert public.hex().startswith(
        "e2236b35a8c24b39b10aa1323a96a919a2ced88400633a7b07131713fc14b2b5b19cfc3d"
    )
    assert len(public) == 1216


def test_an_identity_is_its_seed():
    again = Identity(Secret(ME.seed.reveal()))
    assert again.recipient == ME.recipient
    assert again.signer.public == ME.signer.public
    assert again.opened(SEALED, info=b"test") == KEY
    assert "Secret" not in repr(ME)
    assert ME.seed.reveal().hex() not in repr(ME)


def test_opening_and_signing_share_no_key():
    assert ME.signer.public not in ME.recipient.raw


def test_new_identities_differ():
    assert new_identity(os.urandom).recipient != new_identity(os.urandom).recipient


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=40))
def test_what_was_sealed_opens(key, info):
    sealed = sealed_to(ME.recipient, Secret(key), info=info)
    assert len(sealed) == SEALED_KEY_BYTES
    assert opened_by(ME, sealed, info=info) == Secret(key)


def test_sealing_twice_gives_other_bytes():
    assert sealed_to(ME.recipient, KEY, info=b"test") != SEALED


def test_only_the_right_identity_opens_for_the_right_use():
    refused(SEALED, identity=OTHER)
    for info in (b"", b"tes", b"test\0", b"TEST"):
        refused(SEALED, info=info)


@given(st.integers(0, SEALED_KEY_BYTES * 8 - 1))
def test_any_flipped_bit_is_noticed(at):
    changed = bytearray(SEALED)
    changed[at // 8] ^= 1 << (at % 8)
    # The top bit of an X25519 share does not count (RFC 7748), but HPKE binds the bytes.
    refused(bytes(changed))


@given(st.integers(0, SEALED_KEY_BYTES - 1), st.binary(min_size=1, max_size=40))
def test_any_cut_and_any_longer_bytes_are_noticed(length, more):
    refused(SEALED[:length])
    refused(SEALED + more)


def test_a_share_of_low_order_is_noticed():
    refused(SEALED[:1088] + bytes(32) + SEALED[1120:])


@given(st.binary(max_size=2000))
def test_no_bytes_open(raw):
    refused(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        ME.recipient.raw[:-1],
        ME.recipient.raw + b"\0",
        b"\xff" * 1216,  # coefficients outside the field
        ME.recipient.raw[:1184] + bytes(32),  # a point of low order
    ],
)
def test_a_key_that_nothing_can_be_sealed_to_is_no_recipient(raw):
    with pytest.raises(UsageError) as found:
        recipient_of(raw)
    assert found.value.code == "recipient.key"


def test_a_recipient_is_read_from_its_text():
    assert parsed_recipient(str(ME.recipient)) == ME.recipient
    with pytest.raises(UsageError):
        parsed_recipient(str(ME.recipient)[:-1])


@pytest.mark.parametrize("length", [0, 31, 33])
def test_seeds_and_keys_of_other_lengths_are_our_mistake(length):
    with pytest.raises(AssertionError):
        Identity(Secret(bytes(length)))
    with pytest.raises(AssertionError):
        sealed_to(ME.recipient, Secret(bytes(length)), info=b"")
