"""RSA-OAEP: keys of a sane size, SHA-256 throughout, and nothing opens that was changed."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.crypto.rsa_keys import rsa_identity, rsa_recipient
from modelkeep.crypto.secret import Secret

LABEL = b"test"
KEY = Secret(bytes(range(32)))
PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def private_pem(key, encryption=None):
    encoded = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())
    return Secret(encoded)


def public_pem(key, form=PublicFormat.SubjectPublicKeyInfo):
    return key.public_key().public_bytes(Encoding.PEM, form)


ME = rsa_identity(private_pem(PRIVATE))
RECIPIENT = rsa_recipient(public_pem(PRIVATE))
SEALED = RECIPIENT.sealed(KEY, label=LABEL)


def test_what_was_sealed_opens_and_is_oaep_with_sha256_twice():
    assert ME.opened(SEALED, label=LABEL) == KEY
    oaep = padding.OAEP(mgf=padding.MGF1(SHA256()), algorithm=SHA256(), label=LABEL)
    assert PRIVATE.decrypt(SEALED, oaep) == KEY.reveal()
    assert len(SEALED) == 256


@given(st.integers(0, 2047))
def test_any_flipped_bit_is_noticed(at):
    changed = bytearray(SEALED)
    changed[at // 8] ^= 1 << (at % 8)
    with pytest.raises(IntegrityError) as refused:
        ME.opened(bytes(changed), label=LABEL)
    assert refused.value.code == "rsa.sealed"


@given(st.binary(max_size=300))
def test_no_bytes_open(raw):
    with pytest.raises(IntegrityError):
        ME.opened(raw, label=LABEL)


def test_another_use_another_hash_and_another_length_do_not_open():
    foreign = PRIVATE.public_key()
    sha1 = padding.OAEP(mgf=padding.MGF1(SHA1()), algorithm=SHA1(), label=LABEL)  # noqa: S303
    sha256 = padding.OAEP(mgf=padding.MGF1(SHA256()), algorithm=SHA256(), label=LABEL)
    for sealed, label in (
        (SEALED, b"other"),
        (SEALED, b""),
        (foreign.encrypt(KEY.reveal(), sha1), LABEL),
        (foreign.encrypt(KEY.reveal()[:31], sha256), LABEL),
        (foreign.encrypt(KEY.reveal(), padding.PKCS1v15()), LABEL),
    ):
        with pytest.raises(IntegrityError):
            ME.opened(sealed, label=label)


def test_a_public_key_is_read_in_both_forms():
    assert rsa_recipient(public_pem(PRIVATE, PublicFormat.PKCS1)).sealed(KEY, label=b"")


@pytest.mark.parametrize("bits", [1024, 2047])
def test_a_key_below_2048_bits_is_refused(bits):
    small = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    for read, pem in ((rsa_recipient, public_pem(small)), (rsa_identity, private_pem(small))):
        with pytest.raises(UsageError) as refused:
            read(pem)
        assert refused.value.code == "rsa.size"


def test_other_keys_encrypted_keys_and_nonsense_are_refused():
    curve = ec.generate_private_key(ec.SECP256R1())
    encrypted = private_pem(PRIVATE, BestAvailableEncryption(b"secret"))
    for read, pem in (
        (rsa_recipient, public_pem(curve)),
        (rsa_identity, private_pem(curve)),
        (rsa_identity, encrypted),
        (rsa_recipient, b"-----BEGIN PUBLIC KEY-----\n"),
        (rsa_recipient, b""),
        (rsa_identity, Secret(public_pem(PRIVATE))),
    ):
        with pytest.raises(UsageError) as refused:
            read(pem)
        assert refused.value.code == "rsa.key"
