"""Goal: what a domain's key protected is gone when the key is: tried, not argued."""

import base64
from dataclasses import replace

import pytest
from key_scenes import ESCROW, NEW, KeyScene, demand_whole, fill, key_ids, restored, rotate
from onnx_models import two_models
from scenes import CHEAP, PASSPHRASE

from modelkeep.adapters.keyholder_local import local_keyholder
from modelkeep.core.errors import (
    IntegrityError,
    KeepError,
    MissingError,
    RefusedError,
    UsageError,
)
from modelkeep.core.rows import Domain, DomainStatus
from modelkeep.crypto.aead import opened_blob
from modelkeep.crypto.hierarchy import domain_keys, keep_keys
from modelkeep.crypto.secret import Secret
from modelkeep.flows.keyring import Keyring
from modelkeep.ports.keyholder import Means
from modelkeep.testing.memory import SeededEntropy
from modelkeep.vault.objects import unverified_member
from modelkeep.vault.pack import read_pack


@pytest.fixture
def scene(tmp_path):
    made = KeyScene(tmp_path)
    made.create().close()
    return made


@pytest.fixture
def filled(scene):
    fill(scene)
    return scene


def test_what_would_die_is_listed_and_nothing_is_changed(filled):
    before = filled.objects(filled.main)
    with filled.open() as keep:
        report = keep.keys.doomed("acme")
        (key_id,) = key_ids(keep, "acme")
    assert report.models == ("fraud:1", "fraud:2")
    assert report.aliases == ("fraud:prod",)
    objects = filled.objects(filled.main, key_id)
    assert report.objects == len(objects)
    assert report.size_bytes == sum(map(len, objects.values()))
    kept = {name: raw for name, raw in filled.objects(filled.main).items() if name in before}
    assert kept.keys() == before.keys()


def test_the_default_domain_and_unknown_ones_cannot_be_destroyed(filled):
    with filled.open() as keep:
        with pytest.raises(UsageError) as default:
            keep.keys.destroy("default")
        with pytest.raises(MissingError) as unknown:
            keep.keys.destroy("nobody")
    assert (default.value.code, unknown.value.code) == ("keys.default", "keys.domain")


def test_destroying_a_domain_takes_its_models_its_objects_and_its_name_and_nothing_else(filled):
    with filled.open() as keep:
        (old,) = key_ids(keep, "acme")
        done = keep.keys.destroy("acme")
        assert done.away == ()
        assert done.doomed.models == ("fraud:1", "fraud:2")
        assert done.removed == 2 * done.doomed.objects
        assert [f"{each.name}:{each.version}" for each in keep.models()] == ["digits:1", "other:1"]
        demand_whole(filled, keep, "digits:1", "other:1")
        for reference in ("fraud:1", "fraud:prod", "fraud"):
            with pytest.raises(MissingError) as gone:
                restored(filled, keep, reference)
            assert gone.value.code == "model.unknown"
        with pytest.raises(RefusedError) as used:
            keep.keys.new("acme")
        assert used.value.code == "keys.destroyed_name"
        codes = {"destroy": "keys.gone", "rekey": "keys.domain", "revoke": "keys.domain"}
        for act, code in {**codes, "restore": "keys.domain"}.items():
            with pytest.raises(MissingError) as none:
                getattr(keep.keys, act)("acme")
            assert none.value.code == code
        assert {each.name: each.status for each in keep.keys.list().domains}["acme"] == "destroyed"
        again = keep.admit(two_models()[0], name="fraud")
        assert again.version == 3, "a number is not used again"
    for store in (filled.main, filled.offsite):
        assert not filled.objects(store, old)


class Thief:
    """Whoever has every private key that was ever handed out, and reads with bare primitives.

    What is tried is ciphertext of any day; what opens it can only come from keyrings that some
    store still holds.
    """

    def __init__(self, scene, means):
        self.scene = scene
        self.bodies = []
        for store in (scene.main, scene.offsite):
            for name in scene.rings(store):
                ring = unverified_member(Keyring, name, scene.objects(store)[name])
                for each in means:
                    holder = local_keyholder(
                        replace(each, source="passphrase", argon2=CHEAP), entropy=SeededEntropy(9)
                    )
                    try:
                        self.bodies.append(holder.unlock([ring])[1])
                    except KeepError:
                        continue

    def keys(self, domain):
        """Everything at hand that might be a key, taken for one of this domain."""
        for body in self.bodies:
            own = keep_keys(Secret(body.identity))
            yield own.own
            for raw in (body.identity, body.ca_key[:32], *(each.key for each in body.domains)):
                yield domain_keys(domain, "", Secret(raw))
            for each in body.domains:
                yield domain_keys(each.name, each.key_id, Secret(each.key))

    def opens(self, name, raw, *, domain):
        """Whether any of it opens one object, signatures aside."""
        public = keep_keys(Secret(self.bodies[0].identity)).signer.public
        kind = name.partition("/")[0]
        for keys in self.keys(domain):
            try:
                if kind == "pack":
                    read_pack(name, raw, domain=keys, public=public)
                else:
                    opened_blob(keys.blobs, raw[8:-64], purpose=f"{kind}:{keys.name}")
            except IntegrityError:
                continue
            return True
        return False


def test_after_destroy_the_oldest_snapshot_with_every_key_backup_opens_nothing(filled):
    with filled.open() as keep:
        words = keep.keys.split(needed=2, shares=3)
        keep.keys.escrow(str(ESCROW.recipient))
    rotate(filled)
    every_key = [
        Means(passphrase=Secret(PASSPHRASE.encode())),
        Means(passphrase=Secret(NEW.encode())),
        Means(words=words),
        Means(identity=ESCROW.seed),
    ]
    with filled.open() as keep:
        ids = {name: key_ids(keep, name)[0] for name in ("acme", "default", "zeta")}
        secret = {each.name: each.key for each in keep.opened.ring.body.domains}
    copies = {
        name: {**filled.objects(filled.main, key_id), **filled.objects(filled.offsite, key_id)}
        for name, key_id in ids.items()
    }
    before = Thief(filled, every_key)
    assert len(before.bodies) == 6, "three of the four keys open the keyring of each store"
    for domain, objects in copies.items():
        assert len(objects) >= 4
        assert all(before.opens(name, raw, domain=domain) for name, raw in objects.items())

    with filled.open() as keep:
        keep.keys.destroy("acme")
    after = Thief(filled, every_key)
    assert len(after.bodies) == 6
    assert not [n for n, raw in copies["acme"].items() if after.opens(n, raw, domain="acme")]
    for domain in ("default", "zeta"):
        assert all(after.opens(name, raw, domain=domain) for name, raw in copies[domain].items())

    def spelled(key):
        return (key, base64.b64encode(key)[:-4], key.hex().encode())

    everything = [filled.disk.read(path) for path, _ in filled.disk.walk(filled.folder)]
    everything += [path.read_bytes() for path in filled.keep_path.glob("state.db*")]
    everything += [repr(body).encode() + b"".join(k.key for k in body.domains) for body in
                   after.bodies]  # fmt: skip
    assert any(secret["zeta"] in raw for raw in everything), "the search finds what is there"
    for form in spelled(secret["acme"]):
        assert not any(form in raw for raw in everything)


def test_a_store_that_was_away_at_a_destruction_loses_the_key_when_it_is_back(filled):
    filled.away = filled.offsite
    with filled.open() as keep:
        (old,) = key_ids(keep, "acme")
        done = keep.keys.destroy("acme")
        assert done.away == ("offsite",)
    filled.away = None
    means = [Means(passphrase=Secret(PASSPHRASE.encode()))]
    held = {each.name for body in Thief(filled, means).bodies for each in body.domains}
    assert "acme" in held, "the store that was away has it still"
    filled.open().close()
    held = {each.name for body in Thief(filled, means).bodies for each in body.domains}
    assert held == {"default", "zeta"}
    assert not filled.objects(filled.main, old)


def test_the_next_backup_removes_what_was_destroyed_from_a_store_that_was_away(filled):
    filled.away = filled.offsite
    with filled.open() as keep:
        (old,) = key_ids(keep, "acme")
        keep.keys.destroy("acme")
    filled.away = None
    with filled.open() as keep:
        assert filled.objects(filled.offsite, old), "noise: its key is gone"
        (report,) = keep.backup()
        assert report.is_whole, report
        demand_whole(filled, keep, "digits:1", "other:1")
    assert not filled.objects(filled.offsite, old)


def test_a_key_that_comes_back_with_an_old_copy_of_a_store_goes_again(filled):
    ring = {name: filled.objects(filled.offsite)[name] for name in filled.rings(filled.offsite)}
    with filled.open() as keep:
        keep.keys.destroy("acme")
    filled.put_back(filled.offsite, ring)
    with filled.open() as keep:
        assert keep.opened.domains.names() == ("default", "zeta")
    assert not set(ring) & set(filled.rings(filled.offsite))


def test_domains_of_several_keeps_lives_stay_apart(filled):
    """A rekey, then a destruction of another domain, then a rotation: the rest is untouched."""
    with filled.open() as keep:
        keep.keys.rekey("zeta")
        keep.keys.destroy("acme")
    rotate(filled)
    with filled.open() as keep:
        demand_whole(filled, keep, "digits:1", "other:1")
        statuses = {row.name: row.status for row in keep.opened.state.rows(Domain)}
        assert statuses == {"acme": DomainStatus.DESTROYED, "zeta": DomainStatus.LIVE}
        for _, report in keep.ledger.verify():
            assert report.is_whole, report.findings
