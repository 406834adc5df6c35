"""Unit tests of scan.tars and scan.streams: what archives would write, and what they hide."""

import bz2
import gzip
import lzma
import struct
import tarfile

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from model_files import tarred

from modelkeep.core.errors import IntegrityError
from modelkeep.core.verdict import Decision, judged
from modelkeep.kernels import lz4
from modelkeep.scan.rules import findings_of
from modelkeep.scan.settings import ScanSettings
from modelkeep.scan.streams import inflated

SETTINGS = ScanSettings()
ACTS = b"cposix\nsystem\n(S'id'\ntR."
PLAIN = tarred({"weights.txt": b"1 2 3", "folder/labels.txt": b"a b"})


def lz4_frame(plain, *, packed=None):
    head = b"\x04\x22\x4d\x18\x60\x40\x82"
    block = packed if packed is not None else plain
    size = len(block) if packed is not None else len(block) | 1 << 31
    return head + struct.pack("<L", size) + block + bytes(4)


PACKERS = {
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda raw: lzma.compress(raw, lzma.FORMAT_ALONE),
    "zstd": zstandard.compress,
    "lz4": lz4_frame,
    "tar": lambda raw: tarred({"inner": raw}),
    "skipped": lambda raw: b"\x50\x2a\x4d\x18\x03\0\0\0abc" + zstandard.compress(raw),
}


def look(raw, name="m"):
    return judged(findings_of(name, raw, SETTINGS))


def rules(raw):
    return {each.rule for each in look(raw).findings}


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("outer", ["tar", "zstd", "gzip"])
def test_what_is_inside_is_judged_however_it_is_packed(kind, outer):
    pack, outside = PACKERS[kind], PACKERS[outer]
    assert look(outside(pack(ACTS))).decision is Decision.DENY
    assert look(outside(pack(b"numbers 1 2 3\n" * 40))).decision is Decision.ALLOW


@pytest.mark.parametrize("kind", ["zstd", "lz4", "lzma"])
def test_cut_data_is_refused(kind):
    packed = PACKERS[kind](b"some plaintext " * 100)
    for cut in range(5, len(packed) - 5, 7):
        with pytest.raises(IntegrityError):
            inflated(memoryview(packed[:cut]), kind, 1 << 20)


def test_numbers_that_look_like_the_older_lzma_are_no_archive():
    packed = lzma.compress(bytes(range(256)) * 20 + ACTS * 9, lzma.FORMAT_ALONE)
    garbage = packed[:40] + b"\xff" * 400
    assert look(garbage).decision is Decision.ALLOW
    assert look(garbage, "m.joblib").decision is Decision.DENY
    acting = lzma.compress(ACTS + bytes(range(256)) * 40, lzma.FORMAT_ALONE)
    assert look(acting[:-40]).decision is Decision.DENY


def test_zstd_stops_at_its_bound_and_joins_frames():
    packed = memoryview(zstandard.compress(bytes(50_000_000)))
    assert inflated(packed, "zstd", 1_000_000) == (None, 0)
    two = memoryview(zstandard.compress(b"one") + zstandard.compress(b"two") + b"rest")
    assert inflated(two, "zstd", 100) == (b"onetwo", 4)


def test_lz4_copies_what_came_before():
    packed = bytes([0x1F]) + b"a" + struct.pack("<H", 1) + bytes([200]) + bytes([0x20]) + b"bc"
    frame = memoryview(lz4_frame(b"", packed=packed))
    assert lz4.decoded(frame, 1 << 20) == (b"a" * 220 + b"bc", 0)
    assert lz4.decoded(frame, 100) == (None, 0)
    with pytest.raises(IntegrityError):
        lz4.decoded(memoryview(lz4_frame(b"", packed=b"\x1fa\x09\x00\x00")), 100)


def test_a_plain_archive_is_allowed():
    assert look(PLAIN).decision is Decision.ALLOW


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "C:/x", "..\\x", "~/x"])
def test_a_member_that_leaves_its_folder_is_denied(name):
    assert "scan.archive.traversal" in rules(tarred({name: b"x"}))


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.BLKTYPE]
)
def test_links_and_devices_are_denied(kind):
    raw = tarred({"a": b"x", "l": b""}, {"l": (kind, "/etc/passwd")})
    assert "scan.archive.link" in rules(raw)


def linked(*pairs, then=()):
    kinds = {name: (tarfile.SYMTYPE, target) for name, target in pairs}
    return tarred({"a/x": b"x", **dict.fromkeys(kinds, b""), **dict.fromkeys(then, b"y")}, kinds)


def test_links_that_stay_inside_are_allowed_and_nothing_goes_through_them():
    assert look(linked(("a/y", "x"), ("b/z", "../a/x"), ("c", "a/y"))).decision is Decision.ALLOW
    hard = tarred({"a": b"x", "b": b""}, {"b": (tarfile.LNKTYPE, "a")})
    assert look(hard).decision is Decision.ALLOW
    assert look(linked(("b", "../a"))).decision is Decision.DENY
    assert look(linked(("a/b", "../../a"))).decision is Decision.DENY
    assert look(linked(("l", "a"), ("m", "l/x"))).decision is Decision.DENY
    assert look(linked(("l", "a"), then=["l/evil"])).decision is Decision.DENY


def test_names_that_stand_twice_are_denied():
    double = tarred({"a": b"x"})[:1024] + tarred({"./a": b"y"})
    assert "scan.archive.duplicate" in rules(double)


def test_long_names_are_read_from_both_kinds_of_records():
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        entry = tarfile.TarInfo("../" + "x" * 200)
        raw = entry.tobuf(form) + bytes(1024)
        assert "scan.archive.traversal" in rules(raw)


def test_bytes_after_the_end_are_a_finding():
    assert "scan.archive.hidden" in rules(PLAIN + b"more")


def test_the_old_form_without_a_magic_is_known():
    raw = bytearray(tarred({"m.pkl": ACTS}))
    raw[257:265] = bytes(8)
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw[:512])
    assert look(bytes(raw)).decision is Decision.DENY


@pytest.mark.parametrize("magic", [b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07\x01", b"MSCF\0\0\0\0"])
def test_archives_that_are_not_looked_into_are_held(magic):
    assert {each.rule for each in look(magic + bytes(30)).findings} == {"scan.format.unexamined"}


@given(
    st.sampled_from([PLAIN, *(pack(ACTS * 3) for pack in PACKERS.values())]),
    st.integers(0, 2000),
    st.binary(max_size=6),
)
@settings(deadline=None, max_examples=300)
def test_no_change_of_an_archive_makes_the_scanner_raise(raw, at, new):
    look(raw[:at] + new + raw[at + len(new) :])
    look(raw[:at])
