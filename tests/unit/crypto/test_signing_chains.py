"""Signing certificates: only a chain of authorities to a root that was named gives a key."""

import datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st
from oms_tool import START, Authority

from modelkeep.core.errors import IntegrityError, KeepError, RefusedError, UsageError
from modelkeep.crypto.signing_chains import CHAIN_MAX, chained_key

LEAF = ec.generate_private_key(ec.SECP256R1()).public_key()
ROOT = Authority.root()
BETWEEN = ROOT.authority("between")
SIGNER = BETWEEN.issued("signer", LEAF, is_authority=False)


def der(*certificates):
    return [each.public_bytes(Encoding.DER) for each in certificates]


def key_of(*certificates, root=ROOT):
    return chained_key(der(*certificates), roots=[root.certificate])


def code_of(*certificates, kind=RefusedError, root=ROOT):
    with pytest.raises(kind) as refused:
        key_of(*certificates, root=root)
    return refused.value.code


def test_a_chain_to_a_named_root_gives_the_key_of_its_first():
    assert key_of(SIGNER, BETWEEN.certificate).key == LEAF
    assert key_of(ROOT.issued("s", LEAF, is_authority=False)).key == LEAF


def test_a_root_that_stands_in_the_chain_is_not_trusted_for_that():
    other = Authority.root("other")
    leaf = other.issued("s", LEAF, is_authority=False)
    assert code_of(leaf, other.certificate) == "chain.untrusted"
    assert code_of(SIGNER) == "chain.untrusted"  # what is between is missing


def test_only_authorities_vouch_for_others():
    person = ROOT.authority("person", is_authority=False)
    assert code_of(person.issued("s", LEAF, is_authority=False), person.certificate) == (
        "chain.untrusted"
    )
    mute = ROOT.authority("mute", signs=False)
    assert code_of(mute.issued("s", LEAF, is_authority=False), mute.certificate) == (
        "chain.untrusted"
    )


def test_a_path_is_as_short_as_its_authority_demands():
    strict = Authority.root("strict", depth=0)
    below = strict.authority("below")
    leaf = below.issued("s", LEAF, is_authority=False)
    assert code_of(leaf, below.certificate, root=strict) == "chain.untrusted"
    assert key_of(strict.issued("s", LEAF, is_authority=False), root=strict)


def test_an_authority_that_had_ended_when_the_certificate_began_counts_no_more():
    late = ROOT.issued("s", LEAF, is_authority=False, start=START + datetime.timedelta(days=91))
    assert code_of(late) == "chain.untrusted"


def test_a_certificate_for_other_uses_does_not_sign():
    leaf = ROOT.issued("s", LEAF, is_authority=False, signs=False)
    assert code_of(leaf) == "chain.usage"
    assert key_of(ROOT.issued("s", LEAF, is_authority=False, signs=False, code=True))


def test_a_key_of_another_kind_is_said_so():
    public = rsa.generate_private_key(65537, 2048).public_key()
    assert code_of(ROOT.issued("s", public, is_authority=False), kind=UsageError) == "ec.key"


@pytest.mark.parametrize("chain", [[], [b""], [b"x" * 40_000], [b"x"] * (CHAIN_MAX + 1), [b"\x30"]])
def test_what_is_no_chain_is_refused(chain):
    with pytest.raises(IntegrityError) as refused:
        chained_key(chain, roots=[ROOT.certificate])
    assert refused.value.code == "chain.certificate"


@given(st.data())
def test_a_chain_with_a_changed_byte_gives_no_key_but_its_own(data):
    """Only one byte may change: how many bits of a signature that ends in zeros are unused."""
    chain = der(SIGNER, BETWEEN.certificate)
    which = data.draw(st.integers(0, 1))
    at = data.draw(st.integers(0, len(chain[which]) - 1))
    bit = 1 << data.draw(st.integers(0, 7))
    raw = bytearray(chain[which])
    raw[at] ^= bit
    chain[which] = bytes(raw)
    try:
        found = chained_key(chain, roots=[ROOT.certificate])
    except KeepError:
        return
    assert raw[at - 2] == 3  # of a BIT STRING
    assert found.pem == key_of(SIGNER, BETWEEN.certificate).pem
