"""A small mutator: valid files edited in the ways that break readers, replayable by a number."""

import random

NUMBERS = (
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    1 << 31,
    (1 << 32) - 1,
    1 << 63,
    (1 << 64) - 1,
)
EDITS_MAX = 6
LENGTH_MAX = 200


def mutated(seeds, number):
    """The file of this number: one of the seeds, edited once to six times."""
    choose = random.Random(number)  # noqa: S311 - a test's, replayed by its number
    raw = bytearray(choose.choice(seeds))
    for _ in range(choose.randint(1, EDITS_MAX)):
        edit = choose.choice(_EDITS)
        at = choose.randrange(len(raw) + 1)
        raw = edit(choose, raw, at, choose.choice(seeds))[: 1 << 20]
    return bytes(raw)


def _flip(choose, raw, at, _):
    if raw:
        raw[at % len(raw)] ^= 1 << choose.randrange(8)
    return raw


def _number(choose, raw, at, _):
    size, order = choose.choice((1, 2, 4, 8)), choose.choice(("little", "big"))
    value = choose.choice(NUMBERS) & ((1 << 8 * size) - 1)
    raw[at : at + size] = value.to_bytes(size, order)
    return raw


def _cut(choose, raw, at, _):
    del raw[at : at + choose.randrange(LENGTH_MAX)]
    return raw


def _end(_choose, raw, at, _):
    return raw[:at]


def _double(choose, raw, at, _):
    raw[at:at] = raw[at : at + choose.randrange(LENGTH_MAX)] * choose.choice((1, 2, 50))
    return raw


def _foreign(choose, raw, at, other):
    start = choose.randrange(len(other) + 1)
    raw[at:at] = other[start : start + choose.randrange(LENGTH_MAX)]
    return raw


def _noise(choose, raw, at, _):
    length = choose.randrange(32)
    raw[at : at + length] = choose.randbytes(length)
    return raw


_EDITS = (_flip, _flip, _number, _number, _cut, _end, _double, _foreign, _noise)
