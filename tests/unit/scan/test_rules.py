"""Unit tests of scan.rules: content decides, names only claim, and nothing raises."""

import io
import mmap
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelkeep.core.verdict import Decision, Severity, judged
from modelkeep.scan.evidence import found, printable
from modelkeep.scan.rules import findings_of
from modelkeep.scan.settings import ScanSettings

SETTINGS = ScanSettings()
ACTS = b"cposix\nsystem\n(S'id'\ntR."


def look(name, raw):
    return findings_of(name, raw, SETTINGS)


def decision(name, raw):
    return judged(look(name, raw)).decision


@pytest.mark.parametrize(
    "name", ["m.onnx", "m.safetensors", "m.npy", "m.npz", "m.pt", "m.pkl", "m.h5", "deep/M.ONNX"]
)
@pytest.mark.parametrize("raw", [b"", b"nothing known"])
def test_what_claims_a_format_by_name_and_is_nothing_is_denied(name, raw):
    assert decision(name, raw) is Decision.DENY


@pytest.mark.parametrize("name", ["README.md", "labels.txt", "noextension", "a.onnx/b"])
def test_bytes_that_nothing_executes_are_allowed_with_a_note(name):
    (finding,) = look(name, b"just text\n")
    assert (finding.rule, finding.severity) == ("scan.format.unknown", Severity.NOTE)


def test_a_name_that_says_another_known_format_holds():
    (finding,) = look("m.onnx", b"\x80\x04K\x01.")
    assert (finding.rule, finding.severity) == ("scan.format.mismatch", Severity.MEDIUM)


@pytest.mark.parametrize("magic", [b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07", b"RDX3\n"])
def test_known_formats_that_are_not_looked_into_are_held(magic):
    assert {each.rule for each in look("x", magic + bytes(9))} == {"scan.format.unexamined"}


@pytest.mark.parametrize(
    "magic", [b"\x89HDF\r\n\x1a\n", b"GGUF\x03", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18"]
)
def test_known_formats_that_do_not_parse_are_denied(magic):
    assert decision("x", magic + bytes(9)) is Decision.DENY


@pytest.mark.parametrize("magic", [b"\x7fELF\x02", b"MZ\x90\x00", b"#!/bin/sh\n"])
def test_programs_are_held(magic):
    assert decision("x", magic) is Decision.HOLD


def test_a_pickle_is_judged_as_one_under_every_name():
    for name in ("m.onnx", "m.txt", "m", "m.zip"):
        assert decision(name, ACTS) is Decision.DENY


def test_findings_are_bounded_and_the_gravest_stay():
    raw = b"".join(b"cm\nn%d\n0" % number for number in range(50)) + ACTS
    findings = findings_of("m.pkl", raw, ScanSettings(findings_max=3))
    assert len(findings) == 3
    assert findings[0].severity is Severity.HIGH


def test_what_a_file_says_cannot_write_on_a_terminal():
    findings = look("m\x1b[2J.pkl", b"c\x1b[31mred\n\x07bell\xe2\x80\xae\n)R.")
    text = "".join(each.evidence + each.subject for each in findings)
    assert text.isprintable()
    assert "\\x1b[31mred" in text


def test_evidence_is_cut():
    assert len(found("scan.x", Severity.NOTE, "s", "y" * 10_000).evidence) <= 320
    assert printable("a" * 160) == "a" * 160
    assert printable("a" * 161).endswith("…")


def test_a_mapped_file_can_be_closed_after_the_scan(tmp_path):
    path = tmp_path / "bundle"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m.pkl", ACTS)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert look("bundle", memoryview(mapped))


def test_every_setting_has_a_sentence_and_a_positive_default():
    for name in ScanSettings.__struct_fields__:
        assert f" {name}: " in (ScanSettings.__doc__ or "")
        value = getattr(SETTINGS, name)
        assert not isinstance(value, int) or value > 0


def _archive():
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", ACTS)
        archive.writestr("notes", b"text" * 20)
    return raw.getvalue()


ARCHIVE = _archive()
MAGICS = st.sampled_from(
    [b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\x00", b"x\x9c",
     b"\x80\x04\x95", b"\x08\x07\x3a", b"\x10\x00\x00\x00\x00\x00\x00\x00{"]
)  # fmt: skip


@given(MAGICS, st.binary(max_size=200), st.sampled_from(["m", "m.onnx", "m.pkl", "m.zip"]))
@settings(deadline=None, max_examples=400)
def test_no_bytes_make_the_scanner_raise(magic, rest, name):
    look(name, magic + rest)


@given(st.integers(0, len(ARCHIVE) - 1), st.integers(0, 255), st.integers(0, len(ARCHIVE)))
@settings(deadline=None, max_examples=300)
def test_no_change_of_an_archive_makes_the_scanner_raise(at, byte, cut):
    changed = bytearray(ARCHIVE)
    changed[at] = byte
    look("m.zip", bytes(changed))
    look("m.zip", bytes(changed[:cut]))
    look("m.zip", bytes(changed[cut:]))
