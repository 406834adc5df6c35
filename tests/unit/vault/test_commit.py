"""The write side: every byte is in exactly one chunk, and nothing is written twice."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.artifact import TensorEntry
from modelkeep.core.digest import Digest
from modelkeep.core.errors import UnavailableError
from modelkeep.kernels.tensors import TensorPlace
from modelkeep.testing.memory import MemoryStore
from modelkeep.vault.commit import PIECE_BYTES_MIN, Deposit, cuts, stored
from modelkeep.vault.encode import Policy
from modelkeep.vault.index import ChunkIndex
from tests.unit.vault.parts import DOMAIN, SEGMENT_BYTES, reader_of, source, writer_to

SIZE_MAX = 10 * SEGMENT_BYTES


def tensor(name, offset, length):
    return TensorEntry(
        name=name, dtype="RAW", shape=(), offset=offset, length=length, digest=Digest("")
    )


@st.composite
def layouts(draw):
    """A file's size, and tensors somewhere in it: in any order, overlapping, empty."""
    size = draw(st.integers(0, SIZE_MAX))
    places = draw(st.lists(st.tuples(st.integers(0, size), st.integers(0, size)), max_size=8))
    return size, tuple(
        tensor(str(number), min(pair), max(pair) - min(pair)) for number, pair in enumerate(places)
    )


@given(layouts(), st.integers(PIECE_BYTES_MIN, 2 * SIZE_MAX))
def test_cuts_cover_every_byte_exactly_once_in_order(layout, segment_bytes):
    size, tensors = layout
    at = 0
    for start, length in cuts(size, tensors, segment_bytes):
        assert start == at
        assert 0 < length <= segment_bytes
        at += length
    assert at == size


@given(st.integers(0, 20), st.integers(PIECE_BYTES_MIN, SEGMENT_BYTES * 3))
def test_a_tensor_of_some_size_starts_a_chunk_of_its_own(before, length):
    """So that two versions that share a tensor share its chunks, wherever it lies."""
    first = before * PIECE_BYTES_MIN
    starts = [
        start for start, _ in cuts(SIZE_MAX * 3, (tensor("w", first, length),), SEGMENT_BYTES)
    ]
    assert first in starts
    assert first + length in starts


@given(st.integers(0, 3 * PIECE_BYTES_MIN), st.lists(st.integers(0, PIECE_BYTES_MIN), max_size=5))
def test_a_tensor_behind_a_small_gap_starts_a_chunk(header, gaps):
    """A torch zip has a member's header before each storage, safetensors one before all."""
    tensors, at = [], header
    for number, gap in enumerate(gaps):
        tensors.append(tensor(str(number), at + gap, 2 * PIECE_BYTES_MIN))
        at += gap + 2 * PIECE_BYTES_MIN
    starts = {start for start, _ in cuts(at, tensors, SEGMENT_BYTES)}
    assert {each.offset for each in tensors} <= starts


def read_back(store, wrote):
    reader = reader_of(store)
    found = []
    for file in wrote.files:
        target = bytearray(file.recipe.size_bytes)
        reader.file_into(memoryview(target), file.recipe, key_id=DOMAIN.key_id)
        found.append(bytes(target))
    return found


@given(st.lists(st.binary(max_size=3 * SEGMENT_BYTES), max_size=3), layouts())
def test_files_come_back_from_the_store(files, layout):
    store = MemoryStore()
    size, tensors = layout
    sources = [source(raw, str(n)) for n, raw in enumerate(files)]
    sources.append(source(bytes(size), "laid out", tensors))
    wrote = stored(sources, writer=writer_to(store), known=ChunkIndex())
    assert read_back(store, wrote) == [*files, bytes(size)]


def test_packs_come_before_the_index_that_names_them():
    class Listening(MemoryStore):
        def __init__(self):
            super().__init__()
            self.order = []

        def put(self, name, raw):
            self.order.append(name.partition("/")[0])
            super().put(name, raw)

    store = Listening()
    raw = bytes(range(256)) * 200
    settings = {"pack_bytes": 2 * SEGMENT_BYTES}
    wrote = stored([source(raw)], writer=writer_to(store, **settings), known=ChunkIndex())
    assert store.order == ["pack"] * len(wrote.packs) + ["index"]


def test_a_pack_is_closed_at_its_size_and_a_second_is_begun():
    raw = b"".join(bytes([n]) * SEGMENT_BYTES for n in range(10))
    writer = writer_to(pack_bytes=3 * SEGMENT_BYTES)
    wrote = stored([source(raw)], writer=writer, known=ChunkIndex())
    assert [len(pack.segments) for pack in wrote.packs] == [3, 3, 3, 1]
    assert read_back(writer.store, wrote) == [raw]


def test_what_is_known_is_not_written_again():
    store = MemoryStore()
    raw = b"".join(bytes([n]) * SEGMENT_BYTES for n in range(4))
    first = stored([source(raw)], writer=writer_to(store), known=ChunkIndex())
    known = reader_of(store).index_of(store, DOMAIN.key_id)
    assert [pack.name for pack in known.packs()] == [pack.name for pack in first.packs]
    before = dict(store.objects)
    again = stored([source(raw)], writer=writer_to(store), known=known)
    assert (again.indexes, again.packs) == ((), ())
    assert again.files == first.files
    assert store.objects == before


def test_equal_chunks_of_one_commit_are_stored_once_across_packs():
    raw = (b"a" * SEGMENT_BYTES + b"b" * SEGMENT_BYTES) * 5
    writer = writer_to(pack_bytes=SEGMENT_BYTES)
    wrote = stored([source(raw)], writer=writer, known=ChunkIndex())
    assert sum(len(pack.segments) for pack in wrote.packs) == 2
    assert read_back(writer.store, wrote) == [raw]


def test_progress_adds_up_to_every_byte():
    done = []
    raw = bytes(3 * SEGMENT_BYTES + 5)
    stored([source(raw)], writer=writer_to(), known=ChunkIndex(), progress=done.append)
    assert sum(done) == len(raw)


def test_a_store_that_fails_fails_the_commit():
    class Full(MemoryStore):
        def put(self, name, raw):
            del name, raw
            raise UnavailableError("store.write", "the disk is full")

    with pytest.raises(UnavailableError):
        stored([source(b"x")], writer=writer_to(Full()), known=ChunkIndex())


def test_a_delta_whose_base_is_gone_does_not_count_as_held():
    """Else nobody would store the chunk again, and it could never be read."""
    rng = np.random.default_rng(5)
    base = rng.standard_normal(4096).astype(np.float32)
    tuned = (base + 1e-5 * rng.standard_normal(4096)).astype(np.float32)
    store = MemoryStore()
    settings = {"segment_bytes": 16384, "pack_bytes": 16384}
    writer = writer_to(store, policy=Policy.SMALL, **settings)
    tensors = (TensorPlace("w", "FP32", (4096,), 0, 16384),)
    reader = reader_of(store)
    known = reader.index_of(store, DOMAIN.key_id)
    wrote = stored(
        [source(array.tobytes(), str(n), tensors, 16384) for n, array in enumerate((base, tuned))],
        writer=writer,
        known=known,
        fetch=lambda chunk_id: reader.chunk(chunk_id, key_id=DOMAIN.key_id),
    )
    first, second = (each.recipe.chunks[0][0] for each in wrote.files)
    assert known.find(second)[1].base == first
    assert Deposit(writer, known).holds(second)
    store.delete(known.find(first)[0].name)
    assert not Deposit(writer, known).holds(second)
