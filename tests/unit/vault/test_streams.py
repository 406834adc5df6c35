"""Files read piece by piece are cut where they would be if all of them were at hand."""

import numpy as np
import pytest

from modelkeep.crypto.kdf import derived_key
from modelkeep.kernels.chunker import chunk_lengths
from modelkeep.kernels.tensors import TensorPlace
from modelkeep.vault import streams
from modelkeep.vault.streams import Plain, streamed
from tests.unit.vault.parts import writer_to

MIB = 1024 * 1024


def noise(seed, size_bytes):
    return np.random.default_rng(seed).bytes(size_bytes)


def plain(raw):
    def read_into(start, target):
        assert start + len(target) <= len(raw)
        target[:] = raw[start : start + len(target)]

    return Plain(path="file", size_bytes=len(raw), read_into=read_into)


@pytest.mark.parametrize("tail", [0, 1, 5 * MIB + 3])
def test_a_window_moves_no_border(monkeypatch, tail):
    monkeypatch.setattr(streams, "_WINDOW_BYTES", 5 * MIB)
    raw = noise(tail, 7 * MIB) + bytes(4 * MIB) + noise(1, tail)
    writer = writer_to(segment_bytes=4 * MIB)
    key = derived_key(writer.domain.chunk_ids, "chunk-borders").reveal()
    found = list(streamed(plain(raw), (), writer=writer).places)
    assert [length for _, length in found] == chunk_lengths(memoryview(raw), key=key)
    assert [start for start, _ in found] == [
        sum(length for _, length in found[:at]) for at in range(len(found))
    ]


def test_no_chunk_is_longer_than_a_segment():
    raw = noise(0, 3 * MIB)
    found = list(streamed(plain(raw), (), writer=writer_to(segment_bytes=100_000)).places)
    assert sum(length for _, length in found) == len(raw)
    assert max(length for _, length in found) == 100_000


def test_tensors_are_cut_at_their_borders_and_nothing_is_read():
    def never(*_):
        raise AssertionError("nothing needs to be read")

    tensor = TensorPlace("w", "FP32", (2500,), 5000, 10_000)
    found = streamed(Plain("file", 20_000, never), (tensor,), writer=writer_to(segment_bytes=8192))
    assert list(found.places) == [(0, 5000), (5000, 8192), (13192, 1808), (15000, 5000)]


def test_an_empty_file_has_no_chunks():
    assert list(streamed(plain(b""), (), writer=writer_to()).places) == []
