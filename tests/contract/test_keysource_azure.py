"""Azure Key Vault as a KeySource, against a stand-in with its sign-in and its challenge."""

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from kms_cases import KmsCases, refused, source_of
from kms_standins import AzureStandIn

from modelkeep.crypto.wrapped_key import label_of, wrapped_bytes
from modelkeep.testing.keysource_contract import KEY, RAW


@pytest.fixture
def stand_in(tmp_path):
    stand_in = AzureStandIn(tmp_path)
    stand_in.may_read_keys = False  # else the client wraps by itself, under the public key
    yield stand_in
    stand_in.close()


class TestAzureSource(KmsCases):
    wrong_credentials = {"secret": "canary~of~somebody~else"}

    def foreign(self, stand_in, plain, *, bound):
        key = next(key for name, key in stand_in.keys.items() if name.startswith("keep"))
        return box(
            stand_in, plain, wraps=key, signs=key, label=b"modelkeep/v0/keysource/azure" * bound
        )


def box(stand_in, plain, *, wraps, signs, label):
    inner = stand_in.wrapped(wraps, plain)
    return inner + stand_in.signature(signs, hashlib.sha256(label + b"\0" + inner).digest())


@pytest.mark.parametrize("may_read_keys", [False, True])
def test_who_has_only_the_public_key_cannot_put_a_root_of_their_own_in(stand_in, may_read_keys):
    """RSA-OAEP alone would let them: everything else of a keep hangs on the root."""
    stand_in.may_read_keys = may_read_keys
    source = source_of(stand_in.reference())
    key = next(key for name, key in stand_in.keys.items() if name.startswith("keep"))
    theirs = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    label = label_of("azure")
    forged = box(stand_in, label + RAW, wraps=key, signs=theirs, label=label)
    assert refused(lambda: source.unwrap(wrapped_bytes("azure", forged))) == "keys.source"
    ours = box(stand_in, label + RAW, wraps=key, signs=key, label=label)
    assert source.unwrap(wrapped_bytes("azure", ours)) == KEY


def test_who_may_read_the_public_key_saves_the_vault_half_of_the_work(stand_in):
    stand_in.may_read_keys = True
    source = source_of(stand_in.reference())
    assert source.unwrap(source.wrap(KEY)) == KEY
    assert verbs(stand_in) == ["sign", "unwrapkey"]


def test_the_vault_wraps_and_verifies_for_who_may_not(stand_in):
    source = source_of(stand_in.reference())
    assert source.unwrap(source.wrap(KEY)) == KEY
    assert verbs(stand_in) == ["wrapkey", "sign", "verify", "unwrapkey"]


def verbs(stand_in):
    """What was asked of the key, after the sign-in."""
    asked = [each.path.partition("?")[0].rpartition("/")[2] for each in stand_in.asked if each.body]
    return [each for each in asked if each in ("wrapkey", "unwrapkey", "sign", "verify")]
