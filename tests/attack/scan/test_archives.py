"""Archives that unpack elsewhere, explode, or show two readers two things are refused."""

import io
import pickle
import stat
import struct
import warnings
import zipfile
import zlib

import pytest

from modelkeep.core.verdict import Decision, Severity, judged
from modelkeep.scan.rules import findings_of
from modelkeep.scan.settings import ScanSettings
from tests.attack.scan.corpus import calling, zipped

SETTINGS = ScanSettings()
SMALL = ScanSettings(member_bytes_max=1000, expanded_bytes_max=3000, members_max=5, depth_max=2)
ACTING = calling("os", "system", "true")


def verdict(raw, settings=SETTINGS, name="bundle.zip"):
    return judged(findings_of(name, raw, settings))


def rules(found):
    """Of what holds or denies; notes are left out."""
    return {each.rule for each in found.findings if each.severity is not Severity.NOTE}


def with_entry(name="member", content=b"content", **attributes):
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        info = zipfile.ZipInfo(name)
        for key, value in attributes.items():
            setattr(info, key, value)
        archive.writestr(info, content)
    return raw.getvalue()


def replaced(raw, old, new, count=1):
    assert old in raw
    return raw.replace(old, new, count)


@pytest.mark.parametrize("name", ["../up", "a/../../up", "/etc/passwd", "C:/x", "a\\..\\..\\up"])
def test_a_member_that_would_leave_its_folder_is_denied(name):
    found = verdict(replaced(with_entry("x" * len(name)), b"x" * len(name), name.encode(), 2))
    assert found.decision is Decision.DENY
    assert "scan.archive.traversal" in rules(found)
    assert found.findings[0].reference == "CWE-22"


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_are_denied(kind):
    raw = with_entry(create_system=3, external_attr=(kind | 0o777) << 16)
    assert "scan.archive.link" in rules(verdict(raw))


def test_two_members_of_one_name_are_denied():
    raw = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(raw, "w") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("a", b"1")
        archive.writestr("a", b"2")
    assert "scan.archive.duplicate" in rules(verdict(raw.getvalue()))


def test_a_name_that_differs_between_header_and_directory_is_denied():
    found = verdict(replaced(with_entry("harmless"), b"harmless", b"harmful!"))
    assert found.decision is Decision.DENY
    assert rules(found) == {"scan.archive.disagreement"}


def test_a_member_that_the_directory_does_not_list_is_denied():
    listed, hidden = zipped({"a": b"1"}), zipped({"b": b"2"})
    local = hidden[: hidden.index(b"PK\x01\x02")]
    directory = listed.index(b"PK\x01\x02")
    end = listed.index(b"PK\x05\x06")
    moved = bytearray(listed[:directory] + local + listed[directory:])
    struct.pack_into("<L", moved, end + len(local) + 16, directory + len(local))
    assert rules(verdict(bytes(moved))) == {"scan.archive.hidden"}
    assert verdict(bytes(moved)).decision is Decision.DENY


def test_bytes_around_an_archive_hold_it():
    raw = zipped({"a": b"1"})
    for odd in (raw + b"more", b"MORE" + raw):
        assert verdict(odd, name="x").decision is not Decision.ALLOW


def test_members_that_share_bytes_are_a_bomb():
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        for name in ("a", "b"):
            archive.writestr(name, b"0" * 10)
    found = bytearray(raw.getvalue())
    second = found.rindex(b"PK\x01\x02")
    struct.pack_into("<L", found, second + 42, 0)
    assert "scan.archive.bomb" in rules(verdict(bytes(found)))


def test_a_small_file_that_claims_to_expand_beyond_the_bound_is_a_bomb():
    found = verdict(zipped({"a": bytes(200_000)}, zipfile.ZIP_DEFLATED), SMALL)
    assert rules(found) == {"scan.archive.bomb"}
    assert found.findings[0].reference == "CWE-409"


def test_a_member_that_inflates_to_more_than_it_says_is_a_bomb():
    raw = zipped({"a": bytes(5000)}, zipfile.ZIP_DEFLATED)
    found = verdict(replaced(raw, struct.pack("<L", 5000), struct.pack("<L", 50), 2))
    assert "scan.archive.bomb" in rules(found)


def test_what_is_too_large_to_look_at_is_held_and_not_passed():
    noise = bytes(range(256)) * 3
    assert verdict(zipped({"a": noise}, zipfile.ZIP_DEFLATED), SMALL).decision is Decision.ALLOW
    members = {str(number): noise for number in range(5)}
    raw = zipped(members, zipfile.ZIP_DEFLATED)
    assert verdict(raw, SMALL).decision is not Decision.ALLOW
    assert verdict(zipped({"a": b""} | {str(n): b"" for n in range(5)}), SMALL).findings


def test_depth_is_held_one_past_the_bound():
    inner = zipped({"notes": b"text"})
    for _ in range(SMALL.depth_max - 1):
        inner = zipped({"inner.zip": inner})
    assert verdict(inner, SMALL).decision is Decision.ALLOW
    assert rules(verdict(zipped({"inner.zip": inner}), SMALL)) >= {"scan.archive.depth"}


def test_a_pickle_deep_inside_is_found_and_named_by_its_path():
    raw = zipped({"a/inner.zip": zipped({"b/model.pkl": ACTING}, zipfile.ZIP_DEFLATED)})
    found = verdict(raw)
    assert found.decision is Decision.DENY
    assert found.findings[0].subject == "bundle.zip!a/inner.zip!b/model.pkl"
    assert found.findings[0].evidence.startswith("calls os.system")


def test_a_member_behind_many_harmless_ones_is_still_read():
    settings = ScanSettings(findings_max=5)
    members = {f"{number:03}.txt": b"text" for number in range(40)} | {"z.pkl": ACTING}
    assert verdict(zipped(members), settings).decision is Decision.DENY


def test_an_archive_at_the_end_of_another_format_is_looked_into():
    raw = pickle.dumps([1]) + zipped({"m.pkl": ACTING})
    found = verdict(raw, name="model.pkl")
    assert found.decision is Decision.DENY
    assert {"scan.format.polyglot", "scan.pickle.dangerous"} <= rules(found)


def test_an_encrypted_member_is_held():
    raw = bytearray(with_entry())
    for magic, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        raw[raw.index(magic) + place] |= 1
    assert rules(verdict(bytes(raw))) == {"scan.archive.sealed"}


def test_a_member_with_another_crc_is_denied():
    crc = struct.pack("<L", zlib.crc32(b"content"))
    raw = with_entry().replace(crc, b"\0\0\0\1")
    assert rules(verdict(raw)) == {"scan.archive.crc"}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_cut_at_any_byte_is_never_allowed(method):
    raw = zipped({"a": b"some content " * 5, "b": b"1"}, method)
    cuts = [cut for cut in range(len(raw)) if verdict(raw[:cut]).decision is Decision.ALLOW]
    assert not cuts


def test_archives_of_every_writer_mode_pass():
    class Pipe(io.RawIOBase):
        """No seeking: sizes go into descriptors behind the members."""

        def __init__(self):
            self.parts = []

        def writable(self):
            return True

        def write(self, part):
            self.parts.append(bytes(part))
            return len(part)

    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        pipe = Pipe()
        with zipfile.ZipFile(pipe, "w", method) as archive:
            archive.writestr("folder/", b"")
            archive.writestr("folder/notes.bin", b"text " * 100)
            with archive.open("large.bin", "w", force_zip64=True) as member:
                member.write(b"text " * 100)
            archive.comment = b"made by tests"
        found = verdict(b"".join(pipe.parts))
        assert found.decision is Decision.ALLOW, found
        assert not rules(found)
