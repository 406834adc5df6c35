"""Ed25519: the answers of RFC 8032 hold; a signature serves one message, context and key."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import IntegrityError
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import SIGNATURE_BYTES, Signer, verify, verify_bare

SIGNER = Signer(Secret(b"s" * 32))
OTHER = Signer(Secret(b"t" * 32))


@pytest.mark.parametrize(
    ("seed", "public", "message", "signature"),
    [
        # RFC 8032, section 7.1, TEST 1 and TEST 2.
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            (
                "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555"
                "fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
            ),
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            (
                "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
                "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
            ),
        ),
    ],
)
def test_the_published_answers_hold(seed, public, message, signature):
    signer = Signer(Secret(bytes.fromhex(seed)))
    assert signer.public.hex() == public
    assert signer.sign_bare(bytes.fromhex(message)).hex() == signature
    verify_bare(bytes.fromhex(signature), bytes.fromhex(message), public=signer.public)


def demand_bad(signature, message, context, public):
    with pytest.raises(IntegrityError) as refused:
        verify(signature, message, context=context, public=public)
    assert refused.value.code == "signature.bad"


def test_any_flipped_bit_is_noticed():
    message = b"exact bytes"
    signature = SIGNER.sign(message, context="pack")
    for at in range(SIGNATURE_BYTES * 8):
        changed = bytearray(signature)
        changed[at // 8] ^= 1 << (at % 8)
        demand_bad(bytes(changed), message, "pack", SIGNER.public)
    for at in range(len(message) * 8):
        changed = bytearray(message)
        changed[at // 8] ^= 1 << (at % 8)
        demand_bad(signature, bytes(changed), "pack", SIGNER.public)


@given(st.binary(max_size=50), st.text("ab/", max_size=8), st.text("ab/", max_size=8))
def test_a_signature_for_one_context_serves_no_other(message, context, other):
    signature = SIGNER.sign(message, context=context)
    verify(signature, message, context=context, public=SIGNER.public)
    if context != other:
        demand_bad(signature, message, other, SIGNER.public)


def test_a_context_cannot_be_moved_into_the_message():
    demand_bad(SIGNER.sign(b"b" + b"\0" + b"m", context="a"), b"m", "ab", SIGNER.public)
    demand_bad(SIGNER.sign_bare(b"m"), b"m", "", SIGNER.public)


def test_a_signature_is_of_one_key():
    demand_bad(SIGNER.sign(b"m", context="c"), b"m", "c", OTHER.public)


@pytest.mark.parametrize("signature", [b"", b"\0" * 63, b"\0" * 64, b"\0" * 65, b"\xff" * 64])
@pytest.mark.parametrize("public", [b"", b"\0" * 31, b"\0" * 32, b"\xff" * 32, b"\0" * 33])
def test_malformed_signatures_and_keys_are_integrity_errors(signature, public):
    demand_bad(signature, b"m", "c", public)
