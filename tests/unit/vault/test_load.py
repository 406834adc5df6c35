"""The read side: every byte is proven, the next store helps out, and damage is healed and noted."""

import pytest

from modelkeep.core.errors import IntegrityError, MissingError, UnavailableError
from modelkeep.testing.memory import MemoryStore
from modelkeep.vault.commit import stored
from modelkeep.vault.index import ChunkIndex
from tests.unit.vault.parts import DOMAIN, SEGMENT_BYTES, flipped, reader_of, source, writer_to

RAW = b"".join(bytes([n]) * SEGMENT_BYTES for n in range(5)) + b"the rest"
SIZE = len(RAW)


class Away(MemoryStore):
    """A store that cannot be reached."""

    def get(self, name, *, start=0, length=None):
        del name, start, length
        raise UnavailableError("store.read", "away")


@pytest.fixture
def kept():
    """Two stores that hold the same file."""
    main, offsite = MemoryStore("main"), MemoryStore("offsite")
    sources = [source(RAW)]
    wrote = stored(sources, writer=writer_to(main), known=ChunkIndex())
    offsite.objects.update(main.objects)
    return main, offsite, wrote


def loaded(reader, wrote, size=SIZE):
    target = bytearray(b"\xff" * size)
    reader.file_into(memoryview(target), wrote.files[0].recipe, key_id=DOMAIN.key_id)
    return bytes(target)


def damage(store, name, how):
    raw = store.objects.pop(name)
    if how != "missing":
        changed = {"flip": flipped(raw, len(raw) * 4), "cut": raw[: len(raw) // 2], "empty": b""}
        store.objects[name] = changed[how]


def test_a_whole_store_gives_the_file_and_notes_nothing(kept):
    main, offsite, wrote = kept
    reader = reader_of(main, offsite)
    assert loaded(reader, wrote) == RAW
    assert reader.damages == []


@pytest.mark.parametrize("how", ["flip", "cut", "empty", "missing"])
def test_what_one_store_lost_is_read_from_the_next_and_healed(kept, how):
    main, offsite, wrote = kept
    name = wrote.packs[0].name
    good = main.objects[name]
    damage(main, name, how)
    reader = reader_of(main, offsite)
    assert loaded(reader, wrote) == RAW
    assert main.objects[name] == good
    (noted,) = reader.damages
    assert (noted.store, noted.object, noted.healed) == ("main", name, True)


@pytest.mark.parametrize("how", ["flip", "cut", "empty", "missing"])
def test_a_store_without_its_index_is_passed_over(kept, how):
    main, offsite, wrote = kept
    damage(main, wrote.indexes[0], how)
    reader = reader_of(main, offsite)
    assert loaded(reader, wrote) == RAW
    noted = [(each.object, each.healed) for each in reader.damages]
    assert noted == ([] if how == "missing" else [(wrote.indexes[0], False)])


def test_a_pack_that_a_prune_moved_is_found_again():
    """The reader has read the indexes before: it reads them once more."""
    main = MemoryStore("main")
    wrote = stored([source(RAW)], writer=writer_to(main), known=ChunkIndex())
    reader = reader_of(main)
    assert loaded(reader, wrote) == RAW
    old = dict(main.objects)
    stored([source(RAW)], writer=writer_to(main, pack_bytes=8192), known=ChunkIndex())
    for name in old:
        main.delete(name)
    assert loaded(reader, wrote) == RAW
    assert reader.damages == []


def test_without_the_right_to_repair_nothing_is_changed(kept):
    main, offsite, wrote = kept
    damage(main, wrote.packs[0].name, "flip")
    before = dict(main.objects)
    reader = reader_of(main, offsite, may_heal=False)
    assert loaded(reader, wrote) == RAW
    assert main.objects == before
    assert [each.healed for each in reader.damages] == [False]


def test_damage_is_never_healed_with_damage(kept):
    """The segment that was read is good in the second store; the rest of its pack is not."""
    main, offsite, wrote = kept
    pack = wrote.packs[0]
    last = pack.segments[-1]
    bad_main = bytearray(main.objects[pack.name])
    bad_main[pack.segments[0].offset] ^= 1
    main.objects[pack.name] = bytes(bad_main)
    bad_offsite = bytearray(offsite.objects[pack.name])
    bad_offsite[last.offset] ^= 1
    offsite.objects[pack.name] = bytes(bad_offsite)
    reader = reader_of(main, offsite)
    assert loaded(reader, wrote) == RAW
    assert main.objects[pack.name] == bytes(bad_main)
    assert {(each.store, each.healed) for each in reader.damages} == {("main", False)} or not any(
        each.healed for each in reader.damages
    )


def test_a_store_that_is_away_is_not_healed(kept):
    main, offsite, wrote = kept
    away = Away("away")
    away.objects = dict(main.objects)
    reader = reader_of(away, offsite)
    assert loaded(reader, wrote) == RAW
    assert away.objects == main.objects
    assert not any(each.healed for each in reader.damages)


def test_damage_in_every_store_says_where_in_the_file(kept):
    main, offsite, wrote = kept
    pack = wrote.packs[0]
    third = pack.segments[2]
    for store in (main, offsite):
        raw = bytearray(store.objects[pack.name])
        raw[third.offset] ^= 1
        store.objects[pack.name] = bytes(raw)
    reader = reader_of(main, offsite)
    with pytest.raises(IntegrityError) as refused:
        loaded(reader, wrote)
    assert refused.value.code == "vault.chunk"
    assert refused.value.context["offset"] == 2 * SEGMENT_BYTES
    assert refused.value.context["length"] == SEGMENT_BYTES
    assert {each.store for each in reader.damages} == {"main", "offsite"}


@pytest.mark.parametrize("size", [0, len(RAW) - 1, len(RAW) + 1])
def test_a_target_of_another_size_is_refused(kept, size):
    main, offsite, wrote = kept
    with pytest.raises(IntegrityError) as refused:
        loaded(reader_of(main, offsite), wrote, size)
    assert refused.value.code == "vault.recipe"


def test_a_chunk_that_no_index_knows_is_refused(kept):
    main, _, wrote = kept
    target = memoryview(bytearray(len(RAW)))
    main.delete(wrote.indexes[0])
    with pytest.raises(IntegrityError) as refused:
        reader_of(main).file_into(target, wrote.files[0].recipe, key_id=DOMAIN.key_id)
    assert refused.value.context["cause"] == "vault.index"


def test_the_snapshot_before_the_first_is_empty():
    assert reader_of(MemoryStore()).snapshot("").artifacts == ()
    with pytest.raises(MissingError):
        reader_of(MemoryStore()).snapshot("snapshot/00/" + "00" * 32)
