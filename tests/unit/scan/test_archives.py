"""Unit tests of scan.archives and scan.members: inflating within bounds, reading both headers."""

import bz2
import gzip
import io
import lzma
import struct
import zipfile
import zlib

import pytest

from modelkeep.core.errors import IntegrityError
from modelkeep.core.verdict import Decision, judged
from modelkeep.scan.members import directory_of, has_directory
from modelkeep.scan.rules import findings_of
from modelkeep.scan.settings import ScanSettings
from modelkeep.scan.streams import inflated
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


def with_large_end(raw, *, magic=b"PK\x06\x06", count=None, shift=0):
    """An archive as torch.save writes it: a large end and its locator, a small end that fits."""
    place = raw.rindex(b"PK\x05\x06")
    small = struct.unpack_from("<4s4H2LH", raw, place)
    count = small[4] if count is None else count
    large = (magic, 44, 45, 45, 0, 0, small[4], count, small[5], small[6])
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, place + shift, 1)
    return raw[:place] + struct.pack("<4sQ2H2L4Q", *large) + locator + raw[place:]


@pytest.mark.parametrize("front", [b"", b"in front"])
def test_a_large_end_beside_a_small_one_that_fits_is_read(front):
    raw = zipped({"a": b"content", "b": b"more"})
    found = directory_of(memoryview(front + with_large_end(raw)), members_max=2)
    assert [each.name for each in found.members] == ["a", "b"]
    assert found.gaps == (((0, len(front)),) if front else ())
    assert not found.overlaps
    assert has_directory(memoryview(front + with_large_end(raw)))


@pytest.mark.parametrize("wrong", [{"count": 0}, {"magic": b"PK\x06\x05"}, {"shift": 1}])
def test_ends_that_disagree_are_refused_and_never_overlooked(wrong):
    raw = b"in front" + with_large_end(zipped({"a": b"content"}), **wrong)
    raw = raw if "shift" not in wrong else raw[len(b"in front") :]
    assert has_directory(memoryview(raw))
    with pytest.raises(IntegrityError) as caught:
        directory_of(memoryview(raw), members_max=2)
    assert caught.value.code == "zip.end"


def test_an_archive_cut_anywhere_in_front_of_its_large_end_is_refused():
    raw = with_large_end(zipped({"a": b"content"}))
    for cut in range(1, len(raw) - 22):
        with pytest.raises(IntegrityError):
            directory_of(memoryview(raw[cut:]), members_max=2)


@pytest.mark.parametrize(
    ("name", "other", "wanted"),
    [
        ("notes.txt", b"config.json", Decision.DENY),
        ("notes.txt", b"notes.txt", Decision.ALLOW),
        ("n\u00f6tes", "n\u00f6tes".encode(), Decision.ALLOW),
        ("n\u00f6tes", b"../x", Decision.DENY),
    ],
)
def test_a_second_name_of_a_member_is_a_disagreement(name, other, wanted):
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        entry = zipfile.ZipInfo(name)
        body = b"\x01" + zlib.crc32(name.encode()).to_bytes(4, "little") + other
        entry.extra = struct.pack("<2H", 0x7075, len(body)) + body
        archive.writestr(entry, b"1 2 3")
    assert judged(findings_of("m", raw.getvalue(), ScanSettings())).decision is wanted
