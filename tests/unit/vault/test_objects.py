"""Small signed objects: believed under their own name, kind, domain, number and signer only."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import IntegrityError, MissingError
from modelkeep.core.names import series_name
from modelkeep.crypto.secret import Secret
from modelkeep.testing.memory import MemoryStore
from modelkeep.vault.objects import (
    MEMBER_BYTES_MAX,
    demand_digest,
    latest,
    member_names,
    opened_member,
    opened_object,
    sealed_object,
    series_member,
    unverified_member,
)
from modelkeep.vault.snapshot import Head
from tests.unit.vault.parts import DOMAIN, SALT, SIGNER, STRANGER, flipped

BODY = b"the body of an index"


def sealed(kind="index", *, domain=DOMAIN, signer=SIGNER):
    return sealed_object(kind, BODY, domain=domain, signer=signer, salt=SALT)


def opened(name, raw, kind="index", *, domain=DOMAIN, public=SIGNER.public):
    return opened_object(name, raw, kind=kind, domain=domain, public=public)


def head(number, snapshot="snapshot/x"):
    return Head(number=number, keep_id="0123456789abcdef", snapshot=snapshot)


def member(number, *, signer=SIGNER, kind="head", snapshot="snapshot/x"):
    return series_member(kind, head(number, snapshot), signer=signer)


def member_of(name, raw, *, kind="head", public=SIGNER.public):
    return opened_member(Head, name, raw, kind=kind, public=public)


# ---- sealed objects ------------------------------------------------------------------------------


def test_a_sealed_object_opens_and_does_not_show_its_body():
    name, raw = sealed()
    assert opened(name, raw) == BODY
    assert BODY not in raw
    assert name.startswith("index/")


def test_any_flipped_bit_of_a_sealed_object_is_noticed_even_under_a_name_that_fits():
    from modelkeep.core.names import content_name  # noqa: PLC0415
    from modelkeep.kernels.digest import hex_of  # noqa: PLC0415

    name, raw = sealed()
    for at in range(len(raw) * 8):
        bad = flipped(raw, at)
        with pytest.raises(IntegrityError) as refused:
            opened(name, bad)
        assert refused.value.code == "vault.digest"
        with pytest.raises(IntegrityError):
            opened(content_name("index", DOMAIN.key_id, hex_of(bad)), bad)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "recipe"},
        {"domain": replace(DOMAIN, name="other")},
        {"public": STRANGER.public},
        {"domain": replace(DOMAIN, blobs=DOMAIN.packs)},
        {"domain": replace(DOMAIN, blobs=Secret(bytes(32)))},
    ],
    ids=["kind", "domain", "signer", "key", "zero key"],
)
def test_a_sealed_object_is_of_one_kind_domain_signer_and_key(wrong):
    name, raw = sealed()
    with pytest.raises(IntegrityError):
        opened(name, raw, **wrong)


@given(st.binary(max_size=200))
def test_no_bytes_are_taken_for_a_sealed_object(raw):
    from modelkeep.kernels.digest import hex_of  # noqa: PLC0415

    for bad in (raw, b"mkobjv0\n" + raw):
        with pytest.raises(IntegrityError):
            opened(f"index/00/{hex_of(bad)}", bad)


def test_a_damaged_object_says_what_to_do():
    name, raw = sealed()
    with pytest.raises(IntegrityError) as refused:
        demand_digest(name, raw[:-1])
    assert "check --repair" in refused.value.hint
    assert refused.value.context["object"] == name


# ---- series --------------------------------------------------------------------------------------


def test_a_member_comes_back():
    name, raw = member(7)
    assert name == series_name("head", 7)
    assert member_of(name, raw) == head(7)
    assert unverified_member(Head, name, raw) == head(7)


def test_any_flipped_bit_of_a_member_is_noticed():
    name, raw = member(7)
    for at in range(len(raw) * 8):
        with pytest.raises(IntegrityError):
            member_of(name, flipped(raw, at))


def test_any_truncation_or_extension_of_a_member_is_noticed():
    name, raw = member(7)
    for length in range(len(raw)):
        with pytest.raises(IntegrityError):
            member_of(name, raw[:length])
    for more in (b"\n", b" ", b"\0", raw):
        with pytest.raises(IntegrityError):
            member_of(name, raw + more)


def test_a_member_replayed_under_another_name_is_noticed():
    _, raw = member(7)
    for number in (0, 6, 8, 70):
        with pytest.raises(IntegrityError) as refused:
            member_of(series_name("head", number), raw)
        assert refused.value.code == "series.number"


def test_a_member_is_of_one_kind_and_signer():
    name, raw = member(7)
    with pytest.raises(IntegrityError) as refused:
        member_of(name, raw, kind="log")
    assert refused.value.code == "signature.bad"
    with pytest.raises(IntegrityError) as refused:
        member_of(name, raw, public=STRANGER.public)
    assert refused.value.code == "series.form"


def test_a_strangers_signature_does_not_count_although_it_is_one():
    name, raw = member(7, signer=STRANGER)
    with pytest.raises(IntegrityError):
        member_of(name, raw)
    lie = raw.replace(STRANGER.public.hex().encode(), SIGNER.public.hex().encode())
    with pytest.raises(IntegrityError) as refused:
        member_of(name, lie)
    assert refused.value.code == "signature.bad"


def store_with(*members):
    store = MemoryStore()
    for name, raw in members:
        store.put(name, raw)
    return store


def test_the_highest_valid_member_counts_and_worse_ones_are_named():
    bad = series_name("head", 9), b"rubbish"
    replayed = series_name("head", 8), member(3)[1]
    strange = member(7, signer=STRANGER)
    store = store_with(member(2), member(6), strange, replayed, bad)
    found = latest(Head, store, "head", public=SIGNER.public)
    assert found.member.number == 6
    assert found.skipped == tuple(series_name("head", n) for n in (9, 8, 7))


def test_a_series_without_a_valid_member_is_missing():
    for store in (store_with(), store_with((series_name("head", 1), b"rubbish"))):
        with pytest.raises(MissingError) as missing:
            latest(Head, store, "head", public=SIGNER.public)
        assert missing.value.code == "series.none"


def test_only_numbers_are_members():
    store = store_with(member(1), ("head/x", b""), ("head/1", b""), ("heads/000000000009", b""))
    assert member_names(store, "head") == [series_name("head", 1)]


def test_junk_in_a_series_is_read_up_to_a_bound_only():
    """Whoever may only add objects must not make every command fetch all of them whole."""

    class Counting(MemoryStore):
        def get(self, name, *, start=0, length=None):
            assert length == MEMBER_BYTES_MAX + 1
            return super().get(name, start=start, length=length)

    store = Counting()
    head = Head(number=3, keep_id="k" * 16, snapshot="")
    store.put(*series_member("head", head, signer=SIGNER))
    for number in range(5):
        store.put(f"head/99999999999{number}", bytes(MEMBER_BYTES_MAX + 100))
    found = latest(Head, store, "head", public=SIGNER.public)
    assert (found.member, len(found.skipped)) == (head, 5)
