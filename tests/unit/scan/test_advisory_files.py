"""Unit tests of scan.advisory_files: every form of an export reads alike, nothing hostile does."""

import io
import json
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from osv_records import NOW_NS, archive, ranged, record

from modelkeep.core.errors import IntegrityError
from modelkeep.scan import advisory_files
from modelkeep.scan.advisory_files import Known, read_export

ALL = ranged(("introduced", "0"))
RECORDS = (
    record("tornado", ALL, id="GHSA-1", modified="2027-01-10T00:00:00Z"),
    record("numpy", ALL, id="GHSA-2", modified="2027-01-12T00:00:00+00:00"),
    record("left-pad", ALL, id="GHSA-3", ecosystem="npm"),
    record("tornado", ALL, id="GHSA-4", withdrawn="2026-01-01T00:00:00Z"),
    record("pandas", ALL, id="GHSA-5", modified="2999-01-01T00:00:00Z"),
)
NEWEST_NS = 1_799_712_000 * 10**9


def lines(records):
    return "\n".join(map(json.dumps, records)).encode() + b"\n"


FORMS = {
    "archive": archive(*RECORDS),
    "stored": archive(*RECORDS, compression=zipfile.ZIP_STORED),
    "list": json.dumps(list(RECORDS), indent=1).encode(),
    "lines": lines(RECORDS),
}


def read(raw, names=("tornado",)):
    known = Known(set(names), NOW_NS)
    read_export(known, memoryview(raw))
    return known


@pytest.mark.parametrize("raw", FORMS.values(), ids=FORMS)
def test_every_form_says_the_same(raw):
    known = read(raw)
    assert (known.count, known.records, known.newest_ns) == (3, 5, NEWEST_NS)
    assert [each.id for each in known.advisories["tornado"]] == ["GHSA-1"]
    assert set(known.advisories) == {"tornado"}


def test_one_record_may_stand_alone_and_several_files_add_up():
    known = Known({"tornado", "numpy"}, NOW_NS)
    for each in RECORDS:
        read_export(known, memoryview(json.dumps(each, indent=2).encode()))
    assert (known.count, known.newest_ns) == (3, NEWEST_NS)
    assert sorted(known.advisories) == ["numpy", "tornado"]


def ended(raw):
    """Which of our errors a reading ends in, empty for none; any other one fails the test."""
    try:
        read(raw)
    except IntegrityError as error:
        return error.code.partition(".")[0]
    return ""


def refused(raw):
    with pytest.raises(IntegrityError) as error:
        read(raw)
    assert error.value.code.startswith("advisories.")
    return error.value.code


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"{}",
        b"[1]",
        b'{"id": "x"}',
        b"[" * 100_000,
        json.dumps(record(modified="yesterday")).encode(),
        json.dumps(record(modified="2027-01-01T00:00:00")).encode(),
        json.dumps({**record(), "schema_version": "2.0.0"}).encode(),
        json.dumps({**record(), "affected": {}}).encode(),
        lines(RECORDS) + b"{broken}\n",
        lines(RECORDS)[:-20],
    ],
)
def test_a_record_that_is_none_is_an_error_and_not_a_record_less(raw):
    assert refused(raw) == "advisories.record"


def test_a_broken_record_in_an_archive_is_an_error():
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as made:
        made.writestr("GHSA-1.json", json.dumps(RECORDS[0]))
        made.writestr("GHSA-2.json", '{"id": "GHSA-2"')
        made.writestr("README", "no record")
    assert refused(raw.getvalue()) == "advisories.record"


def test_an_archive_that_is_cut_or_changed_is_refused():
    raw = FORMS["archive"]
    for end in range(2, len(raw), 97):
        assert refused(raw[:end]) == "advisories.archive"
    stored = FORMS["stored"]
    at = stored.index(b"GHSA-1", 60)
    assert refused(stored[:at] + b"H" + stored[at + 1 :]) == "advisories.archive"


def test_bounds_hold_at_the_bound_and_one_past_it(monkeypatch):
    size = max(len(json.dumps(each)) for each in RECORDS)
    monkeypatch.setattr(advisory_files, "RECORD_BYTES_MAX", size)
    assert read(FORMS["archive"]).records == 5
    monkeypatch.setattr(advisory_files, "RECORD_BYTES_MAX", size - 1)
    assert refused(FORMS["archive"]) == "advisories.archive"
    assert refused(FORMS["lines"]) == "advisories.record"
    monkeypatch.undo()
    monkeypatch.setattr(advisory_files, "RECORDS_MAX", 5)
    assert read(FORMS["lines"]).records == 5
    monkeypatch.setattr(advisory_files, "RECORDS_MAX", 4)
    assert refused(FORMS["archive"]) == "advisories.many"
    monkeypatch.undo()
    whole = sum(len(json.dumps(each)) for each in RECORDS)
    monkeypatch.setattr(advisory_files, "_EXPANDED_BYTES_MAX", whole)
    assert read(FORMS["archive"]).records == 5
    monkeypatch.setattr(advisory_files, "_EXPANDED_BYTES_MAX", whole - 1)
    assert refused(FORMS["archive"]) == "advisories.archive"
    monkeypatch.setattr(advisory_files, "EXPORT_BYTES_MAX", len(FORMS["archive"]) - 1)
    assert refused(FORMS["archive"]) == "advisories.many"


def test_a_bomb_is_not_unpacked(monkeypatch):
    monkeypatch.setattr(advisory_files, "RECORD_BYTES_MAX", 1 << 16)
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("GHSA-1.json", b" " * (1 << 24))
    assert refused(raw.getvalue()) == "advisories.archive"


@pytest.mark.verify("fuzz")
@given(
    st.sampled_from(list(FORMS.values())),
    st.lists(st.tuples(st.floats(0, 0.999), st.binary(min_size=1, max_size=4)), max_size=4),
)
def test_changed_bytes_give_an_answer_or_our_error(raw, changes):
    mutated = bytearray(raw)
    for place, new in changes:
        at = int(place * len(mutated))
        mutated[at : at + len(new)] = new
    assert ended(bytes(mutated)) in ("", "advisories")


@pytest.mark.verify("fuzz")
@given(st.binary(max_size=200), st.sampled_from([b"", b"PK\x03\x04", b"[", b"{", b'[{"id":']))
def test_any_bytes_are_an_error_or_no_record(raw, start):
    assert ended(start + raw) in ("", "advisories")
