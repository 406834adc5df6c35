"""What opens a connection to a host is cut strictly, whatever comes and in whatever pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.artifact import Schema
from modelkeep.core.errors import IntegrityError
from modelkeep.core.record import replaced, to_json
from modelkeep.workers.host_frames import (
    BEGIN,
    BEGIN_BYTES_MAX,
    MAGIC,
    NAME_BYTES_MAX,
    NOTE_BYTES_MAX,
    REACH,
    Begin,
    HostedFile,
    Note,
    NoteReader,
    OpeningReader,
    note,
    opening,
)
from modelkeep.workers.plan import ReplicaPlan, TextReplicaPlan

TENSOR = ReplicaPlan(
    model="m",
    version=1,
    schema=Schema(inputs=(), outputs=()),
    model_fd=-1,
    listen_fd=-1,
    lifeline_fd=-1,
    batchable=True,
    batch_rows_max=1,
    threads=1,
)
TEXT = TextReplicaPlan(
    model="m",
    version=1,
    files=(),
    listen_fd=-1,
    lifeline_fd=-1,
    threads=1,
    streams_max=1,
    context_max=0,
)
FILE = HostedFile(path="", size_bytes=3, sha256="0" * 64)
BEGUN = Begin(release="1", replica="a1", files=(FILE,), tensor=TENSOR)
names = st.from_regex(r"[a-zA-Z0-9]{1,64}", fullmatch=True)
cuts = st.lists(st.integers(1, 40), max_size=60)


def pieces(raw, sizes):
    for size in sizes:
        yield raw[:size]
        raw = raw[size:]
    yield raw


@given(what=names | st.just(BEGUN), behind=st.binary(max_size=50), sizes=cuts)
def test_an_opening_is_what_it_was_however_it_is_cut(what, behind, sizes):
    reader, found = OpeningReader(), None
    parts = pieces(opening(what) + behind, sizes)
    rest = b""
    for part in parts:
        if found is not None:
            rest += part
        else:
            found = reader.fed(part)
    assert found == what
    assert reader.rest + rest == behind


@given(raw=st.binary(max_size=300))
@pytest.mark.parametrize("before", [b"", MAGIC, MAGIC + BEGIN, MAGIC + REACH])
def test_whatever_a_stranger_sends_is_an_opening_too_little_or_refused(before, raw):
    reader = OpeningReader()
    try:
        found = reader.fed(before + raw)
    except IntegrityError:
        return
    assert found is None or isinstance(found, str | Begin)


@pytest.mark.parametrize(
    ("kind", "size"), [(BEGIN, BEGIN_BYTES_MAX), (REACH, NAME_BYTES_MAX), (b"X", -1)]
)
def test_what_claims_too_much_is_refused_before_it_comes(kind, size):
    head = MAGIC + kind
    if size >= 0:
        assert OpeningReader().fed(head + size.to_bytes(4, "big")) is None
    with pytest.raises(IntegrityError):
        OpeningReader().fed(head + (size + 1).to_bytes(4, "big"))


@pytest.mark.parametrize(
    "changes",
    [
        {"files": ()},
        {"files": (FILE, FILE)},
        {"files": (replaced(FILE, size_bytes=-1),)},
        {"tensor": None},
        {"text": TEXT},
        {"replica": "../a"},
        {"replica": ""},
    ],
    ids=str,
)
def test_a_replica_that_makes_no_sense_is_not_begun(changes):
    body = to_json(replaced(BEGUN, **changes))
    raw = MAGIC + BEGIN + len(body).to_bytes(4, "big") + body
    with pytest.raises(IntegrityError):
        OpeningReader().fed(raw)


def test_a_language_model_may_have_many_files_or_an_empty_one():
    files = (FILE, replaced(FILE, path="config.json", size_bytes=0))
    text = Begin(release="1", replica="a", files=files, text=TEXT)
    assert OpeningReader().fed(opening(text)) == text
    assert text.plan == TEXT


@given(texts=st.lists(st.text(max_size=700), max_size=5), sizes=cuts)
def test_notes_are_what_they_were_however_they_are_cut(texts, sizes):
    reader = NoteReader()
    raw = b"".join(note("ended", each) for each in texts)
    found = [each for part in pieces(raw, sizes) for each in reader.fed(part)]
    assert found == [Note(said="ended", text=each[:512]) for each in texts]


@given(raw=st.binary(max_size=200))
def test_whatever_comes_for_a_note_is_one_or_refused(raw):
    try:
        assert all(isinstance(each, Note) for each in NoteReader().fed(raw))
    except IntegrityError:
        return


def test_a_note_that_claims_too_much_is_refused_before_it_comes():
    with pytest.raises(IntegrityError):
        list(NoteReader().fed((NOTE_BYTES_MAX + 1).to_bytes(4, "big")))
