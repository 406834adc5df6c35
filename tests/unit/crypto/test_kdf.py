"""Derivation: HKDF as RFC 5869 has it, bound to a purpose; Argon2id within its bounds only."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import IntegrityError
from modelkeep.crypto.hierarchy import domain_keys, keep_keys
from modelkeep.crypto.kdf import (
    LANES_MAX,
    MEMORY_KIB_MAX,
    PASSES_MAX,
    Argon2Settings,
    derived_key,
    key_from_passphrase,
)
from modelkeep.crypto.secret import Secret

PARENT = Secret(b"p" * 32)
SALT = b"s" * 16


def hkdf(parent, salt, info, length):
    """RFC 5869, sections 2.2 and 2.3, word for word."""
    prk = hmac.digest(salt or bytes(32), parent, "sha256")
    okm, block = b"", b""
    for number in range(1, -(-length // 32) + 1):
        block = hmac.digest(prk, block + info + bytes([number]), hashlib.sha256)
        okm += block
    return okm[:length]


@pytest.mark.parametrize(
    ("ikm", "salt", "info", "okm"),
    [
        # RFC 5869, appendix A.1 and A.3.
        (
            "0b" * 22,
            "000102030405060708090a0b0c",
            "f0f1f2f3f4f5f6f7f8f9",
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        (
            "0b" * 22,
            "",
            "",
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        ),
    ],
)
def test_the_reference_in_this_file_is_the_rfcs(ikm, salt, info, okm):
    made = hkdf(bytes.fromhex(ikm), bytes.fromhex(salt), bytes.fromhex(info), len(okm) // 2)
    assert made.hex() == okm


@given(st.binary(min_size=1, max_size=64), st.text(max_size=20), st.binary(max_size=40))
def test_a_subkey_is_hkdf_with_our_prefix(parent, purpose, salt):
    wanted = hkdf(parent, salt, b"modelkeep/v0/" + purpose.encode(), 32)
    assert derived_key(Secret(parent), purpose, salt=salt).reveal() == wanted


def test_every_purpose_has_a_key_of_its_own():
    keep, domain = keep_keys(PARENT), domain_keys("default", "1" * 16, PARENT)
    other = domain_keys("other", "2" * 16, PARENT)
    made = [keep.ledger_seed, keep.ledger_body, keep.config, keep.commitments]
    made += [keep.oms, keep.load_proofs]
    for each in (keep.own, domain, other):
        made += [each.chunk_ids, each.packs, each.blobs, each.columns]
    revealed = [each.reveal() for each in made]
    assert len(set(revealed)) == len(revealed) == 18
    assert PARENT.reveal() not in revealed
    assert all(len(each) == 32 for each in revealed)


def derive(**cost):
    settings = Argon2Settings(**{"memory_kib": 8, "passes": 1, "lanes": 1, **cost})
    return key_from_passphrase(Secret(b"word"), salt=SALT, settings=settings)


@pytest.mark.parametrize(
    "cost",
    [
        {"memory_kib": 8},
        {"memory_kib": 16, "lanes": 2},
        {"passes": PASSES_MAX},
        {"lanes": LANES_MAX, "memory_kib": 8 * LANES_MAX},
    ],
)
def test_a_cost_at_its_bound_is_paid(cost):
    assert len(derive(**cost)) == 32


@pytest.mark.parametrize(
    "cost",
    [
        {"memory_kib": 7},
        {"memory_kib": 15, "lanes": 2},
        {"memory_kib": MEMORY_KIB_MAX + 1},
        {"passes": 0},
        {"passes": -1},
        {"passes": PASSES_MAX + 1},
        {"lanes": 0},
        {"lanes": LANES_MAX + 1, "memory_kib": 8 * (LANES_MAX + 1)},
    ],
)
def test_a_cost_one_past_its_bound_is_refused(cost):
    with pytest.raises(IntegrityError) as refused:
        derive(**cost)
    assert refused.value.code == "kdf.cost"


def test_salt_and_every_cost_change_the_key():
    keys = [derive(), derive(memory_kib=9), derive(passes=2), derive(lanes=2, memory_kib=16)]
    settings = Argon2Settings(memory_kib=8, passes=1, lanes=1)
    keys.append(key_from_passphrase(Secret(b"word"), salt=b"t" * 16, settings=settings))
    keys.append(key_from_passphrase(Secret(b"Word"), salt=SALT, settings=settings))
    assert len({key.reveal() for key in keys}) == len(keys)
    assert derive() == derive()


def test_a_salt_below_128_bits_is_refused():
    settings = Argon2Settings(memory_kib=8, passes=1, lanes=1)
    with pytest.raises(IntegrityError):
        key_from_passphrase(Secret(b"word"), salt=b"s" * 15, settings=settings)
