"""Goal: the life of keys as a keep lives it, and what is destroyed stays destroyed.

Method: keeps on the simulated disk. What must not open is tried: with every private key that was
ever handed out, on every byte that any store ever held.
"""

import base64

import pytest
from key_scenes import ESCROW, FILES, NEW, KeyScene, demand_whole, fill, key_ids, restored, rotate
from onnx_models import two_models
from scenes import PASSPHRASE

from modelkeep.core.errors import (
    MissingError,
    RefusedError,
    UnavailableError,
    UsageError,
)
from modelkeep.core.names import series_name
from modelkeep.flows.keyring import Keyring
from modelkeep.ports.keyholder import Means
from modelkeep.vault.objects import unverified_member


@pytest.fixture
def scene(tmp_path):
    made = KeyScene(tmp_path)
    made.create().close()
    return made


@pytest.fixture
def filled(scene):
    fill(scene)
    return scene


# ---- domains -------------------------------------------------------------------------------------


def test_what_is_admitted_to_a_domain_lies_under_its_key_and_later_versions_follow(filled):
    with filled.open() as keep:
        assert [(each.name, each.models) for each in keep.keys.list().domains] == [
            ("acme", ("fraud:1", "fraud:2")),
            ("default", ("digits:1",)),
            ("zeta", ("other:1",)),
        ]
        for domain, packs in (("acme", 2), ("default", 1), ("zeta", 1)):
            (key_id,) = key_ids(keep, domain)
            names = [name for name in filled.objects(filled.main, key_id) if "pack" in name]
            assert len(names) == packs, "nothing is shared between domains"
        demand_whole(filled, keep, *FILES)


def test_a_model_stays_in_its_domain_and_unknown_domains_are_refused(filled):
    with filled.open() as keep:
        with pytest.raises(UsageError) as other:
            keep.admit(two_models()[0], name="fraud", domain="zeta")
        with pytest.raises(MissingError) as unknown:
            keep.admit(two_models()[0], name="new", domain="nobody")
    assert (other.value.code, unknown.value.code) == ("admit.domain", "keys.domain")


def test_domains_that_exist_stay_as_they_are(filled):
    with filled.open() as keep:
        before = keep.opened.ring.number, key_ids(keep, "acme")
        keep.keys.new("acme", "default", "zeta")
        assert (keep.opened.ring.number, key_ids(keep, "acme")) == before


@pytest.mark.parametrize("name", ["", "..", "a/b", "two words", "*", "x" * 200])
def test_a_name_that_cannot_be_a_path_is_refused(scene, name):
    with scene.open() as keep, pytest.raises(UsageError) as refused:
        keep.keys.new(name)
    assert refused.value.code == "keys.domain_name"


def test_a_revoked_domain_is_listed_and_comes_back(filled):
    with filled.open() as keep:
        keep.keys.revoke("acme")
        assert {each.name: each.status for each in keep.keys.list().domains}["acme"] == "revoked"
        with pytest.raises(RefusedError) as refused:
            keep.keys.rekey("acme")
        assert refused.value.code == "keys.revoked"
        keep.keys.restore("acme")
        assert {each.name: each.status for each in keep.keys.list().domains}["acme"] == "live"


# ---- rotate --------------------------------------------------------------------------------------


def test_after_a_rotation_only_the_new_passphrase_opens_and_no_older_keyring_is_left(filled):
    with filled.open() as keep:
        before = filled.objects(filled.main, key_ids(keep, "acme")[0])
    rotate(filled)
    assert filled.refusal(passphrase=PASSPHRASE) == "keys.passphrase"
    with filled.open() as keep:
        assert filled.objects(filled.main, key_ids(keep, "acme")[0]) == before
        demand_whole(filled, keep, *FILES)
    for store in (filled.main, filled.offsite):
        assert len(filled.rings(store)) == 1


@pytest.mark.parametrize("where", ["main", "offsite"])
def test_an_old_keyring_that_is_put_back_into_one_store_opens_nothing_and_goes(filled, where):
    store = getattr(filled, where)
    old = {name: filled.objects(store)[name] for name in filled.rings(store)}
    rotate(filled)
    filled.put_back(store, old)
    assert filled.refusal(passphrase=PASSPHRASE) == "keys.superseded"
    filled.open().close()
    assert len(filled.rings(store)) == 1
    assert not set(old) & set(filled.rings(store))
    assert filled.refusal(passphrase=PASSPHRASE) == "keys.passphrase"


def test_a_keyring_that_was_rolled_back_in_every_store_is_found_by_the_ledger(filled):
    stores = (filled.main, filled.offsite)
    old = [{name: filled.objects(store)[name] for name in filled.rings(store)} for store in stores]
    rotate(filled)
    for store, objects in zip(stores, old, strict=True):
        for name in filled.rings(store):
            filled.disk.lose(store / name)
        filled.put_back(store, objects)
    assert filled.refusal(passphrase=PASSPHRASE) == "keys.rolled_back"


def test_what_follows_a_rotation_in_the_same_session_keeps_the_new_passphrase(filled):
    """A split makes a new root: it must not be wrapped for the one who held the last but one."""
    with filled.open() as keep:
        keep.keys.rotate(passphrase=NEW)
        keep.keys.split(needed=2, shares=3)
        keep.keys.escrow(str(ESCROW.recipient))
        keep.keys.drop("escrow")
    assert filled.refusal(passphrase=PASSPHRASE) == "keys.passphrase"
    with filled.open(passphrase=NEW) as keep:
        assert [each.kind for each in keep.keys.list().holders] == ["source", "shares"]


def test_a_rotation_keeps_recovery_keys_and_escrow_recipients(filled):
    with filled.open() as keep:
        words = keep.keys.split(needed=2, shares=3)
        keep.keys.escrow(str(ESCROW.recipient), note="the notary")
    rotate(filled)
    for means in (Means(words=words[1:]), Means(identity=ESCROW.seed)):
        with filled.open(means=means) as keep:
            demand_whole(filled, keep, "fraud:2")


def test_a_rotation_while_a_store_is_away_reaches_it_when_it_is_back(filled):
    filled.away = filled.offsite
    rotate(filled)
    filled.away = None
    assert len(filled.rings(filled.offsite)) == 1
    assert filled.refusal(passphrase=PASSPHRASE) == "keys.superseded"
    filled.open().close()
    assert filled.rings(filled.offsite) == filled.rings(filled.main)
    assert filled.refusal(passphrase=PASSPHRASE) == "keys.passphrase"


@pytest.mark.parametrize("where", ["main", "offsite"])
def test_garbage_under_the_next_number_neither_stops_a_rotation_nor_stays(filled, where):
    with filled.open() as keep:
        name = series_name("keyring", keep.opened.ring.number + 1)
    filled.put_back(getattr(filled, where), {name: b"squatted"})
    rotate(filled)
    filled.open().close()
    assert filled.rings(filled.offsite) == filled.rings(filled.main) == [name]
    assert filled.objects(filled.offsite)[name] == filled.objects(filled.main)[name]
    with filled.open() as keep:
        demand_whole(filled, keep, "fraud:2")


def test_a_store_full_of_false_keyrings_does_not_lock_the_owner_out(filled):
    """Each costs a try of the passphrase, and one hostile store has only so many."""
    (name,) = filled.rings(filled.main)
    ring = unverified_member(Keyring, name, filled.objects(filled.main)[name])
    wraps = b",".join(
        b'{"kind":"source","holder":"passphrase","wrapped":"%s","note":""}'
        % base64.b64encode(ring.wraps[0].wrapped)
        for _ in range(40)
    )
    for number in range(90, 99):
        raw = b'{"number":%d,"keep_id":"%s","wraps":[%s],"sealed":"AAAA"}\n' % (
            number,
            ring.keep_id.encode(),
            wraps,
        )
        filled.put_back(filled.offsite, {series_name("keyring", number): raw + b" " * 202})
    with filled.open() as keep:
        demand = keep.keys.list()
    assert demand.keyring == ring.number


# ---- shares and escrow ---------------------------------------------------------------------------


def test_enough_shares_open_the_keep_and_fewer_or_mixed_ones_do_not(filled):
    with filled.open() as keep:
        words = keep.keys.split(needed=3, shares=5)
    for chosen in (words[:3], words[2:], words):
        filled.open(means=Means(words=chosen)).close()
    assert filled.refusal(means=Means(words=words[:2])) == "keys.shares"
    mistyped = words[0].replace(words[0].split()[7], "academic", 1)
    assert filled.refusal(means=Means(words=(mistyped, *words[1:3]))) == "keys.words"
    with filled.open() as keep:
        other = keep.keys.split(needed=3, shares=5)
    assert filled.refusal(means=Means(words=(*words[:2], other[2]))) == "keys.shares"
    assert filled.refusal(means=Means(words=words[:3])) == "keys.no_holder", (
        "the later split counts"
    )
    filled.open(means=Means(words=other[:3])).close()


def test_dropped_shares_and_recipients_open_nothing(filled):
    with filled.open() as keep:
        words = keep.keys.split(needed=2, shares=2)
        keep.keys.escrow(str(ESCROW.recipient))
    filled.open(means=Means(identity=ESCROW.seed)).close()
    with filled.open() as keep:
        keep.keys.drop("shares")
        keep.keys.drop("escrow", recipient=str(ESCROW.recipient)[:20])
        with pytest.raises(MissingError) as missing:
            keep.keys.drop("escrow")
    assert missing.value.code == "keys.recipient"
    for means in (Means(words=words), Means(identity=ESCROW.seed)):
        assert filled.refusal(means=means) == "keys.no_holder"
    filled.open().close()


def test_shares_bring_a_new_passphrase(filled):
    with filled.open() as keep:
        words = keep.keys.split(needed=2, shares=3)
    with filled.open(means=Means(words=words[:2])) as keep:
        keep.keys.rotate(passphrase=NEW)
    assert filled.refusal(passphrase=PASSPHRASE) == "keys.passphrase"
    with filled.open(passphrase=NEW) as keep:
        demand_whole(filled, keep, "fraud:1")


# ---- rekey ---------------------------------------------------------------------------------------


def envelopes(keep, name):
    opened = keep.opened
    reader = opened.reader()
    snapshot = reader.snapshot(opened.state.applied().snapshot)
    return [
        reader.body("envelope", each.envelope) for each in snapshot.artifacts if each.name == name
    ]


def test_rekey_encrypts_a_domain_anew_and_leaves_signatures_as_they_are(filled):
    with filled.open() as keep:
        signed = envelopes(keep, "fraud")
        (old,) = key_ids(keep, "acme")
        zeta = filled.objects(filled.main, key_ids(keep, "zeta")[0])
        assert keep.keys.rekey("acme") == 2
        (new,) = key_ids(keep, "acme")
        assert new != old
        assert envelopes(keep, "fraud") == signed
        assert filled.objects(filled.main, key_ids(keep, "zeta")[0]) == zeta
        demand_whole(filled, keep, *FILES)
    for store in (filled.main, filled.offsite):
        assert filled.objects(store, new)
        assert not filled.objects(store, old)
        assert len(filled.rings(store)) == 1
    with filled.open() as keep:
        assert key_ids(keep, "acme") == [new]
        demand_whole(filled, keep, *FILES)


def test_the_first_domain_can_be_rekeyed_too(filled):
    with filled.open() as keep:
        assert keep.keys.rekey("default") == 1
        demand_whole(filled, keep, *FILES)


def test_rekey_waits_for_a_store_that_is_away_and_then_goes_on(filled):
    filled.away = filled.offsite
    with filled.open() as keep:
        (old,) = key_ids(keep, "acme")
        with pytest.raises(UnavailableError) as waiting:
            keep.keys.rekey("acme")
        assert waiting.value.code == "keys.rekey"
    assert filled.objects(filled.main, old)
    filled.away = None
    with filled.open() as keep:
        assert len(key_ids(keep, "acme")) == 2
        demand_ids = {each.name: each.key_ids for each in keep.keys.list().domains}
        assert len(demand_ids["acme"]) == 2
        assert keep.keys.rekey("acme") == 0, "all of it was moved already"
        assert len(key_ids(keep, "acme")) == 1
        demand_whole(filled, keep, *FILES)
    for store in (filled.main, filled.offsite):
        assert not filled.objects(store, old)


def test_what_is_admitted_while_a_rekey_waits_is_under_the_new_key(filled):
    filled.away = filled.offsite
    with filled.open() as keep, pytest.raises(UnavailableError):
        keep.keys.rekey("zeta")
    filled.away = None
    with filled.open() as keep:
        done = keep.admit(two_models()[0], name="other")
        assert done.version == 2
        keep.keys.rekey("zeta")
        assert restored(filled, keep, "other:2") == two_models()[0].read_bytes()
        demand_whole(filled, keep, *FILES)


# ---- keyrings that somebody else wrote -----------------------------------------------------------


def with_holder(raw, wrap):
    """A keyring's object with one more wrap; its signature is what it was."""
    payload, line = raw.split(b"\n", 1)
    changed = payload.replace(b'"wraps":[', b'"wraps":[' + wrap + b",", 1)
    assert changed != payload
    return changed + b"\n" + line


def test_a_keyring_whose_holders_were_changed_is_not_believed(filled):
    (name,) = filled.rings(filled.main)
    raw = filled.objects(filled.main)[name]
    wrap = b'{"kind":"escrow","holder":"mkr1thief","wrapped":"AAAA","note":""}'
    filled.put_back(filled.main, {name: with_holder(raw, wrap)})
    with filled.open() as keep:
        assert [each.kind for each in keep.keys.list().holders] == ["source"]
    filled.put_back(filled.offsite, {name: with_holder(raw, wrap)})
    assert filled.refusal() in ("signature.bad", "series.form")


def test_the_keyring_of_another_keep_with_the_same_passphrase_does_not_lock_the_owner_out(
    filled, tmp_path
):
    other = KeyScene(tmp_path / "other")
    other.opened = 500  # other keys than ours
    other.create().close()
    for _ in range(3):
        rotate(other, PASSPHRASE)
    for name in other.rings(other.main):
        filled.put_back(filled.offsite, {name: other.objects(other.main)[name]})
    with filled.open() as keep:
        assert restored(filled, keep, "fraud:2") == FILES["fraud:2"].read_bytes()
        findings = keep.check().findings
        assert {each.subject.partition("/")[0] for each in findings} == {"offsite:keyring"}


# ---- what a review found -------------------------------------------------------------------------


def test_nothing_is_committed_where_the_authoritative_store_is_not_mounted(filled):
    before = filled.objects(filled.main)
    for path, _ in filled.disk.walk(filled.main):
        filled.disk.lose(path)
    with filled.open() as keep:
        heads = keep.opened.state.applied().head
        with pytest.raises(UnavailableError) as refused:
            keep.admit(two_models()[1], name="more")
        assert refused.value.code == "store.empty"
        with pytest.raises(UnavailableError):
            keep.keys.destroy("acme")
        assert keep.opened.state.applied().head == heads
    assert filled.objects(filled.main) == {}
    filled.put_back(filled.main, before)
    with filled.open() as keep:
        assert restored(filled, keep, "fraud:2") == FILES["fraud:2"].read_bytes()


def test_a_rotation_that_failed_is_not_carried_out_by_what_comes_after_it(filled, monkeypatch):
    from modelkeep.adapters.store_folder import FolderStore  # noqa: PLC0415

    put = FolderStore.put

    def full(store, name, raw):
        if name.startswith("keyring/"):
            raise UnavailableError("store.write", "no space left")
        put(store, name, raw)

    with filled.open() as keep:
        with monkeypatch.context() as patched:
            patched.setattr(FolderStore, "put", full)
            with pytest.raises(UnavailableError):
                keep.keys.rotate(passphrase=NEW)
        keep.keys.new("after")
    with filled.open() as keep:  # with the old passphrase
        assert "after" in keep.opened.domains.names()


def test_shares_count_only_when_they_were_handed_out(filled):
    def cannot(_):
        raise OSError("no space left")

    with filled.open() as keep:
        words = keep.keys.split(needed=2, shares=3)
        with pytest.raises(OSError, match="no space"):
            keep.keys.split(needed=2, shares=3, hand_out=cannot)
    with filled.open(means=Means(words=words[:2])) as keep:
        assert keep.models()


def test_a_domain_whose_keys_encrypt_columns_is_not_rekeyed_in_one_go(filled):
    with filled.open() as keep:
        before = keep.keys.columns("acme")
        with pytest.raises(UsageError) as refused:
            keep.keys.rekey("acme")
        assert refused.value.code == "keys.columns"
        assert keep.keys.doomed("acme").has_columns
        keep.keys.rekey("acme", keep_old=True)
        both = keep.keys.columns("acme")
        assert set(before.secrets) < set(both.secrets)
        assert both.newest not in before.secrets
        keep.keys.rekey("acme")
        assert set(keep.keys.columns("acme").secrets) == {both.newest}


def test_a_keyring_of_absurd_size_in_another_store_does_not_keep_the_keep_shut(filled):
    filled.put_back(filled.offsite, {"keyring/000000000999": b"x" * (9 * 1024 * 1024)})
    with filled.open() as keep:
        assert keep.models()


def test_an_empty_passphrase_is_no_new_passphrase(filled):
    with filled.open() as keep, pytest.raises(UsageError):
        keep.keys.rotate(passphrase="")
