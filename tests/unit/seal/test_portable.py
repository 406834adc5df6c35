"""The portable form: what is read is what was written, and hostile bytes cost what they weigh."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from portable_files import (
    ME,
    SENDER,
    STRANGER,
    WORDS,
    front_of,
    manifest_of,
    numbers,
    portable,
    table_of,
)

from modelkeep.core.artifact import FileEntry
from modelkeep.core.errors import IntegrityError, KeepError, LimitError, UsageError
from modelkeep.core.record import replaced
from modelkeep.kernels.digest import digest_of
from modelkeep.kernels.encoding import Encoding, encoded
from modelkeep.seal import portable as form
from modelkeep.seal.portable import FIRST_LINE, Draft, Part, Table, opened_portable
from modelkeep.seal.portable_outside import outside

GOOD = portable()


def opened(raw, read=None):
    return opened_portable(read or io.BytesIO(raw).read, keys=[WORDS], signers=[SENDER.public])


def written(files):
    """An export of files that are lists of segments."""
    entries = tuple(
        FileEntry(path=f"f{number}", size_bytes=len(raw), digest=digest_of(raw))
        for number, raw in enumerate(map(b"".join, files))
    )
    table = table_of(
        replaced(manifest_of(), files=entries),
        {},
        parts=tuple(Part(segments=len(each)) for each in files),
        folders=(),
        links=(),
    )
    cuts = [each for file in files for each in file]
    draft = Draft(table, count=len(cuts), locks=[WORDS], signer=SENDER, random_bytes=numbers())
    sealed = [
        draft.sealed(number, *encoded(memoryview(each), dtype=""), length=len(each))
        for number, each in enumerate(cuts)
    ]
    front = draft.front(each.row for each in sealed)
    assert len(front) == draft.start
    return front + b"".join(each.raw for each in sealed)


SEGMENT = st.binary(min_size=1, max_size=40) | st.just(bytes(3000))


@given(st.lists(st.lists(SEGMENT, max_size=4), max_size=4), st.data())
def test_any_bytes_of_any_file_are_found_where_they_lie(files, data):
    raw = written(files)
    model = opened(raw)
    assert model.size_bytes == len(raw)
    for number, plain in enumerate(map(b"".join, files)):
        start = data.draw(st.integers(0, len(plain)))
        length = data.draw(st.integers(0, len(plain) - start))
        given_out, first = b"", 0
        for at in model.numbers(number, start, length):
            each = model.segment(at)
            first = first if given_out else each.start
            target = memoryview(bytearray(each.length))
            model.open_into(each, memoryview(raw)[each.place : each.place + each.stored], target)
            given_out += bytes(target)
        assert given_out[start - first : start - first + length] == plain[start : start + length]
        assert not given_out or first <= start < start + length <= first + len(given_out)


@given(st.binary(max_size=300), st.integers(0, 2**32 - 1))
def test_no_bytes_are_anything_but_an_export_or_an_error_of_ours(raw, length):
    for bad in (raw, FIRST_LINE + raw, FIRST_LINE + length.to_bytes(4, "big") + raw):
        for look in (opened, lambda each: outside(io.BytesIO(each).read)):
            with pytest.raises(KeepError):
                look(bad)


@given(st.binary(max_size=300))
def test_no_table_that_a_sender_signs_is_anything_but_a_table_or_an_error_of_ours(body):
    lead = b"modelkeep model table v1\n" + bytes(32) + len(body).to_bytes(4, "big")
    plain = (lead + body).ljust(form._padded(len(lead + body)), b"\0")
    for bad in (body, plain):
        with pytest.raises(IntegrityError):
            opened(front_of(bad))


COUNT = st.integers(-3, 9) | st.integers(0, 2**64 - 1)


@given(
    st.lists(COUNT, max_size=4),
    st.lists(st.tuples(st.integers(0, 255), COUNT, COUNT), max_size=6),
    st.lists(COUNT, max_size=4),
)
def test_no_segments_that_a_sender_claims_cost_more_than_their_rows(counts, rows, sizes):
    """Numbers of any size, of which few add up."""
    entries = tuple(
        FileEntry(path=f"f{number}", size_bytes=size, digest=digest_of(b""))
        for number, size in enumerate(sizes)
    )
    table = Table(
        envelope=table_of(manifest_of()).envelope,
        parts=tuple(Part(segments=each) for each in counts),
        segments=b"".join(
            form._ROW.pack(encoding, length % 2**32, stored % 2**32, bytes(32))
            for encoding, length, stored in rows
        ),
    )
    try:
        firsts, starts, places = form._laid_out(table, replaced(manifest_of(), files=entries), 100)
    except IntegrityError:
        assert rows or counts or sizes
    else:
        assert len(places) == len(starts) + 1 == len(rows) + 1
        assert firsts[-1] == len(rows)


def test_a_length_that_is_claimed_is_not_asked_for():
    asked = []

    def read(size_bytes):
        asked.append(size_bytes)
        return source.read(size_bytes)

    source = io.BytesIO(FIRST_LINE + (200 * 2**20).to_bytes(4, "big") + GOOD[len(FIRST_LINE) + 4 :])
    with pytest.raises(KeepError):
        opened(b"", read)
    assert max(asked) < 2**20


@given(st.integers(57, 2**28))
def test_padding_costs_an_eighth_at_most_and_leaves_few_sizes(size_bytes):
    padded = form._padded(size_bytes)
    assert size_bytes <= padded <= size_bytes + size_bytes // 8
    assert form._padded(padded) == padded
    assert f"{padded:b}".rstrip("0").count("") <= 7


def test_what_a_table_holds_cannot_be_counted_to_the_row():
    def front(count):
        return len(written([[b"x"] * count])) - 17 * count

    assert len({front(count) for count in range(20, 40)}) < 16


@pytest.mark.parametrize(
    ("encoding", "payload", "length"),
    [(Encoding.XOR, b"x", 9), (Encoding.RAW, b"", 0), (Encoding.ZSTD, b"123", 2)],
)
def test_what_no_reader_would_take_is_not_written(encoding, payload, length):
    table = table_of(manifest_of())
    draft = Draft(table, count=1, locks=[WORDS], signer=SENDER, random_bytes=numbers())
    with pytest.raises(AssertionError):
        draft.sealed(0, encoding, payload, length=length)


def test_a_list_that_no_reader_would_take_is_refused_before_a_segment_is_sealed(monkeypatch):
    monkeypatch.setattr(form, "FRONT_BYTES_MAX", 1000)
    with pytest.raises(LimitError, match="too long"):
        portable()


def test_somebody_must_be_able_to_open_it():
    with pytest.raises(UsageError, match="recipients"):
        portable(locks=[])


def test_segments_are_under_another_key_where_random_numbers_came_twice():
    """A machine that was cloned while it exported: same entropy, another model."""
    files = {"model.bin": b"one secret thing"}, {"model.bin": b"another! thing.."}
    first, second = (written([[each["model.bin"]]])[-32:-16] for each in files)
    one, two = (each["model.bin"] for each in files)
    assert bytes(a ^ b for a, b in zip(first, second, strict=True)) != bytes(
        a ^ b for a, b in zip(one, two, strict=True)
    )


@pytest.mark.parametrize("number", [1, 2])
def test_what_is_refused_leaves_zeros(number):
    model = opened(GOOD)
    segment = model.segment(number)
    sealed = bytearray(GOOD[segment.place : segment.place + segment.stored])
    sealed[3] ^= 1
    target = memoryview(bytearray(b"\xff" * segment.length))
    with pytest.raises(IntegrityError, match="not what its sender signed"):
        model.open_into(segment, memoryview(sealed), target)
    assert not any(target)


def test_what_anybody_sees_is_the_sender_and_how_many_can_open_it():
    seen = outside(io.BytesIO(portable(locks=[ME.recipient, WORDS])).read)
    assert (seen.sender, seen.recipients, seen.rsa, seen.passphrase) == (
        SENDER.public,
        1,
        0,
        True,
    )
    for word in (b"digits", b"model.bin", b"first", b"sub", b"words.txt"):
        assert word not in GOOD


def test_nobody_can_claim_to_have_sent_what_another_sent():
    """The sender's key is under the header's MAC, which takes the file's key."""
    raw = GOOD.replace(SENDER.public, STRANGER.public)
    with pytest.raises(IntegrityError) as caught:
        opened_portable(io.BytesIO(raw).read, keys=[WORDS], signers=[STRANGER.public])
    assert caught.value.code == "sealed.mac"
