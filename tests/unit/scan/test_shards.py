"""Checkpoints of torch.distributed: archives end to end, and the pickle that names slices."""

import io
import struct
import zipfile

import pytest
from attack_pickles import asked, called, text
from hypothesis import given
from hypothesis import strategies as st
from torch_files import Kept, View, zip_file

from modelkeep.core.verdict import Decision, Severity, judged
from modelkeep.scan.evidence import found
from modelkeep.scan.rules import findings_of
from modelkeep.scan.settings import ScanSettings
from modelkeep.scan.shards import settled
from modelkeep.sdk.scanning import scanned_paths

SETTINGS = ScanSettings()
DCP = "torch.distributed.checkpoint"
SHARD = "__0_0.distcp"


def item(count):
    storage = Kept("0", "FloatStorage", bytes(4 * count))
    return zip_file([View("w", "0", (count,), (1,))], [storage])


def evil_item():
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R.")
        archive.writestr("archive/version", "3\n")
    return into.getvalue()


EVIL = evil_item()
ITEMS = [item(3), item(8), item(1)]


def slices(*places, path=SHARD, owner=(f"{DCP}.filesystem", "_StorageInfo"), end=b"ub"):
    entries = b"".join(
        called(*owner, by=b"\x81") + b"}(" + text("relative_path") + text(path)
        + text("offset") + b"J" + struct.pack("<i", start)
        + text("length") + b"J" + struct.pack("<i", length) + end
        for start, length in places
    )  # fmt: skip
    metadata = called(f"{DCP}.metadata", "Metadata", by=b"\x81")
    return b"\x80\x04" + metadata + b"}" + text("storage_data") + b"](" + entries + b"esb."


def places_of(items):
    return [(sum(map(len, items[:index])), len(each)) for index, each in enumerate(items)]


def scan(name, raw):
    return findings_of(name, raw, SETTINGS)


def decision(*findings):
    return judged(findings).decision


def together(metadata, shard, folder=""):
    found = (*scan(f"{folder}.metadata", metadata), *scan(f"{folder}{SHARD}", shard))
    return decision(*settled(found))


@pytest.mark.parametrize("folder", ["", "step-100/"])
def test_a_checkpoint_of_whole_archives_is_allowed(folder):
    assert together(slices(*places_of(ITEMS)), b"".join(ITEMS), folder) is Decision.ALLOW
    assert together(slices(*places_of(ITEMS[:1])), ITEMS[0], folder) is Decision.ALLOW


@pytest.mark.parametrize("index", range(4))
def test_every_archive_of_a_shard_is_judged(index):
    items = [*ITEMS[:index], EVIL, *ITEMS[index:]]
    assert decision(*scan(SHARD, b"".join(items))) is Decision.DENY
    assert together(slices(*places_of(items)), b"".join(items)) is Decision.DENY


def test_bytes_between_archives_are_hidden_and_a_cut_shard_is_broken():
    for hidden in (b"x", EVIL[:-30], b"cos\nsystem\n(S'id'\ntR."):
        for index in range(1, 4):
            raw = b"".join([*ITEMS[:index], hidden, *ITEMS[index:]])
            assert decision(*scan(SHARD, raw)) is not Decision.ALLOW
    assert decision(*scan(SHARD, b"".join(ITEMS)[:-9])) is Decision.DENY


def test_under_another_name_archives_end_to_end_hide_something():
    assert decision(*scan("model.pt", b"".join(ITEMS))) is Decision.DENY


def test_slices_that_are_not_the_archives_are_held():
    raw, right = b"".join(ITEMS), places_of(ITEMS)
    assert decision(*scan(".metadata", slices(*right))) is Decision.HOLD  # nothing vouches for them
    for wrong in (right[:2], [*right, (40, 20)], [(start + 1, size) for start, size in right]):
        assert together(slices(*wrong), raw) is Decision.HOLD
    elsewhere = (*scan("a/.metadata", slices(*right)), *scan(f"b/{SHARD}", raw))
    assert decision(*settled(elsewhere)) is Decision.HOLD


@pytest.mark.parametrize("path", ["../x.distcp", "/var/x.distcp", "x.bin", "a/b.distcp", "", "."])
def test_a_slice_of_another_file_is_denied(path):
    assert together(slices((0, 9), path=path), b"".join(ITEMS)) is Decision.DENY


def test_an_entry_that_only_looks_like_one_is_not_allowed():
    right = places_of(ITEMS)
    fake = slices(*right, owner=("argparse", "Namespace"))
    assert together(fake, b"".join(ITEMS)) is Decision.HOLD
    twice = slices(*right, end=b"ub}" + text("offset") + b"K\x07sb")
    assert together(twice, b"".join(ITEMS)) is Decision.DENY
    made = b"J\x00\x00\x00\x00" + called("builtins", "str", text("offset")) + b"K\x07"
    hidden = slices((0, 5)).replace(b"J\x00\x00\x00\x00", made)
    assert together(hidden, b"".join(ITEMS)) is Decision.DENY


def test_old_protocols_are_looked_into_too():
    raw = slices(*places_of(ITEMS)).replace(b"\x80\x04", b"")
    assert decision(*scan(".metadata", raw)) is not Decision.ALLOW


@given(st.binary(max_size=200), st.integers(0, 2000), st.integers(0, 40))
def test_no_bytes_break_the_judges(junk, at, size):
    raw = b"".join(ITEMS)
    at %= len(raw)
    for name in (SHARD, ".metadata"):
        scan(name, junk)
        scan(name, raw[:at] + junk + raw[at + size :])
    whole = slices(*places_of(ITEMS))
    scan(".metadata", whole[: at % len(whole)] + junk)


def test_metadata_without_slices_is_data():
    metadata = called(f"{DCP}.metadata", "Metadata", by=b"\x81")
    size = asked("torch", "Size") + b"K\x04\x85\x85R"
    raw = b"\x80\x04" + metadata + b"}" + text("size") + size + b"sb."
    assert decision(*scan(".metadata", raw)) is Decision.ALLOW


def decisions(folder, items, places):
    folder.mkdir()
    (folder / ".metadata").write_bytes(slices(*places))
    (folder / SHARD).write_bytes(b"".join(items))
    (folder / "notes.txt").write_text("of 100 steps")
    return {each.name: each.verdict.decision for each in scanned_paths([folder], SETTINGS)}


def test_files_of_a_checkpoint_are_judged_by_each_other(tmp_path):
    good = decisions(tmp_path / "good", ITEMS, places_of(ITEMS))
    assert set(good.values()) == {Decision.ALLOW}
    assert len(good) == 3
    shifted = decisions(tmp_path / "shifted", ITEMS, [(9, 40)])
    assert shifted[".metadata"] is Decision.HOLD
    evil = [*ITEMS, EVIL]
    assert decisions(tmp_path / "evil", evil, places_of(evil))[SHARD] is Decision.DENY


LONG = "x" * 400


@pytest.mark.parametrize(
    ("where", "shard", "answers"),
    [
        ("", "__0_0.distcp", True),
        ("a/", "a/__0_0.distcp", True),
        ("", "notes.zip!__0_0.distcp", False),
        ("a/", "b/__0_0.distcp", False),
        (f"{LONG}/a/", f"{LONG}/b/__0_0.distcp", False),
    ],
)
def test_only_a_whole_file_under_its_whole_name_answers_for_a_checkpoint(where, shard, answers):
    """A member of an archive is opened by nobody, and of a long name the end is missing."""
    mark = f"(mark {'ab' * 16})"
    slices = f"'{SHARD}' is unpickled in 1 slices, not found to be its archives {mark}"
    asks = found("scan.shard.slices", Severity.MEDIUM, f"{where}.metadata", slices)
    items = found("scan.shard.items", Severity.NOTE, shard, f"'{SHARD}' holds 1 items {mark}")
    assert (asks not in settled([asks, items])) is answers
