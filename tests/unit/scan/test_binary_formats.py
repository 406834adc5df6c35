"""Unit tests of the parsers of packed data: MessagePack, UBJSON, MAT, HDF5's sizes, zip methods."""

import bz2
import io
import json
import lzma
import pickle
import struct
import time
import tracemalloc
import zipfile

import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from model_files import attribute, gguf, hdf5
from packed_files import (
    data_set,
    element,
    hdf5_beside,
    matlab,
    matrix,
    packed,
    ubjson,
    zip_member,
)

from modelkeep.core.errors import IntegrityError
from modelkeep.core.verdict import Decision, judged
from modelkeep.kernels.msgpack_walk import msgpack_spans
from modelkeep.kernels.ubjson import ubjson_end
from modelkeep.scan.rules import findings_of
from modelkeep.scan.settings import ScanSettings

SETTINGS = ScanSettings()
ACTS = b"\x80\x04\x95\x15\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x85R."
OLD = b"cposix\nsystem\n(S'id'\ntR."
PLAIN = pickle.dumps({"a": [1, 2.5]})
PACK = msgspec.msgpack.encode
MODEL = {"learner": {"trees": [{"left": b"\0\1", "value": 0.5}], "name": "gbtree"}, "version": [3]}
LAYER = {"class_name": "Lambda", "config": {"function": ["4wEAAAAAAAAA", None, None]}}
LAMBDA = json.dumps({"class_name": "Sequential", "config": {"layers": [LAYER]}}).encode()
DENSE = json.dumps({"class_name": "Dense", "config": {"units": 3, "note": "x" * 70_000}}).encode()
CONSTANT = (
    '<?xml version="1.0"?>\n<net name="m" version="11"><layers><layer id="0" type="Const">'
    '<data element_type="f32" shape="{}" offset="{}" size="{}"/></layer></layers></net>'
)
FLAX = {"kernel": msgspec.msgpack.Ext(1, PACK([[2], "float32", bytes(8)])), "n": list(range(99))}


def objects(data):
    return {b"w": {b"nd": True, b"type": b"O", b"kind": b"O", b"shape": [1], b"data": data}}


def big_endian(raw):
    """The same GGUF file without pairs or tensors, its numbers the other way round."""
    magic, *numbers = struct.unpack("<4sL2Q", raw[:24])
    return struct.pack(">4sL2Q", magic, *numbers) + raw[24:]


def big_endian_text(key, text):
    head = struct.pack(">4sL2Q", b"GGUF", 3, 0, 1)
    pair = struct.pack(">Q", len(key)) + key + struct.pack(">LQ", 8, len(text)) + text
    return head + pair


def zipped(content, method):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        archive.writestr("part", content)
    return target.getvalue()


def without_end(raw):
    """A zip member by LZMA whose stream has no mark of its end."""
    filters = [{"id": lzma.FILTER_LZMA1, "dict_size": 1 << 16}]
    alone = lzma.compress(raw, lzma.FORMAT_ALONE, filters=filters)
    return b"\x09\x04\x05\x00" + alone[:5] + alone[13:-6]


DENIED = {
    "msgpack objects": ("m.msgpack", PACK(objects(ACTS))),
    "msgpack objects of an old pickle": ("m.msgpack", PACK(objects(OLD))),
    "msgpack objects, named otherwise": ("weights.bin", PACK(objects(ACTS))),
    "msgpack objects without a kind first": ("m.msgpack", PACK({"data": ACTS, "kind": "O"})),
    "msgpack ext": ("m.msgpack", PACK({"k": msgspec.msgpack.Ext(1, ACTS)})),
    "msgpack bytes": ("m.msgpack", PACK([1, {"k": [OLD]}])),
    "msgpack base64": ("m.msgpack", PACK({"k": msgspec.json.encode(ACTS)[1:-1].decode()})),
    "msgpack zip": ("m.msgpack", PACK([zipped(ACTS, 8)])),
    "msgpack stream": ("m.msgpack", PACK(1) + PACK(objects(ACTS))),
    "msgpack deep": ("m.msgpack", b"\x81\xa1a" + b"\x91" * 200_000 + b"\xc0"),
    "msgpack cut": ("m.msgpack", PACK(FLAX)[:-1]),
    "msgpack claim": ("m.msgpack", b"\xdf\xff\xff\xff\xff\x01"),
    "ubjson deep": ("m.ubj", b"{L" + struct.pack(">q", 1) + b"a" + b"[" * 500_000),
    "ubjson deep, named otherwise": ("m.bin", b"{L" + struct.pack(">q", 1) + b"a" + b"[" * 99),
    "ubjson cut": ("m.ubj", ubjson(MODEL)[:-1]),
    "ubjson claim": ("m.ubj", b"[$Z#L" + struct.pack(">q", 1 << 60)),
    "ubjson kind": ("m.ubj", b"{U\x01a?}"),
    "ubjson and no such thing": ("m.ubj", b"\x01\x02\x03\x04"),
    "hdf5 unwritten": ("m.h5", hdf5(*data_set((1 << 16, 1 << 17), 4))),
    "hdf5 shared bytes": (
        "m.h5", hdf5(*data_set((1 << 12, 4), 4, address=bytes(8), chunked=False))
    ),
    "hdf5 large attribute": ("m.h5", hdf5_beside("model_config", LAMBDA)),
    "zip bzip2": ("m.zip", zipped(ACTS, zipfile.ZIP_BZIP2)),
    "zip lzma": ("m.zip", zipped(ACTS, zipfile.ZIP_LZMA)),
    "zip lzma without an end": (
        "m.zip", zip_member("a", without_end(ACTS), method=14, plain=ACTS)
    ),
    "zip zstd": (
        "m.zip", zip_member("a", zstandard.compress(ACTS), method=93, plain=ACTS)
    ),
    "zip xz": ("m.zip", zip_member("a", lzma.compress(ACTS), method=95, plain=ACTS)),
    "zip lzma, broken": (
        "m.zip", zip_member("a", b"\x09\x04\x05\x00broken", method=14, plain=b"a")
    ),
    "zip bzip2, other size": (
        "m.zip", zip_member("a", bz2.compress(b"abc"), method=12, plain=b"a")
    ),
    "zip lzma, more behind": (
        "m.zip", zip_member("a", without_end(PLAIN) + ACTS, method=14, plain=PLAIN)
    ),
    "gguf big-endian": (
        "m.gguf", big_endian_text(b"tokenizer.chat_template", b"{{ x.__globals__ }}")
    ),
    "arrow metadata": ("m.feather", b"ARROW1\0\0" + bytes(90) + ACTS + bytes(30) + b"ARROW1"),
    "text with a tail": ("model.txt", b"tree\nversion=v4\nnum_class=1\n" + ACTS),
    "openvino far": ("m.xml", CONSTANT.format("4", 1 << 50, 1 << 60).encode()),
    "openvino short": ("m.xml", CONSTANT.format("4,1024", 0, 16).encode()),
    "openvino negative": ("m.xml", CONSTANT.format("4", -8, 16).encode()),
}  # fmt: skip
HELD = {
    "msgpack trailing name": ("m.msgpack", PACK({"k": b"\x80\x02cmystery\nthing\n)R."})),
    "ubjson trailing": ("m.ubj", ubjson(MODEL) + b"more"),
    "matlab function": ("m.mat", matlab(matrix(16))),
    "matlab object": ("m.mat", matlab(matrix(3))),
    "matlab opaque": ("m.mat", matlab(matrix(6), packed(matrix(17)))),
    "matlab function in a cell": ("m.mat", matlab(packed(matrix(1, matrix(2, matrix(16)))))),
    "matlab subsystem": ("m.mat", matlab(matrix(6), subsystem=struct.pack("<Q", 512))),
    "matlab cut": ("m.mat", matlab(matrix(6))[:-8]),
    "hdf5 unwritten, not so large": ("m.h5", hdf5(*data_set((1 << 13, 1 << 13), 8))),
    "hdf5 many large attributes": ("m.h5", hdf5_beside("a", DENSE, depth=1)),
    "zip, unknown method": ("m.zip", zip_member("a", b"raw", method=9, plain=b"raw")),
}
ALLOWED = {
    "flax": ("flax_model.msgpack", PACK(FLAX)),
    "flax, named otherwise": ("checkpoint_0", PACK(FLAX)),
    "msgpack arrays": ("m.msgpack", PACK({"nd": True, "kind": "", "data": bytes(800)})),
    "msgpack array of plain objects": ("m.msgpack", PACK(objects(PLAIN))),
    "msgpack numbers": ("m.msgpack", PACK({"v": [n / 7 for n in range(5_000)], "w": ["a"] * 400})),
    "msgpack stream": ("m.msgpack", PACK({"a": 1}) * 50),
    "a pointer to it": ("m.msgpack", b"version https://git-lfs.github.com/spec/v1\nsize 5\n"),
    "numbers that begin alike": ("w.bin", b"\x9c" + bytes(range(256)) * 9),
    "xgboost": ("m.ubj", ubjson(MODEL)),
    "xgboost, named otherwise": ("model.bst", ubjson(MODEL)),
    "matlab": ("m.mat", matlab(matrix(6), packed(matrix(1, matrix(4), element(14, b""))))),
    "hdf5 small and unwritten": ("m.h5", hdf5(*data_set((1000, 1000), 4))),
    "hdf5 large attribute": ("m.h5", hdf5_beside("model_config", DENSE)),
    "zip bzip2": ("m.zip", zipped(PLAIN, zipfile.ZIP_BZIP2)),
    "zip lzma": ("m.zip", zipped(PLAIN, zipfile.ZIP_LZMA)),
    "zip lzma of nothing": ("m.zip", zipped(b"", zipfile.ZIP_LZMA)),
    "zip zstd": ("m.zip", zip_member("a", zstandard.compress(PLAIN), method=93, plain=PLAIN)),
    "an empty tar": ("m.tar", bytes(10_240)),
    "gguf big-endian": ("m.gguf", big_endian(gguf([]))),
    "gguf big-endian text": ("m.gguf", big_endian_text(b"tokenizer.chat_template", b"{{ x }}")),
    "arrow": ("m.arrow", b"ARROW1\0\0" + bytes(90) + PLAIN + b"ARROW1"),
    "text with a plain tail": ("model.txt", b"tree\nversion=v4\n" + PLAIN),
    "openvino": ("m.xml", CONSTANT.format("4", 0, 16).encode()),
    "openvino scalar": ("m.xml", CONSTANT.format("", 16, 4).encode()),
}


def decision(name, raw, at=SETTINGS):
    return judged(findings_of(name, raw, at)).decision


@pytest.mark.parametrize("case", DENIED)
def test_what_would_act_or_break_a_loader_is_denied(case):
    assert decision(*DENIED[case]) is Decision.DENY


@pytest.mark.parametrize("case", HELD)
def test_what_cannot_be_judged_is_held(case):
    assert decision(*HELD[case]) is Decision.HOLD


@pytest.mark.parametrize("case", ALLOWED)
def test_what_honest_writers_make_is_allowed(case):
    assert decision(*ALLOWED[case]) is Decision.ALLOW


@pytest.mark.parametrize("method", [8, 12, 14])
def test_a_member_that_states_more_than_is_looked_at_is_refused(method):
    raw = zipped(bytes(1 << 20), method)
    assert decision("m.zip", raw, ScanSettings(member_bytes_max=1 << 16)) is Decision.DENY
    assert decision("m.zip", raw) is Decision.ALLOW


def test_more_values_than_are_looked_at_are_held_and_said():
    few = ScanSettings(packed_values_max=3)
    for name, raw in (("m.msgpack", PACK([["a"]] * 9)), ("m.ubj", ubjson([["a"]] * 9))):
        (finding,) = findings_of(name, raw, few)
        assert finding.rule == "scan.packed.limit"


def test_decoys_do_not_hide_a_pickle():
    raw = PACK([b"cdecoy00"] * 20_000 + [ACTS])
    (finding,) = findings_of("m.msgpack", raw, SETTINGS)
    assert finding.rule == "scan.packed.limit"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.text()
    | st.floats(allow_nan=False) | st.binary(),
    lambda inner: st.lists(inner, max_size=40) | st.dictionaries(st.text(), inner, max_size=9),
    max_leaves=25,
)  # fmt: skip
WIDE = {"depth_max": 99, "values_max": 1_000_000}


@settings(max_examples=40, deadline=None)
@given(VALUES)
def test_every_value_of_messagepack_is_walked_to_its_end(value):
    raw = PACK(value)
    spans = {each[:2] for each in msgpack_spans(memoryview(raw), is_stream=False, **WIDE)}
    seen = {raw[at : at + length] for at, length in spans}
    assert {each for each in texts(value) if len(each) >= 8} == seen
    with pytest.raises(IntegrityError):
        list(msgpack_spans(memoryview(raw[:-1]), is_stream=False, **WIDE))


def texts(value):
    if isinstance(value, str | bytes):
        return {value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value}
    inner = [*value, *value.values()] if isinstance(value, dict) else value
    return set().union(*map(texts, inner)) if isinstance(inner, list) else set()


@settings(max_examples=40, deadline=None)
@given(VALUES, st.binary(max_size=4))
def test_every_value_of_ubjson_is_walked_to_its_end(value, rest):
    raw = ubjson(value)
    assert ubjson_end(memoryview(raw + rest), **WIDE) == len(raw)
    with pytest.raises(IntegrityError):
        ubjson_end(memoryview(raw[:-1]), **WIDE)


BEGINNINGS = {
    "m.msgpack": [b"", b"\x81\xa1a", b"\xdd\xff\xff\xff\xff", b"\x84\xa4kind\xa1O\xa4data"],
    "m.ubj": [b"", b"{L\0\0\0\0\0\0\0\x01a", b"[$", b"[#L", b"{$[#U\x09"],
    "m.mat": [matlab(), matlab(matrix(1)), matlab(packed(matrix(2)))],
    "m.h5": [
        hdf5(*data_set((9, 9), 4)),
        hdf5_beside("a", b"text of it"),
        hdf5(attribute("a", b"")),
    ],
    "m.zip": [zipped(PLAIN, 12), zipped(PLAIN, 14)],
    "m.gguf": [big_endian_text(b"a.chat_template", b"{{ x }}")],
    "m.xml": [CONSTANT.format("4", 0, 16).encode()],
    "m.bin": [b"\x81", b"tree\n" + ACTS],
}


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(BEGINNINGS)), st.data())
def test_no_bytes_make_a_parser_fail_hang_or_fill_memory(name, data):
    raw = bytearray(data.draw(st.sampled_from(BEGINNINGS[name])))
    edits = data.draw(st.lists(st.tuples(st.integers(0, 1 << 12), st.integers(0, 255)), max_size=5))
    for at, byte in edits:
        if raw:
            raw[at % len(raw)] = byte
    raw += data.draw(st.binary(max_size=80))
    start = time.process_time()
    assert isinstance(decision(name, bytes(raw)), Decision)
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    "raw", [b"\xdd\xff\xff\xff\xff" + bytes(1 << 20), b"\x91" * (1 << 20), b"\xdf" * (1 << 20)]
)
def test_claims_of_counts_cost_no_memory(raw):
    tracemalloc.start()
    decision("m.msgpack", raw)
    decision("m.ubj", b"{U\x01a" + raw)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20
