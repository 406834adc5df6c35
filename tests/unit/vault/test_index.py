"""The merged index: the first place of a chunk counts, and every pack is listed once."""

from modelkeep.core.record import from_msgpack, to_msgpack
from modelkeep.vault.index import ChunkIndex, Index
from tests.unit.vault.parts import chunk_id, packed

ONE, _ = packed(b"a", b"b")
TWO, _ = packed(b"b", b"c", salt=bytes(32))


def test_every_chunk_is_found_in_the_pack_that_came_first():
    index = ChunkIndex([Index(packs=(ONE,)), Index(packs=(TWO,))])
    for plain, pack in ((b"a", ONE), (b"b", ONE), (b"c", TWO)):
        found, segment = index.find(chunk_id(plain))
        assert (found.name, found.salt) == (pack.name, pack.salt)
        assert segment.chunk_id == chunk_id(plain)
    assert index.find(chunk_id(b"d")) is None


def test_adding_again_changes_nothing():
    index = ChunkIndex([Index(packs=(ONE,))])
    index.add(TWO)
    before = index.find(chunk_id(b"b"))
    index.add(TWO)
    index.add(ONE)
    assert index.find(chunk_id(b"b")) == before


def test_packs_are_listed_once():
    index = ChunkIndex([Index(packs=(ONE, TWO)), Index(packs=(ONE,))])
    assert sorted(pack.name for pack in index.packs()) == sorted([ONE.name, TWO.name])
    assert list(ChunkIndex().packs()) == []


def test_an_index_comes_back_from_its_bytes():
    index = Index(packs=(ONE, TWO))
    assert from_msgpack(Index, to_msgpack(index), what="it") == index
