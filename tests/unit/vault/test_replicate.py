"""Replication: what is needed comes first, the head last, and nothing unproven is copied."""

from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import IntegrityError
from modelkeep.ports.store import ObjectStat
from modelkeep.testing.memory import MemoryStore
from modelkeep.vault.index import ChunkIndex, Index
from modelkeep.vault.replicate import (
    MOVING_KINDS,
    SHARED_KINDS,
    copy_objects,
    kind_of,
    lacking_packs,
    missing_in,
)
from tests.unit.vault.parts import packed

KINDS = ("format", *SHARED_KINDS, *(each for each in MOVING_KINDS if each != "format"))
names = st.builds(
    "{}/{:02d}".format,
    st.sampled_from((*KINDS, "ledger", "notes", "pack", "index")),
    st.integers(0, 9),
)
stores = st.dictionaries(names, st.integers(0, 3), max_size=30)


def stats(sizes):
    return [ObjectStat(name=name, size_bytes=size) for name, size in sizes.items()]


def believed(name, raw):
    del name, raw


@given(stores, stores)
def test_exactly_what_the_target_lacks_is_copied_in_the_order_of_need(source, target):
    found = missing_in(stats(source), stats(target))
    wanted = {n for n, size in source.items() if kind_of(n) in KINDS and target.get(n) != size}
    assert {each.name for each in found} == wanted
    order = [KINDS.index(kind_of(each.name)) for each in found]
    assert order == sorted(order)


@given(stores)
def test_the_head_comes_last_of_all(source):
    found = [kind_of(each.name) for each in missing_in(stats(source), [])]
    if "head" in found:
        assert found.index("head") == len(found) - found.count("head")


def test_a_copy_is_a_copy_and_a_second_one_copies_nothing():
    source, target = MemoryStore("source"), MemoryStore("target")
    for kind in KINDS:
        source.put(f"{kind}/1", kind.encode())
    done = copy_objects(
        missing_in(source.list(""), target.list("")), source=source, target=target, verify=believed
    )
    assert target.objects == source.objects
    assert (done.objects, done.replaced, done.damaged) == (len(KINDS), 0, ())
    assert done.size_bytes == sum(map(len, source.objects.values()))
    assert missing_in(source.list(""), target.list("")) == ()


def test_what_is_damaged_in_the_source_is_passed_over_and_named():
    source, target = MemoryStore(), MemoryStore()
    source.put("recipe/1", b"good")
    source.put("recipe/2", b"bad")

    def verify(name, raw):
        if raw == b"bad":
            raise IntegrityError("test.bad", name)

    done = copy_objects(
        missing_in(source.list(""), []), source=source, target=target, verify=verify
    )
    assert target.objects == {"recipe/1": b"good"}
    assert done.damaged == ("recipe/2",)


def test_a_target_never_names_what_it_does_not_hold():
    """The head waits until everything that it may need could be copied."""
    source, target = MemoryStore(), MemoryStore()
    for name in ("recipe/1", "snapshot/1", "head/000000000001"):
        source.put(name, b"bad" if name == "recipe/1" else b"good")

    def verify(name, raw):
        if raw == b"bad":
            raise IntegrityError("test.bad", name)

    copy_objects(missing_in(source.list(""), []), source=source, target=target, verify=verify)
    assert "head/000000000001" not in target.objects


def test_what_is_damaged_in_the_target_is_replaced():
    source, target = MemoryStore(), MemoryStore()
    source.put("recipe/1", b"good")
    target.put("recipe/1", b"cut")
    done = copy_objects(
        missing_in(source.list(""), target.list("")), source=source, target=target, verify=believed
    )
    assert target.objects == source.objects
    assert (done.objects, done.replaced) == (1, 1)


def test_packs_travel_whose_chunks_the_target_lacks():
    one, _ = packed(b"a", b"b")
    two, _ = packed(b"b", b"c", salt=bytes(32))
    other, _ = packed(b"a", b"b", b"d", salt=bytes(31) + b"x")
    source = ChunkIndex([Index(packs=(one, two))])
    assert list(lacking_packs(source, ChunkIndex())) == [one, two]
    assert list(lacking_packs(source, ChunkIndex([Index(packs=(other,))]))) == [two]
    assert list(lacking_packs(source, source)) == []
