"""Pickles inside something: compressed, in arrays, in archives, in text, in each other."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import pickle
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from model_files import tarred

from modelkeep.core.verdict import Decision
from tests.attack.scan.corpus import Call, zipped
from tests.corpus import zips
from tests.corpus.cases import Case, Family, Harm, Trap, Traps
from tests.corpus.opcodes import called, mapped, named, raw, state, text, whole

JOBLIB = Family("joblib", "joblib_load", "model.joblib")
NUMPY = Family("numpy", "npy", "weights.npy")
NESTED = Family("nested", "gzip_pickle", "model.pkl.gz")


def acting(trap: Trap) -> bytes:
    """A checkpoint that calls the shell."""
    return state(called("os", "system", text(trap.command)))


def calm(trap: Trap) -> bytes:
    """The same checkpoint with the command as a text."""
    return state(text(trap.command))


def cases(traps: Traps) -> Iterator[Case]:
    """All of them."""
    yield from _joblib(traps)
    yield from _numpy(traps)
    yield from _nested(traps)


def _zfile(plain: bytes) -> bytes:
    return b"ZF" + hex(len(plain)).ljust(19).encode() + zlib.compress(plain)


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "zlib": zlib.compress,
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda plain: lzma.compress(plain, lzma.FORMAT_ALONE),
    "zfile": _zfile,
}


def _joblib(traps: Traps) -> Iterator[Case]:
    for name, pack in PACKERS.items():
        trap = traps(f"joblib-{name}")
        yield JOBLIB.case(name, pack(acting(trap)), pack(calm(trap)))
    trap = traps("joblib-lz4")
    frame = _lz4(acting(trap))
    yield JOBLIB.case("lz4", frame, _lz4(calm(trap)), loader="joblib_load_lz4")
    trap = traps("joblib-behind-an-array")
    yield JOBLIB.case("behind-an-array", _after_array(acting(trap)), _after_array(calm(trap)))
    trap = traps("joblib-array-of-objects")
    yield JOBLIB.case(
        "array-of-objects",
        _object_array(Call(exec, trap.code)),
        _object_array(trap.code),
    )
    # joblib before 0.10 kept arrays in files beside the pickle: the name is the attacker's
    trap = traps("joblib-array-in-another-file")
    yield JOBLIB.case(
        "array-in-another-file", _beside(trap.secret), _beside_nothing(),
        harm=Harm.READ,
    )  # fmt: skip
    trap = traps("joblib-function-in-a-transformer")
    yield JOBLIB.case(
        "function-in-a-transformer",
        whole(_function(_evaluator(trap))),
        whole(_function(named("numpy", "log1p"))),
        loader="joblib_transform",
    )
    bomb, small = _inflating(80), zlib.compress(whole(raw(bytes(1 << 23))))
    yield JOBLIB.case("bomb", bomb, small, harm=Harm.MEMORY, wanted=Decision.HOLD)


def _inflating(blocks: int) -> bytes:
    """A zlib stream that is one run of bytes for a pickle, 8 MiB at a time."""
    engine = zlib.compressobj(9)
    start = engine.compress(b"\x80\x04B" + struct.pack("<I", blocks << 23))
    start += engine.flush(zlib.Z_FULL_FLUSH)
    part = engine.compress(bytes(1 << 23)) + engine.flush(zlib.Z_FULL_FLUSH)
    return start + part * blocks  # no loader gets to its end


def _lz4(plain: bytes) -> bytes:
    head = b"\x04\x22\x4d\x18\x60\x40\x82"
    return head + struct.pack("<I", len(plain) | 1 << 31) + plain + bytes(4)


def _wrapper(dtype: bytes, shape: bytes) -> bytes:
    """What joblib writes in front of an array."""
    return (
        named("joblib.numpy_pickle", "NumpyArrayWrapper") + b")\x81"
        + mapped(("subclass", named("numpy", "ndarray")), ("shape", shape),
                 ("order", text("C")), ("dtype", dtype), ("allow_mmap", b"\x89"),
                 ("numpy_array_alignment_bytes", b"N"))
        + b"b"
    )  # fmt: skip


def _dtype(kind: str) -> bytes:
    is_object = kind == "O8"
    tail = b"K?" if is_object else b"K\x00"
    order = b"|" if kind in ("u1", "O8") else b"<"
    return (
        called("numpy", "dtype", text(kind), b"\x89", b"\x88")
        + b"(K\x03" + text(order.decode()) + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff" + tail + b"tb"
    )  # fmt: skip


def _after_array(note: bytes) -> bytes:
    """An array whose bytes lie between the opcodes, then a dictionary's note."""
    inner = note[2:-1]  # without PROTO and STOP
    array = _wrapper(_dtype("u1"), b"K\x04\x85") + b"\x00\x01\x02."
    return b"\x80\x04}(" + text("array") + array + text("note") + inner + b"u."


def _object_array(value: object) -> bytes:
    """joblib pickles arrays of objects by themselves, behind the wrapper."""
    inner = pickle.dumps(np.array([value], dtype=object), 4)
    return b"\x80\x04" + _wrapper(_dtype("O8"), b"K\x01\x85") + inner + b"."


def _beside(path: str) -> bytes:
    return whole(
        named("joblib.numpy_pickle_compat", "NDArrayWrapper") + b")\x81"
        + mapped(("filename", text(path)), ("subclass", named("numpy", "ndarray")),
                 ("allow_mmap", b"\x89")) + b"b"
    )  # fmt: skip


def _beside_nothing() -> bytes:
    return b"\x80\x04" + _wrapper(_dtype("u1"), b"K\x04\x85") + b"\x00\x01\x02\x03."


def _function(function: bytes) -> bytes:
    """scikit-learn's transformer that calls a function when it is used."""
    return (
        named("sklearn.preprocessing._function_transformer", "FunctionTransformer") + b")\x81"
        + mapped(("func", function), ("inverse_func", b"N"), ("validate", b"\x89"),
                 ("accept_sparse", b"\x89"), ("check_inverse", b"\x89"),
                 ("feature_names_out", b"N"), ("kw_args", b"N"), ("inv_kw_args", b"N"),
                 ("_sklearn_version", text("1.9.1")))
        + b"b"
    )  # fmt: skip


def _evaluator(trap: Trap) -> bytes:
    """A function of one argument that ignores it."""
    return called("functools", "partial", named("cProfile", "run"), text(trap.code))


def _numpy(traps: Traps) -> Iterator[Case]:
    def saved(value: object) -> bytes:
        file = io.BytesIO()
        np.save(file, np.array([value], dtype=object), allow_pickle=True)
        return file.getvalue()

    def many(value: object, *, packed: bool) -> bytes:
        file = io.BytesIO()
        save = np.savez_compressed if packed else np.savez
        save(file, w=np.arange(4), note=np.array([value], dtype=object))
        return file.getvalue()

    trap = traps("numpy-objects")
    yield NUMPY.case("objects", saved(Call(exec, trap.code)), saved(trap.code))
    for name, packed in (("npz", False), ("npz-compressed", True)):
        trap = traps(f"numpy-{name}")
        evil, twin = (many(each, packed=packed) for each in (Call(exec, trap.code), trap.code))
        yield NUMPY.case(name, evil, twin, loader="npz", main="weights.npz")
    trap = traps("numpy-plain-pickle")
    yield NUMPY.case("plain-pickle", acting(trap), calm(trap), main="w.pkl")
    trap = traps("numpy-objects-in-a-record")
    yield NUMPY.case("objects-in-a-record", _record(acting(trap)), _record_of_numbers())
    trap = traps("numpy-pickle-in-an-npz")
    evil, twin = (zipped({"w.npy": each}) for each in (acting(trap), _numbers()))
    yield NUMPY.case("pickle-in-an-npz", evil, twin, main="w.npz", loader="npz_members")
    yield NUMPY.case(
        "huge-shape", _header((1 << 40,)), _header((4,)) + bytes(4), harm=Harm.MEMORY,
        loader="npy_plain",
    )  # fmt: skip
    yield NUMPY.case(
        "npz-bomb",
        zips.zipped(zips.zeros("w.npy", _header((80 << 23,)), 80)),
        zips.zipped(zips.zeros("w.npy", _header((1 << 23,)), 1)),
        harm=Harm.MEMORY, loader="npy_numbers", main="w.npz",
    )  # fmt: skip


def _numbers() -> bytes:
    return _header((4,)) + bytes(4)


def _header(shape: tuple[int, ...], descr: str = "'|u1'") -> bytes:
    head = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode()


def _record(pickled: bytes) -> bytes:
    return _header((1,), "[('a', '<i4'), ('b', '|O')]") + pickled


def _record_of_numbers() -> bytes:
    return _header((1,), "[('a', '<i4'), ('b', '<f8')]") + bytes(12)


def _nested(traps: Traps) -> Iterator[Case]:
    yield from _packed(traps)
    trap = traps("nested-zip-in-a-zip")
    evil, twin = (
        zipped({"readme.txt": b"a model", "inner.zip": zipped({"model.pkl": each})})
        for each in (acting(trap), calm(trap))
    )
    yield NESTED.case("zip-in-a-zip", evil, twin, loader="zip_zip_pickle", main="bundle.zip")
    trap = traps("nested-tar-gz")
    evil, twin = (gzip.compress(tarred({"model.pkl": each})) for each in (acting(trap), calm(trap)))
    yield NESTED.case("tar-gz", evil, twin, loader="tar_then_pickle", main="model.tar.gz")
    for name, pack in (("tar-bz2", bz2.compress), ("tar-xz", lzma.compress)):
        trap = traps(f"nested-{name}")
        evil, twin = (pack(tarred({"model.pkl": each})) for each in (acting(trap), calm(trap)))
        yield NESTED.case(name, evil, twin, loader="tar_then_pickle", main=f"m.{name[4:]}")
    trap = traps("nested-base64-in-a-text")
    evil, twin = (base64.b64encode(each) for each in (acting(trap), calm(trap)))
    yield NESTED.case(
        "base64-in-a-text", evil, twin, loader="base64_pickle", main="model.b64",
        wanted=Decision.HOLD,
    )  # fmt: skip
    trap = traps("nested-bytes-that-are-loaded")
    evil = whole(called("pickle", "loads", raw(acting(trap))))
    yield NESTED.case(
        "bytes-that-are-loaded", evil, state(raw(calm(trap))), loader="pickle", main="m.pkl"
    )
    # a stable-baselines policy is JSON in a zip, with pickles as text in it
    trap = traps("nested-pickle-in-json")
    evil, twin = (_policy(each) for each in (acting(trap), whole(text("a"))))
    yield NESTED.case(
        "pickle-in-json", evil, twin, loader="stable_baselines",
        main="policy.zip",
    )  # fmt: skip


def _policy(pickled: bytes) -> bytes:
    value = {":type:": "<class 'function'>", ":serialized:": base64.b64encode(pickled).decode()}
    data = {"gamma": 0.99, "lr_schedule": value}
    return zipped({"data": json.dumps(data, indent=4).encode(),
                   "system_info.txt": b"- Python: 3.11\n"})  # fmt: skip


def _packed(traps: Traps) -> Iterator[Case]:
    for name, loader, pack in (
        ("gzip", "gzip_pickle", gzip.compress),
        ("bz2", "bz2_pickle", bz2.compress),
        ("xz", "xz_pickle", lzma.compress),
        ("zlib", "zlib_pickle", zlib.compress),
        ("zlib-in-gzip", "zlib_zlib_pickle", lambda plain: gzip.compress(zlib.compress(plain))),
        ("two-gzip-members", "gzip_pickle",
         lambda plain: gzip.compress(plain[:9]) + gzip.compress(plain[9:])),
    ):  # fmt: skip
        trap = traps(f"nested-{name}")
        main = "model.pkl" if "zlib" in name else f"model.pkl.{name}".replace("gzip", "gz")
        evil, twin = pack(acting(trap)), pack(calm(trap))
        yield NESTED.case(name, evil, twin, loader=loader, main=main)
