"""Goal: erased means gone - tried with every key and every byte there is, not argued.

Method: append private facts, keep a copy of everything, erase, then try to open the content with
the keep's own keys from what is left; bring old copies back and let backup and check see them.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import count

import pytest
from scenes import Scene

from modelkeep.adapters.store_folder import FolderStore
from modelkeep.core.errors import IntegrityError, KeepError, MissingError, UsageError
from modelkeep.crypto.aead import opened_blob
from modelkeep.flows.prove import checked_entry
from modelkeep.flows.recover import copied
from modelkeep.flows.values import ERASED_ENTRY, demand_kept, swept
from modelkeep.ledger.value import erased_name, opened_value, value_name, value_of
from modelkeep.testing.memory import MemoryStore
from modelkeep.testing.power import Fuse, PowerCut

SECRET = "the name of a data subject, nowhere else"  # noqa: S105 - what must not be found
FACTS = {"result": "passed"}


@pytest.fixture
def scene(tmp_path):
    made = Scene(tmp_path)
    with made.create() as keep:
        index = keep.ledger.append("note.audit", FACTS, private={"subject": SECRET, "age": 44})
        assert index == keep.ledger.tail(1)[0][0]
    made.index = index
    return made


def value_id(keep, scene):
    return value_of(keep.ledger.entry(scene.index))


def everything(scene):
    return [scene.disk.read(path) for path, _ in scene.disk.walk(scene.folder)]


def test_private_facts_are_read_back_and_lie_nowhere_in_the_clear(scene):
    with scene.open() as keep:
        entry = keep.ledger.entry(scene.index)
        assert keep.ledger.private_facts(entry) == {"subject": SECRET, "age": 44}
        shown = keep.ledger.shown(entry).facts
        assert shown == {"result": "passed", "subject": "(private)", "age": "(private)"}
        assert keep.ledger.shown(entry, reveal=True).facts["subject"] == SECRET
    assert not any(SECRET.encode() in raw for raw in everything(scene))


def test_what_was_erased_cannot_be_opened_by_anybody_from_anything_that_is_left(scene):
    """Every object of every store and every file, under every key of the keep."""
    with scene.open() as keep:
        proof, before = keep.ledger.evidence.prove(str(scene.index))
        done = keep.ledger.erase(scene.index, reason="request 17")
        assert (done.stores, done.away) == (("main", "offsite"), ())
    with scene.open() as keep:
        entry = keep.ledger.entry(scene.index)
        assert keep.ledger.private_facts(entry) is None
        assert keep.ledger.shown(entry, reveal=True).facts["subject"] == "(erased)"
        keys = keep.opened.keys
        purposes = [value_name(done.value), f"ledger-value/{done.value}"]
        for raw in [*everything(scene), str(entry.facts["sealed"]).encode()]:
            with pytest.raises(KeepError):
                opened_value(entry, raw, body_key=keys.ledger_body)
            for key in (keys.ledger_body, keys.ledger_seed, keys.config, keys.own.blobs):
                for purpose in purposes:
                    with suppress(IntegrityError):
                        assert SECRET.encode() not in opened_blob(key, raw, purpose=purpose)
        # … and every proof still holds, the old one and a new one.
        again, after = keep.ledger.evidence.prove(str(scene.index))
        assert checked_entry(proof, keep.opened).entry == before.entry == after.entry
        assert (again.body, again.salt) == (proof.body, proof.salt)
        assert all(report.is_whole for _, report in keep.ledger.verify())
        assert keep.check().is_whole


def test_erasing_twice_is_erasing_once(scene):
    with scene.open() as keep:
        first = keep.ledger.erase(scene.index, reason="request 17")
        assert keep.ledger.erase(scene.index, reason="again") == first
        said = [entry for _, entry in keep.ledger.entries() if entry.kind == ERASED_ENTRY]
        assert [entry.facts["reason"] for entry in said] == ["request 17"]


def test_only_private_facts_can_be_erased_and_only_with_a_reason(scene):
    with scene.open() as keep:
        plain = keep.ledger.append("note.audit", FACTS)
        with pytest.raises(UsageError, match=r"ledger\.no_value"):
            keep.ledger.erase(plain, reason="x")
        for index in (10**6, -1):
            with pytest.raises(MissingError, match=r"ledger\.no_entry"):
                keep.ledger.erase(index, reason="x")
        for reason in ("", "  ", "x" * 501):
            with pytest.raises(UsageError, match=r"ledger\.reason"):
                keep.ledger.erase(scene.index, reason=reason)


def emptied(store):
    """Take everything out of a store: what its folder looks like while its disk is not mounted."""
    held = {stat.name: store.get(stat.name) for stat in list(store.list(""))}
    for name in held:
        store.delete(name)
    return held


def put_back(store, name, raw):
    FolderStore(store.path, store.label, store._disk).put(name, raw)


def test_a_store_that_was_away_loses_the_key_at_the_next_backup(scene):
    with scene.open() as keep:
        main, offsite = keep.opened.stores
        held = emptied(offsite)
        done = keep.ledger.erase(scene.index, reason="request 17")
        assert (done.stores, done.away) == (("main",), ("offsite",))
        assert list(offsite.list("")) == []  # nothing is written into an empty place
        for name, raw in sorted(held.items()):  # the disk is back
            put_back(offsite, name, raw)
        name = value_name(done.value)
        assert offsite.stat(name) is not None
        assert keep.ledger.private_facts(keep.ledger.entry(scene.index)) is None  # not even now
        keep.backup()
        assert offsite.stat(name) is None
        assert main.get(erased_name(done.value)) == offsite.get(erased_name(done.value))


def test_nothing_is_written_into_another_keeps_store(scene, tmp_path):
    stranger = Scene(tmp_path / "other", seed=5)
    with stranger.create() as other:
        theirs = emptied(other.opened.store)
    with scene.open() as keep:
        offsite = keep.opened.stores[1]
        emptied(offsite)
        for name, raw in theirs.items():
            put_back(offsite, name, raw)
        assert keep.ledger.erase(scene.index, reason="x").away == ("offsite",)
        assert swept(keep.opened) == ()
        assert {stat.name for stat in offsite.list("")} == theirs.keys()


@pytest.mark.parametrize("verb", ["backup", "check", "erase"])
def test_an_old_copy_of_a_store_does_not_bring_the_content_back(scene, verb):
    with scene.open() as keep:
        store = keep.opened.store
        old = {stat.name: store.get(stat.name) for stat in store.list("value/")}
        done = keep.ledger.erase(scene.index, reason="request 17")
        store.delete(erased_name(done.value))  # the copy was made before the erasure
        for name, raw in old.items():
            store.put(name, raw)
    with scene.open() as keep:
        assert keep.ledger.private_facts(keep.ledger.entry(scene.index)) is None
        if verb == "erase":
            keep.ledger.erase(scene.index, reason="request 17")
        else:
            getattr(keep, verb)()
        for store in keep.opened.stores:
            assert list(store.list("value/")) == []
            assert store.stat(erased_name(done.value)) is not None


def test_the_key_reaches_every_store_and_a_recovery_and_what_is_erased_does_not(scene):
    with scene.open() as keep:
        kept = keep.ledger.append("note.audit", {}, private={"subject": "stays"})
        kept_id = value_of(keep.ledger.entry(kept))
        gone = keep.ledger.erase(scene.index, reason="x").value
        keep.backup()
        offsite, fresh = keep.opened.stores[1], MemoryStore("fresh")
        offsite_value = offsite.get(value_name(kept_id))
        demand_kept(keep.opened.keys, value_name(kept_id), offsite_value)
        # an old copy of the key stands beside its mark: a recovery takes the mark, not the key
        offsite.put(value_name(gone), b"old")
        copied(offsite, fresh, verify=lambda *_: None)
        held = {name for name in fresh.objects if name.startswith(("value/", "erased/"))}
        assert held == {value_name(kept_id), erased_name(gone)}


def test_a_key_that_one_store_lost_is_read_from_another_and_given_back(scene):
    with scene.open() as keep:
        main, offsite = keep.opened.stores
        name = value_name(value_id(keep, scene))
        offsite.delete(name)
        assert keep.backup()[0].objects == 1
        assert offsite.get(name) == main.get(name)
        main.delete(name)
        entry = keep.ledger.entry(scene.index)
        assert keep.ledger.private_facts(entry) == {"subject": SECRET, "age": 44}
        offsite.delete(name)
        with pytest.raises(MissingError, match=r"ledger\.value_lost"):
            keep.ledger.private_facts(entry)


def test_a_damaged_key_is_found_and_repaired(scene):
    with scene.open() as keep:
        main = keep.opened.stores[0]
        name = value_name(value_id(keep, scene))
        right = main.get(name)
        main.delete(name)
        main.put(name, right[:-1] + bytes([right[-1] ^ 1]))
        assert not keep.check().is_whole
        assert keep.ledger.private_facts(keep.ledger.entry(scene.index))  # from the other store
        keep.check(repair=True)
        assert main.get(name) == right


def test_a_forged_mark_erases_nothing(scene):
    with scene.open() as keep:
        own = value_id(keep, scene)
        for store in keep.opened.stores:
            store.put(erased_name(own), bytes(64))
        assert swept(keep.opened) == ()
        entry = keep.ledger.entry(scene.index)
        assert keep.ledger.private_facts(entry) == {"subject": SECRET, "age": 44}
        keep.ledger.erase(scene.index, reason="x")
        assert keep.ledger.private_facts(entry) is None


def test_an_erasure_that_is_cut_anywhere_is_finished_by_the_next(scene):
    image = scene.image()
    for at in count():
        scene.show(image)
        with suppress(PowerCut):
            with scene.open(Fuse(at)) as keep:
                keep.ledger.erase(scene.index, reason="x")
            break
        scene.show(scene.image())
        with scene.open() as keep:
            keep.ledger.erase(scene.index, reason="x")
            assert keep.ledger.private_facts(keep.ledger.entry(scene.index)) is None
            assert not any(list(store.list("value/")) for store in keep.opened.stores)
            assert all(report.is_whole for _, report in keep.ledger.verify())
    assert at > 20


# ---- what may be appended -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "facts", "code"),
    [
        ("token.created", {}, "ledger.kind"),
        ("note.x", {"Value": "x"}, "ledger.fact"),
        ("note.x", {"value": "x"}, "ledger.fact"),
        ("note.x", {"private": "x"}, "ledger.fact"),
        ("note.x", {"a": "x" * 4097}, "ledger.fact"),
        ("note.x", {"a": 2**63}, "ledger.fact"),
        ("note.x", {"a": "\udc80"}, "ledger.fact"),
        ("note.x", {f"a{n}": "x" for n in range(33)}, "ledger.fact"),
        ("note.x", {f"a{n}": "\x01" * 4000 for n in range(20)}, "ledger.entry_size"),
    ],
)
def test_what_is_out_of_bounds_is_not_recorded(scene, kind, facts, code):
    with scene.open() as keep:
        size = keep.ledger.tail(1)[0][0]
        for options in ({"facts": facts}, {"facts": {}, "private": facts}):
            with pytest.raises(UsageError) as refused:
                keep.ledger.append(kind, **options)
            assert refused.value.code == code
        assert keep.ledger.tail(1)[0][0] == size


def test_a_fact_is_named_once(scene):
    with scene.open() as keep, pytest.raises(UsageError, match=r"ledger\.fact"):
        keep.ledger.append("note.x", {"a": 1}, private={"a": 2})
