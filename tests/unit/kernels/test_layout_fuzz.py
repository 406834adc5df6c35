"""Fuzz of every layout: whatever is done to a valid file, only our errors, little time and memory.

Each file of `tests/vectors/layouts` is edited at random: bytes flipped, numbers replaced by those
that break readers, pieces cut out, doubled, moved or taken from another file. What a layout still
accepts must hold: places in order, none over another, all inside the file, shapes that fit.
"""

import functools
import json
import random
import time
import tracemalloc
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import NUMBERS

from modelkeep.core.errors import IntegrityError
from modelkeep.kernels.opcodes import OPCODES
from modelkeep.kernels.tensors import identify, places_of, tensor_places
from modelkeep.kernels.torchpickle import NAME_CHARS_MAX, named_tensors
from modelkeep.kernels.torchvalues import Storage, Tensor
from modelkeep.kernels.zips import members_of

VECTORS = Path(__file__).parents[2] / "vectors" / "layouts"
FILES = sorted(
    name
    for name, each in json.loads((VECTORS / "expected.json").read_text()).items()
    if each["kind"] != "unknown"
)
KINDS = ("torch-zip", "zip", "gguf", "npy", "safetensors", "onnx")
BITS = {
    **dict.fromkeys(("BOOL", "INT8", "UINT8"), 8),
    **dict.fromkeys(("INT16", "UINT16", "FP16", "BF16"), 16),
    **dict.fromkeys(("INT32", "UINT32", "FP32"), 32),
    **dict.fromkeys(("INT64", "UINT64", "FP64"), 64),
}
# Files have under 10 kB: the worst of 25,000 edits took 27 ms and 75 kB.
SECONDS_MAX = 0.5
MEMORY_BYTES_MAX = 1024 * 1024


@functools.cache
def content(name):
    return (VECTORS / name).read_bytes()


def edited(raw, edits):
    """The bytes after some edits, each (what, where, how long, value)."""
    for what, where, length, value in edits:
        at = where % (len(raw) + 1)
        stop = at + length
        if what == "flip" and raw:
            at %= len(raw)
            raw = raw[:at] + bytes([raw[at] ^ (1 << value % 8)]) + raw[at + 1 :]
        elif what == "number":
            size = (1, 2, 4, 8)[length % 4]
            number = NUMBERS[value % len(NUMBERS)] & ((1 << 8 * size) - 1)
            raw = raw[:at] + number.to_bytes(size, "little") + raw[at + size :]
        elif what == "cut":
            raw = raw[:at] + raw[stop:]
        elif what == "end":
            raw = raw[:at]
        elif what == "double":
            raw = raw[:stop] + raw[at:stop] * (1 + value % 4) + raw[stop:]
        elif what == "move":
            piece, rest = raw[at:stop], raw[:at] + raw[stop:]
            to = value % (len(rest) + 1)
            raw = rest[:to] + piece + rest[to:]
        elif what == "foreign":
            other = content(FILES[value % len(FILES)])
            raw = raw[:at] + other[where % len(other) :][:length] + raw[stop:]
    return raw


WHAT = ("flip", "number", "cut", "end", "double", "move", "foreign")
EDITS = st.lists(
    st.tuples(
        st.sampled_from(WHAT),
        st.integers(0, 1 << 14),
        st.integers(0, 200),
        st.integers(0, 1 << 14),
    ),
    min_size=1,
    max_size=6,
)


def demand_sound(places, size_bytes):
    for before, after in pairwise(places):
        assert before.offset + before.length <= after.offset
    for place in places:
        assert place.offset >= 0
        assert 0 <= place.length <= size_bytes - place.offset
        items = 1
        for size in place.shape:
            assert size >= 0
            items *= size
        if place.dtype in BITS:
            assert items * BITS[place.dtype] == 8 * place.length
        else:
            assert place.dtype == "RAW"
        place.name.encode()


def look(raw, kind):
    try:
        demand_sound(tensor_places("x", memoryview(raw), kind), len(raw))
    except IntegrityError:
        return False
    return True


def look_every_way(raw, kind):
    """As the kind that the file was, and as what it now says it is."""
    started = time.process_time()
    accepted = look(raw, kind)
    look(raw, identify(memoryview(raw)))
    assert time.process_time() - started < SECONDS_MAX
    return accepted


@pytest.mark.verify("fuzz")
@pytest.mark.parametrize("name", FILES)
@given(edits=EDITS)
def test_no_edit_of_a_file_makes_a_layout_fail_otherwise(name, edits):
    raw = content(name)
    look_every_way(edited(raw, edits), identify(memoryview(raw)))


@pytest.mark.verify("fuzz")
@pytest.mark.parametrize("kind", KINDS)
@given(raw=st.binary(max_size=400))
def test_noise_makes_no_layout_fail_otherwise(kind, raw):
    begins = {"gguf": b"GGUF\x03\0\0\0", "npy": b"\x93NUMPY\x01\0"}.get(kind, b"")
    for each in (raw, begins + raw):
        look_every_way(each, kind)


@pytest.mark.verify("fuzz")
@pytest.mark.parametrize("name", FILES)
def test_edits_by_the_thousand_stay_within_time_and_memory(name, count):
    seed = time.time_ns()
    rng = random.Random(seed)  # noqa: S311 - it chooses what to damage, no key
    raw = content(name)
    kind = identify(memoryview(raw))
    assert look_every_way(raw, kind)
    tracemalloc.start()
    try:
        for _ in range(count(100, full=1_000)):
            edits = [
                (
                    rng.choice(WHAT),
                    rng.randrange(1 << 14),
                    rng.randrange(64),
                    rng.randrange(1 << 14),
                )
                for _ in range(rng.randint(1, 3))
            ]
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            try:
                look_every_way(edited(raw, edits), kind)
            except Exception as error:
                raise AssertionError(f"seed {seed}, {name}, edits {edits}") from error
            assert tracemalloc.get_traced_memory()[1] - before < MEMORY_BYTES_MAX, (seed, edits)
    finally:
        tracemalloc.stop()


@functools.cache
def pickle_in(name):
    raw = content(name)
    member = next(each for each in members_of(memoryview(raw)) if each.name.endswith("/data.pkl"))
    return raw[member.offset : member.offset + member.length]


OPCODE = st.sampled_from(sorted(OPCODES)).map(lambda code: bytes([code]))
ARGUMENT = st.sampled_from(
    (b"", b"\0", b"\1", b"\2\0\0\0", b"0\n", b"torch\nFloatStorage\n", b"\7\0\0\0storage")
)
PROGRAM = st.lists(st.builds(bytes.__add__, OPCODE, ARGUMENT), max_size=40).map(b"".join)


@pytest.mark.verify("fuzz")
@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".pt")])
@given(edits=EDITS, program=PROGRAM, at=st.integers(0, 1 << 14))
def test_no_pickle_makes_the_walk_fail_otherwise(name, edits, program, at):
    whole = pickle_in(name)
    at %= len(whole)
    for raw in (edited(whole, edits), program + b".", whole[:at] + program + whole[at:]):
        started = time.process_time()
        try:
            for way, value in named_tensors(memoryview(raw)):
                assert len(way) <= NAME_CHARS_MAX
                assert isinstance(value, Storage | Tensor)
        except IntegrityError:
            pass
        assert time.process_time() - started < SECONDS_MAX


@pytest.mark.verify("fuzz")
@given(edits=EDITS, also=EDITS)
def test_no_edit_of_a_folder_makes_it_fail(edits, also):
    files = {
        "external/model.onnx": memoryview(edited(content("external/model.onnx"), edits)),
        "external/weights.bin": memoryview(edited(content("external/weights.bin"), also[:1])),
    }
    found = places_of(files, {"external/model.onnx": "onnx", "external/weights.bin": "unknown"})
    for path, places in found.items():
        demand_sound(places, len(files[path]))
