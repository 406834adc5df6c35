"""Goal: 10,000 random mutations of exported models, and none gives out a byte of what it touched.

Method: a file, the next version of it for the same recipients, and one whose segments are of the
same sizes. Each round changes the file in one way, then takes it in as a stream and reads every
segment alone. A segment whose bytes changed gives nothing; the whole is refused in any case.
"""

from __future__ import annotations

import io
import random
from collections import Counter

import pytest
from portable_files import (
    FILES,
    SENDER,
    WORDS,
    front_bytes,
    manifest_of,
    portable,
    table_of,
)

from modelkeep.core.errors import KeepError
from modelkeep.flows.portable import opened_model
from modelkeep.flows.portable_stream import received
from modelkeep.seal.portable import opened_portable

TRUSTED = [SENDER.public]


def version(number, seed):
    last = FILES["model.bin"][:-1] + bytes([number])
    files = {**FILES, "model.bin": last}
    manifest = manifest_of(files, version=number)
    return portable(files, table=table_of(manifest, files), seed=seed)


GOOD = portable()
OTHERS = [version(4, b"four"), version(2, b"two"), portable(seed=b"again")]
FRONT = front_bytes(GOOD)
PROVEN = opened_portable(io.BytesIO(GOOD).read, keys=[WORDS], signers=TRUSTED)
SEGMENTS = [PROVEN.segment(number) for number in range(len(PROVEN.starts))]
PLACES = [(each.place, each.place + each.stored) for each in SEGMENTS]


def flip(raw, rng):
    at = rng.randrange(len(raw))
    raw[at] ^= 1 << rng.randrange(8)


def flip_segment(raw, rng):
    raw[rng.randrange(FRONT, len(raw))] ^= 1 << rng.randrange(8)


def truncate(raw, rng):
    borders = [0, FRONT, *(end for _, end in PLACES)]
    del raw[rng.choice([rng.randrange(len(raw)), *(at for at in borders if at < len(raw))]) :]


def insert(raw, rng):
    at = rng.randrange(len(raw) + 1)
    raw[at:at] = rng.randbytes(rng.choice([1, 2, 16, 32, 80]))


def remove(raw, rng):
    at = rng.randrange(len(raw))
    del raw[at : at + rng.choice([1, 2, 16, 32, 80])]


def overwrite(raw, rng):
    at = rng.randrange(len(raw))
    raw[at : at + 16] = rng.randbytes(len(raw[at : at + 16]))


def reorder(raw, rng):
    parts = [bytes(raw[start:end]) for start, end in PLACES]
    while parts == [bytes(raw[start:end]) for start, end in PLACES]:
        rng.shuffle(parts)
    raw[FRONT:] = b"".join(parts)


def double(raw, rng):
    start, end = rng.choice(PLACES)
    raw[end:end] = raw[start:end]


def splice(raw, rng):
    other = rng.choice(OTHERS)
    start, end = rng.choice(PLACES)
    shift = front_bytes(other) - FRONT
    raw[start:end] = other[start + shift : end + shift]


def swap_front(raw, rng):
    other = rng.choice(OTHERS)
    raw[:FRONT] = other[: front_bytes(other)]


def swap_part_of_front(raw, rng):
    other = rng.choice(OTHERS)
    start = rng.randrange(60, FRONT - 100)
    end = rng.choice([FRONT, rng.randrange(start + 40, FRONT)])
    raw[start:end] = other[start:end]


MUTATIONS = (
    flip,
    flip_segment,
    truncate,
    insert,
    remove,
    overwrite,
    reorder,
    double,
    splice,
    swap_front,
    swap_part_of_front,
)


def streamed(raw):
    """The plaintext areas that a stream was taken into, and the error."""
    room = []

    def allocate(size_bytes):
        room.append(memoryview(bytearray(size_bytes)))
        return room[-1]

    try:
        received(io.BytesIO(raw).read, keys=[WORDS], trusted=TRUSTED, allocate=allocate)
    except KeepError as error:
        return room, error.code
    return room, ""


def released(raw):
    """Number of a segment -> its plaintext, of those that can be read alone."""

    def read_at(start, target):
        got = raw[start : start + len(target)]
        target[: len(got)] = got
        return len(got)

    given = {}
    try:
        model = opened_model(read_at, len(raw), keys=[WORDS], signers=TRUSTED)
    except KeepError:
        return given
    for number in range(len(model.portable.starts)):
        segment = model.portable.segment(number)
        target = memoryview(bytearray(segment.length))
        try:
            model.segment_into(segment, target)
        except KeepError:
            assert not any(target)
        else:
            given[number] = bytes(target)
    return given


TRUTH = released(GOOD)
ZEROS = 2  # the segment whose plaintext is zeros


def same(raw, number):
    start, end = PLACES[number]
    return raw[:FRONT] == GOOD[:FRONT] and raw[start:end] == GOOD[start:end]


@pytest.mark.verify("portable-mutations")
def test_no_mutation_gives_out_a_byte_of_what_it_touched(count):
    assert len(TRUTH) == len(SEGMENTS)
    rng = random.Random(11)  # noqa: S311 - the same in every run
    found = Counter()
    for number in range(count(1_000, full=10_000)):
        mutation = MUTATIONS[number % len(MUTATIONS)]
        raw = bytearray(GOOD)
        mutation(raw, rng)
        bad = bytes(raw)
        if bad == GOOD or bad in OTHERS:
            continue
        room, code = streamed(bad)
        assert code, f"round {number}: {mutation.__name__} was taken in"
        found[code] += 1
        areas = dict(enumerate(_areas(room)))
        for at, plain in released(bad).items():
            assert plain == TRUTH[at], f"round {number}: {mutation.__name__}"
            assert same(bad, at), f"round {number}: {mutation.__name__}"
        for at, plain in areas.items():
            assert plain == (TRUTH[at] if any(plain) else bytes(len(plain)))
            assert same(bad, at) or not any(plain) or at == ZEROS
    assert {"portable.segment", "portable.cut", "portable.end", "sealed.chunk"} <= set(found)
    assert {"sealed.mac", "sealed.signature", "sealed.commitment"} <= set(found), found


def _areas(room):
    """The plaintext of each segment where the stream was taken into."""
    for file, target in enumerate(room):
        for number in range(PROVEN.firsts[file], PROVEN.firsts[file + 1]):
            segment = SEGMENTS[number]
            yield bytes(target[segment.start : segment.start + segment.length])
