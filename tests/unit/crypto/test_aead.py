"""AES-256-GCM: published answers hold, and no changed bit, place or purpose ever opens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import IntegrityError
from modelkeep.crypto.aead import (
    BLOB_OVERHEAD_BYTES,
    TAG_BYTES,
    Cipher,
    opened_blob,
    sealed_blob,
)
from modelkeep.crypto.secret import Secret

KEY = Secret(bytes(range(32)))
OTHER = Secret(bytes(range(1, 33)))
SALT = bytes(range(100, 132))
PLAIN = b"forty bytes of plaintext, give or take."


def flips(raw):
    for at in range(len(raw) * 8):
        changed = bytearray(raw)
        changed[at // 8] ^= 1 << (at % 8)
        yield bytes(changed)


@pytest.mark.parametrize(
    ("key", "nonce", "plain", "bound", "sealed"),
    [
        # McGrew and Viega, "The Galois/Counter Mode of Operation", appendix B, cases 13, 14, 16.
        ("00" * 32, "00" * 12, "", "", "530f8afbc74536b9a963b4f1c4cb738b"),
        (
            "00" * 32,
            "00" * 12,
            "00" * 16,
            "",
            "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919",
        ),
        (
            "feffe9928665731c6d6a8f9467308308" * 2,
            "cafebabefacedbaddecaf888",
            (
                "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
                "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
            ),
            "feedfacedeadbeeffeedfacedeadbeefabaddad2",
            (
                "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
                "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
                "76fc6ece0f4e1768cddf8853bb2d551b"
            ),
        ),
    ],
)
def test_the_published_answers_hold(key, nonce, plain, bound, sealed):
    cipher = Cipher(Secret(bytes.fromhex(key)))
    number = int.from_bytes(bytes.fromhex(nonce), "big")
    bound, sealed = bytes.fromhex(bound), bytes.fromhex(sealed)
    assert cipher.seal(number, bytes.fromhex(plain), bound=bound) == sealed
    assert cipher.open(number, sealed, bound=bound) == bytes.fromhex(plain)


@given(st.binary(max_size=200), st.integers(0, 2**32), st.binary(max_size=50))
def test_what_was_sealed_opens_in_both_ways(plain, number, bound):
    cipher = Cipher(KEY)
    sealed = cipher.seal(number, memoryview(plain), bound=bound)
    assert len(sealed) == len(plain) + TAG_BYTES
    assert cipher.open(number, memoryview(sealed), bound=bound) == plain
    target = bytearray(b"\xff" * len(plain))
    cipher.open_into(number, sealed, memoryview(target), bound=bound)
    assert target == plain


def demand_closed(cipher, number, sealed, bound):
    target = bytearray(b"\xff" * len(PLAIN))
    for call in (
        lambda: cipher.open(number, sealed, bound=bound),
        lambda: cipher.open_into(number, sealed, memoryview(target), bound=bound),
    ):
        with pytest.raises(IntegrityError) as refused:
            call()
        assert refused.value.code == "aead.tag"
    assert target == bytes(len(PLAIN)), "something of the plaintext was released"


def test_any_flipped_bit_of_a_segment_is_noticed_and_releases_nothing():
    cipher = Cipher(KEY)
    for changed in flips(cipher.seal(7, PLAIN, bound=b"b")):
        demand_closed(cipher, 7, changed, b"b")


def test_a_segment_opens_under_its_own_number_bound_and_key_only():
    sealed = Cipher(KEY).seal(7, PLAIN, bound=b"b")
    demand_closed(Cipher(KEY), 8, sealed, b"b")
    demand_closed(Cipher(KEY), 7 + 2**32, sealed, b"b")
    demand_closed(Cipher(OTHER), 7, sealed, b"b")
    for bound in (b"", b"a", b"b\0", b"bb"):
        demand_closed(Cipher(KEY), 7, sealed, bound)


@pytest.mark.parametrize("length", [0, 1, TAG_BYTES - 1, TAG_BYTES])
def test_a_segment_that_is_cut_short_is_noticed(length):
    sealed = Cipher(KEY).seal(7, PLAIN, bound=b"b")[:length]
    with pytest.raises(IntegrityError):
        Cipher(KEY).open(7, sealed, bound=b"b")


def test_any_flipped_bit_of_a_blob_is_noticed():
    blob = sealed_blob(KEY, PLAIN, purpose="p", salt=SALT)
    assert opened_blob(KEY, blob, purpose="p") == PLAIN
    for changed in flips(blob):
        with pytest.raises(IntegrityError) as refused:
            opened_blob(KEY, changed, purpose="p")
        assert refused.value.code == "aead.tag"


def test_any_cut_of_a_blob_is_noticed():
    blob = sealed_blob(KEY, PLAIN, purpose="p", salt=SALT)
    for length in range(len(blob)):
        with pytest.raises(IntegrityError) as refused:
            opened_blob(KEY, blob[:length], purpose="p")
        assert refused.value.code == ("aead.short" if length < BLOB_OVERHEAD_BYTES else "aead.tag")
    with pytest.raises(IntegrityError):
        opened_blob(KEY, blob + b"\0", purpose="p")


def test_a_blob_opens_for_its_own_purpose_and_key_only():
    blob = sealed_blob(KEY, PLAIN, purpose="snapshot:default", salt=SALT)
    for purpose in ("snapshot:other", "index:default", "snapshot", "", "snapshot:default "):
        with pytest.raises(IntegrityError):
            opened_blob(KEY, blob, purpose=purpose)
    with pytest.raises(IntegrityError):
        opened_blob(OTHER, blob, purpose="snapshot:default")


def test_two_salts_share_no_key():
    """The nonce is fixed: equal plaintexts under equal keys would show; the salt prevents it."""
    one = sealed_blob(KEY, PLAIN, purpose="p", salt=SALT)
    other = sealed_blob(KEY, PLAIN, purpose="p", salt=bytes(32))
    assert one[32:] != other[32:]


@pytest.mark.parametrize("salt", [b"", bytes(31), bytes(33)])
def test_a_salt_of_another_length_is_our_mistake(salt):
    with pytest.raises(AssertionError):
        sealed_blob(KEY, PLAIN, purpose="p", salt=salt)
