"""ECDSA for formats of others: a key of a seed, signatures that others verify."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.crypto import ec_signatures
from modelkeep.crypto.ec_signatures import EcPublic, EcSigner, ec_public
from modelkeep.crypto.secret import Secret

SIGNER = EcSigner(Secret(b"s" * 32))
# What this seed gives, for ever: other people hold the public key.
FINGERPRINT = "ee557f17766904cc"


def pem(private):
    return private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@given(st.binary())
def test_anybody_with_the_public_key_can_verify(message):
    key = load_pem_public_key(SIGNER.public.pem)
    signature = SIGNER.sign(message)
    key.verify(signature, message, ec.ECDSA(SHA256()))
    assert SIGNER.sign(message) == signature


def test_a_seed_has_one_key():
    assert EcSigner(Secret(b"s" * 32)).public.fingerprint.startswith(FINGERPRINT)
    assert EcSigner(Secret(b"t" * 32)).public.pem != SIGNER.public.pem


def test_the_order_is_that_of_the_curve():
    highest = ec_signatures._ORDER - 1
    assert ec.derive_private_key(highest, ec.SECP256R1())
    with pytest.raises(ValueError, match="Invalid EC key"):
        ec.derive_private_key(highest + 1, ec.SECP256R1())


@given(st.binary(min_size=1), st.data())
def test_an_altered_message_or_signature_is_refused(message, data):
    signature = SIGNER.sign(message)
    at = data.draw(st.integers(0, len(message) - 1))
    other = bytes([*message[:at], message[at] ^ 1, *message[at + 1 :]])
    for bad_signature, bad_message in (
        (signature, other),
        (signature[:-1], message),
        (b"", message),
        (bytes([*signature[:-1], signature[-1] ^ 1]), message),
    ):
        with pytest.raises(IntegrityError) as refused:
            SIGNER.public.demand(bad_signature, bad_message)
        assert refused.value.code == "ec.signature"


@pytest.mark.parametrize(
    ("curve", "hashed"),
    [(ec.SECP256R1(), SHA256()), (ec.SECP384R1(), SHA384()), (ec.SECP521R1(), SHA512())],
)
def test_three_curves_are_taken_each_with_its_hash(curve, hashed):
    private = ec.generate_private_key(curve)
    public = ec_public(pem(private))
    public.demand(private.sign(b"m", ec.ECDSA(hashed)), b"m")
    assert isinstance(public, EcPublic)
    assert public.pem == pem(private)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"no key",
        pem(ec.generate_private_key(ec.SECP256K1())),
        pem(ed25519.Ed25519PrivateKey.generate()),
    ],
)
def test_what_is_no_such_key_is_said_so(text):
    with pytest.raises(UsageError) as refused:
        ec_public(text)
    assert refused.value.code == "ec.key"


def test_a_signer_prints_no_key():
    assert "73737373" not in repr(SIGNER)
    assert repr(SIGNER).startswith("<")
