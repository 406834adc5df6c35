"""Unit tests of scan.archives and scan.members: inflating within bounds, reading both headers."""

import bz2
import gzip
import lzma
import zlib

import pytest

from modelkeep.core.errors import IntegrityError
from modelkeep.core.verdict import Decision, judged
from modelkeep.scan.archives import inflated
from modelkeep.scan.members import directory_of, has_directory
from modelkeep.scan.rules import findings_of
from modelkeep.scan.settings import ScanSettings
from tests.attack.scan.corpus import zipped

PLAIN = b"some plaintext " * 1000
PACKERS = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "zlib": zlib.compress}


@pytest.mark.parametrize("kind", PACKERS)
def test_plaintext_comes_back_up_to_the_bound_and_not_one_byte_past_it(kind):
    packed = memoryview(PACKERS[kind](PLAIN))
    assert inflated(packed, kind, len(PLAIN)) == (PLAIN, 0)
    assert inflated(packed, kind, len(PLAIN) - 1) == (None, 0)


@pytest.mark.parametrize("kind", PACKERS)
def test_bytes_after_the_data_are_counted(kind):
    packed = memoryview(PACKERS[kind](PLAIN) + b"\x00rest")
    assert inflated(packed, kind, len(PLAIN)) == (PLAIN, 5)


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz"])
def test_streams_after_the_first_are_read_as_their_readers_do(kind):
    packed = memoryview(PACKERS[kind](PLAIN) + PACKERS[kind](b"second"))
    assert inflated(packed, kind, 1 << 20) == (PLAIN + b"second", 0)


@pytest.mark.parametrize("kind", PACKERS)
def test_cut_data_is_refused_at_every_tenth_byte(kind):
    packed = PACKERS[kind](PLAIN)
    for cut in range(0, len(packed), 10):
        with pytest.raises(IntegrityError):
            inflated(memoryview(packed[:cut]), kind, 1 << 20)


@pytest.mark.parametrize("kind", PACKERS)
def test_a_compressed_bomb_is_denied_and_costs_the_bound_only(kind):
    packed = PACKERS[kind](bytes(3_000_000))
    settings = ScanSettings(member_bytes_max=1_000_000)
    found = judged(findings_of("x", packed, settings))
    assert found.decision is Decision.DENY
    assert {"scan.archive.bomb"} == {each.rule for each in found.findings}


def test_a_directory_is_read_as_its_members_lie():
    raw = memoryview(zipped({"a": b"content", "b/c": b"more"}))
    directory = directory_of(raw, members_max=2)
    assert [(each.name, each.plain_bytes) for each in directory.members] == [("a", 7), ("b/c", 4)]
    assert not directory.gaps
    assert not directory.overlaps
    first = directory.members[0]
    assert bytes(raw[first.offset : first.offset + first.packed_bytes]) == b"content"


def test_members_are_refused_one_past_the_bound():
    raw = memoryview(zipped({"a": b"", "b": b""}))
    assert len(directory_of(raw, members_max=2).members) == 2
    with pytest.raises(IntegrityError) as caught:
        directory_of(raw, members_max=1)
    assert caught.value.code == "zip.members"


def test_only_what_ends_as_an_archive_has_a_directory():
    raw = zipped({"a": b"content"})
    assert has_directory(memoryview(raw))
    assert has_directory(memoryview(b"in front" + raw))
    assert not has_directory(memoryview(b"PK\x05\x06" + bytes(18)))
    assert not has_directory(memoryview(b"text"))
