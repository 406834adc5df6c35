"""A keyring opens under its root, for its keep and at its number, and never prints a key."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import IntegrityError, MissingError
from modelkeep.core.names import content_name
from modelkeep.core.record import from_msgpack, replaced, to_msgpack
from modelkeep.crypto.aead import sealed_blob
from modelkeep.crypto.hierarchy import KEEP_KEY_ID, Domains, domain_keys, keep_keys
from modelkeep.crypto.kdf import SALT_BYTES, derived_key
from modelkeep.crypto.keyring import (
    DomainKey,
    LockedRing,
    RingBody,
    Wrap,
    locked_ring,
    opened_ring,
)
from modelkeep.crypto.secret import Secret

pytestmark = pytest.mark.verify("keys")

ROOT = Secret(b"r" * 32)
OTHER_ROOT = Secret(b"s" * 32)
IDENTITY = b"identity-canary-identity-canary!"
KEY = b"domain-key-canary-domain-key-can"
CA_KEY = b"authority-canary-authority-canary"
BODY = RingBody(
    identity=IDENTITY,
    domains=(DomainKey(name="acme", key_id="a1" * 8, key=KEY),),
    ca_key=CA_KEY,
    ca_pem=b"public",
)
WRAPS = (Wrap(kind="source", holder="passphrase", wrapped=b"wrapped"),)
RING = locked_ring(
    BODY, root=ROOT, keep_id="0123456789abcdef", number=7, wraps=WRAPS, salt=bytes(SALT_BYTES)
)

keys = st.binary(min_size=32, max_size=32)
names = st.text(st.characters(codec="ascii", categories=("Ll", "Nd")), min_size=1, max_size=20)


@given(st.lists(st.builds(DomainKey, name=names, key_id=names, key=keys), max_size=4), keys, keys)
def test_what_was_locked_opens_as_it_was(domains, root, salt):
    body = replaced(BODY, domains=tuple(domains))
    ring = locked_ring(body, root=Secret(root), keep_id="k", number=0, wraps=(), salt=salt)
    again = from_msgpack(LockedRing, to_msgpack(ring), what="a ring")
    assert opened_ring(again, Secret(root)) == body


@pytest.mark.parametrize("moved", [{"keep_id": "0123456789abcdee"}, {"number": 8}, {"number": -7}])
def test_a_body_that_was_moved_to_another_keep_or_number_does_not_open(moved):
    with pytest.raises(IntegrityError) as refused:
        opened_ring(replaced(RING, **moved), ROOT)
    assert refused.value.code == "aead.tag"


def test_another_root_does_not_open_it():
    with pytest.raises(IntegrityError):
        opened_ring(RING, OTHER_ROOT)


@given(st.integers(0, 8 * len(RING.sealed) - 1))
def test_any_flipped_bit_is_found(bit):
    raw = bytearray(RING.sealed)
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(IntegrityError):
        opened_ring(replaced(RING, sealed=bytes(raw)), ROOT)


@given(st.integers(0, len(RING.sealed) - 1), st.binary(max_size=300))
def test_a_cut_or_foreign_body_is_found(length, noise):
    for raw in (RING.sealed[:length], noise, RING.sealed + noise[:3] + b"\0"):
        with pytest.raises(IntegrityError):
            opened_ring(replaced(RING, sealed=raw), ROOT)


@given(st.binary(max_size=300))
def test_a_body_that_is_sealed_rightly_and_is_no_keyring_is_refused(noise):
    sealed = sealed_blob(
        derived_key(ROOT, "root/keyring"),
        noise,
        purpose="keyring/0123456789abcdef/7",
        salt=bytes(SALT_BYTES),
    )
    with pytest.raises(IntegrityError):
        opened_ring(replaced(RING, sealed=sealed), ROOT)


@given(st.binary(max_size=400))
def test_bytes_that_are_no_locked_ring_are_refused(noise):
    with pytest.raises(IntegrityError):
        from_msgpack(LockedRing, noise, what="a ring")


def test_nothing_prints_a_key():
    domain = domain_keys("acme", "a1" * 8, Secret(KEY))
    keep = keep_keys(Secret(IDENTITY))
    for each in (BODY, BODY.domains[0], BODY.domains, domain, keep, Domains([domain])):
        for text in (repr(each), str(each), f"{each}"):
            for canary in (KEY, IDENTITY, CA_KEY):
                assert canary.decode()[:12] not in text
                assert repr(canary)[2:14] not in text
                assert canary.hex()[:16] not in text
    assert KEY not in RING.sealed
    assert IDENTITY not in to_msgpack(RING)


def test_derived_keys_cannot_be_pickled():
    with pytest.raises(TypeError):
        pickle.dumps(domain_keys("acme", "a1" * 8, Secret(KEY)).blobs)


# ---- what is derived -----------------------------------------------------------------------------


def test_every_purpose_has_a_key_of_its_own():
    keep, one = keep_keys(Secret(IDENTITY)), domain_keys("acme", "a1" * 8, Secret(KEY))
    other = domain_keys("zeta", "a1" * 8, Secret(KEY))
    found = [keep.ledger_seed, keep.ledger_body, keep.config, keep.commitments]
    for keys_ in (keep.own, one, other):
        found += [keys_.chunk_ids, keys_.packs, keys_.blobs, keys_.columns]
    assert len({each.reveal() for each in found}) == len(found) == 16
    assert keep.own.key_id == KEEP_KEY_ID


def test_domains_are_found_by_the_key_id_in_an_objects_name_and_by_their_own():
    old = domain_keys("acme", "a1" * 8, Secret(KEY), is_retiring=True)
    new = domain_keys("acme", "b2" * 8, Secret(KEY))
    own = keep_keys(Secret(IDENTITY)).own
    domains = Domains([own, old, new])
    for each in (own, old, new):
        name = content_name("pack", each.key_id, "ab" * 32)
        assert domains.holds(name)
        assert domains.of(name) is each
    assert domains.named("acme") is new, "the one that retires does not write"
    assert domains.all_of("acme") == (old, new)
    assert domains.names() == ("acme",)


@pytest.mark.parametrize("name", ["", "zeta", "ACME"])
def test_an_unknown_domain_is_said_and_the_keeps_own_key_has_no_name(name):
    domains = Domains([keep_keys(Secret(IDENTITY)).own, domain_keys("acme", "a1", Secret(KEY))])
    with pytest.raises(MissingError) as missing:
        domains.named(name)
    assert missing.value.code == "keys.domain"
    assert domains.all_of("") == ()


@pytest.mark.parametrize("name", ["pack/c3/ab/abcd", "head/000000000001", "", "pack"])
def test_an_object_under_no_key_is_said_to_be_destroyed(name):
    domains = Domains([domain_keys("acme", "a1", Secret(KEY))])
    assert not domains.holds(name)
    with pytest.raises(MissingError) as missing:
        domains.of(name)
    assert missing.value.code == "keys.destroyed"
