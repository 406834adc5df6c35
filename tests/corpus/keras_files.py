"""Keras: models as zip, HDF5 and JSON whose configuration brings code, names or files."""
# ruff: noqa: E501, ARG005 - tables

from __future__ import annotations

import base64
import io
import json
import marshal
import struct
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

from tests.attack.scan.corpus import zipped
from tests.corpus.cases import Case, Family, Harm, Trap, Traps
from tests.corpus.packed import acting
from tests.corpus.torch_files import archive

KERAS = Family("keras", "keras_load", "model.keras")
HDF5 = Family("keras-hdf5", "keras_load", "model.h5")
Layer = dict[str, Any]
_UNDEFINED = b"\xff" * 8


def cases(traps: Traps) -> Iterator[Case]:
    """All of them."""
    yield from _lambdas(traps)
    yield from _functions(traps)
    yield from _files(traps)
    yield from _hdf5(traps)
    trap = traps("keras-torch-wrapper")
    evil, twin = (_torch_wrapper(each) for each in (acting(trap), None))
    yield KERAS.case("torch-wrapper", evil, twin, loader="keras_torch_load")


def layer(kind: str, module: str = "keras.layers", **config: Any) -> Layer:
    """One layer of a configuration."""
    name = config.setdefault("name", kind.lower())
    return {"module": module, "class_name": kind, "config": config, "registered_name": None,
            "name": name}  # fmt: skip


def _code(trap: Trap) -> Layer:
    """A function as Keras stores it: marshalled, as text."""
    source = f"lambda x: ({trap.code}, x)[1]"
    function = eval(source)  # noqa: S307 - our own text; it is not called
    raw = marshal.dumps(function.__code__)
    return {"class_name": "__lambda__", "config": {
        "code": base64.b64encode(raw).decode(), "defaults": None, "closure": None}}  # fmt: skip


def _input() -> Layer:
    return layer("InputLayer", batch_shape=[None, 4], dtype="float32", sparse=False)


def _sequential(*layers: Layer) -> Layer:
    return layer("Sequential", "keras", name="model", layers=[_input(), *layers],
                 build_input_shape=[None, 4])  # fmt: skip


def _relu(name: str = "activation") -> Layer:
    return layer("Activation", activation="relu", name=name)


def keras_zip(config: Layer, **more: bytes) -> bytes:
    """A `.keras` file."""
    return zipped({
        "metadata.json": b'{"keras_version": "3.8.0", "date_saved": "2026-01-01@00:00:00"}',
        "config.json": json.dumps(config).encode(), "model.weights.h5": hdf5(), **more,
    })  # fmt: skip


def _lambdas(traps: Traps) -> Iterator[Case]:
    twin = keras_zip(_sequential(_relu()))
    trap = traps("keras-lambda")
    lambda_layer = layer("Lambda", function=_code(trap), output_shape=None, arguments={})
    yield KERAS.case("lambda", keras_zip(_sequential(lambda_layer)), twin)
    trap = traps("keras-lambda-in-a-model-in-a-model")
    inner = layer("Lambda", function=_code(trap), output_shape=None, arguments={})
    nested, calm_nested = (_sequential(_sequential(each) | {"name": "inner"}) for each in (
        inner, _relu()))  # fmt: skip
    yield KERAS.case("lambda-in-a-model-in-a-model", keras_zip(nested), keras_zip(calm_nested))
    trap = traps("keras-lambda-in-a-wrapper")
    inner = layer("Lambda", function=_code(trap), output_shape=None, arguments={})
    wrapped, calm_wrapped = (
        keras_zip(_sequential(
            layer("Reshape", target_shape=[2, 2]), layer("TimeDistributed", layer=each)))
        for each in (inner, _relu())
    )  # fmt: skip
    yield KERAS.case("lambda-in-a-wrapper", wrapped, calm_wrapped)
    trap = traps("keras-lambda-deflated")
    inner = layer("Lambda", function=_code(trap), output_shape=None, arguments={})
    evil = _deflated(keras_zip(_sequential(inner)))
    yield KERAS.case("lambda-deflated", evil, _deflated(twin))
    trap = traps("keras-json")
    inner = layer("Lambda", function=_code(trap), output_shape=None, arguments={})
    evil, calm_json = (json.dumps(_sequential(each)).encode() for each in (inner, _relu()))
    yield KERAS.case("json", evil, calm_json, loader="keras_json", main="model.json")


def _deflated(raw: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(raw)) as given:
        found = {name: given.read(name) for name in given.namelist()}
    return zipped(found, zipfile.ZIP_DEFLATED)


def _functional(*nodes: Layer) -> Layer:
    first = layer("InputLayer", batch_shape=[None, 4], dtype="float32", sparse=False, name="x")
    first |= {"inbound_nodes": []}
    return layer("Functional", "keras.src.models.functional", name="model", trainable=True,
                 layers=[first, *nodes], input_layers=[["x", 0, 0]], output_layers=[["x", 0, 0]])  # fmt: skip


def _call(module: str, name: str, *args: Any, **kwargs: Any) -> Layer:
    """A node that calls a function while the model is built (CVE-2025-1550)."""
    return {"module": module, "class_name": "function", "config": name, "registered_name": name,
            "name": name, "inbound_nodes": [{"args": list(args), "kwargs": kwargs}]}  # fmt: skip


def _tensor() -> Layer:
    return {"class_name": "__keras_tensor__", "config": {
        "shape": [None, 4], "dtype": "float32", "keras_history": ["x", 0, 0]}}  # fmt: skip


def _functions(traps: Traps) -> Iterator[Case]:
    """What Keras 3.8 looks up by name; later versions refuse it."""
    calm_node = _relu("a") | {"inbound_nodes": [{"args": [_tensor()], "kwargs": {}}]}
    twin = keras_zip(_functional(calm_node))
    for name, make, harm in (
        ("os-system", lambda t: _call("os", "system", t.command), Harm.CODE),
        ("subprocess", lambda t: _call("subprocess", "getoutput", t.command), Harm.CODE),
        ("eval", lambda t: _call("builtins", "eval", t.code), Harm.CODE),
        ("opens-a-file", lambda t: _call("io", "FileIO", t.new, "w"), Harm.WRITE),
        ("numpy-file", lambda t: _call("numpy", "fromfile", t.secret, "u1"), Harm.READ),
        ("keras-imports-os", lambda t: _call(
            "keras.src.utils.file_utils", "extract_archive", t.secret), Harm.READ),
        ("fetches-a-file", lambda t: _call(
            "keras.utils", "get_file", fname="x", origin="file://" + t.secret), Harm.READ),
        ("fetches-from-afar", lambda t: _call(
            "keras.utils", "get_file", fname="x", origin="http://127.0.0.1:9/x"), Harm.NETWORK),
    ):  # fmt: skip
        trap = traps(f"keras-{name}")
        evil = keras_zip(_functional(make(trap)))
        yield KERAS.case(name, evil, twin, loader="keras_3_8", harm=harm)


def _files(traps: Traps) -> Iterator[Case]:
    """Layers that open files: vocabularies, SavedModels."""
    for kind, extra in (
        ("StringLookup", {}), ("TextVectorization", {
            "output_mode": "int", "standardize": None, "split": "whitespace", "ngrams": None,
            "output_sequence_length": None, "pad_to_max_tokens": False, "sparse": False,
            "ragged": False, "encoding": "utf-8", "max_tokens": None}),
        ("IntegerLookup", {}),
    ):  # fmt: skip
        name = f"vocabulary-of-{kind.lower()}"
        trap = traps(f"keras-{name}")
        words: Any = [1, 2] if kind == "IntegerLookup" else ["a", "b"]
        evil, twin = (
            keras_zip(layer("Sequential", "keras", name="m", layers=[
                layer(kind, vocabulary=each, **extra)]))
            for each in (trap.secret, words)
        )  # fmt: skip
        yield KERAS.case(name, evil, twin, harm=Harm.READ, loader="keras_tf_load")


def _hdf5(traps: Traps) -> Iterator[Case]:
    def model(function: Any) -> bytes:
        inner = {"class_name": "Lambda", "config": {"name": "l", "trainable": True, "dtype": "float32",
                 "function": function, "function_type": "lambda", "module": "__main__",
                 "output_shape": None, "output_shape_type": "raw", "output_shape_module": None,
                 "arguments": {}}}  # fmt: skip
        if function is None:
            inner = {"class_name": "Activation", "config": {"name": "l", "activation": "relu"}}
        first = {"class_name": "InputLayer", "config": {
            "batch_input_shape": [None, 4], "dtype": "float32", "name": "i"}}  # fmt: skip
        return json.dumps({"class_name": "Sequential", "config": {
            "name": "m", "layers": [first, inner]}}).encode()  # fmt: skip

    trap = traps("keras-hdf5-lambda")
    raw = base64.b64decode(_code(trap)["config"]["code"])
    dumped = [base64.b64encode(raw).decode(), None, None]
    evil, twin = (hdf5({"model_config": model(each)}) for each in (dumped, None))
    yield HDF5.case("lambda", evil, twin)
    trap = traps("keras-hdf5-lambda-behind-a-block")
    raw = base64.b64decode(_code(trap)["config"]["code"])
    dumped = [base64.b64encode(raw).decode(), None, None]
    evil, twin = (bytes(512) + hdf5({"model_config": model(each)}) for each in (dumped, None))
    yield HDF5.case("lambda-behind-a-block", evil, twin)
    trap = traps("keras-hdf5-lambda-of-today")
    inner = layer("Lambda", function=_code(trap), output_shape=None, arguments={})
    evil, twin = (
        hdf5({"model_config": json.dumps(_sequential(each)).encode()}) for each in (inner, _relu())
    )
    yield HDF5.case("lambda-of-today", evil, twin)
    trap = traps("keras-hdf5-weights-elsewhere")
    evil = hdf5({}, links={"w": trap.secret})
    yield HDF5.case("weights-elsewhere", evil, hdf5({}, groups=("w",)), harm=Harm.READ,
                    loader="h5_walk")  # fmt: skip


def _torch_wrapper(pickled: bytes | None) -> bytes:
    if pickled is None:
        return keras_zip(_sequential(_relu()))
    text = base64.b64encode(archive(pickled)).decode()
    wrapper = layer("TorchModuleWrapper", output_shape=None)
    wrapper["config"]["module"] = text
    return keras_zip(_sequential(wrapper))


# ---- HDF5 ----


def hdf5(
    attributes: Mapping[str, bytes] = {}, *, links: Mapping[str, str] = {}, groups: tuple[str, ...] = ()
) -> bytes:  # fmt: skip
    """A file of one root group with attributes of text, external links, and empty groups."""
    head = bytearray(b"\x89HDF\r\n\x1a\n" + bytes([0, 0, 0, 0, 0, 8, 8, 0]))
    head += struct.pack("<HHL", 4, 16, 0)
    messages = [_message(2, struct.pack("<BB", 0, 0) + 2 * _UNDEFINED)]
    messages += [_attribute(name, value) for name, value in attributes.items()]
    messages += [_external(name, path) for name, path in links.items()]
    empty = _header([_message(2, struct.pack("<BB", 0, 0) + 2 * _UNDEFINED)])
    weights = ("model_weights",) if attributes else ()
    names = (*groups, *weights)
    size = len(_header([*messages, *(_hard(name, 0) for name in names)]))
    messages += [_hard(name, 96 + size) for name in names]
    root = _header(messages)
    end = 96 + size + len(empty)
    head += struct.pack("<Q", 0) + _UNDEFINED + struct.pack("<Q", end) + _UNDEFINED
    head += struct.pack("<QQ24x", 0, 96)
    return bytes(head) + root + empty


def _message(kind: int, raw: bytes) -> bytes:
    raw += bytes(-len(raw) % 8)
    return struct.pack("<HHB3x", kind, len(raw), 0) + raw


def _header(messages: list[bytes]) -> bytes:
    body = b"".join(messages)
    return struct.pack("<BxHLL4x", 1, len(messages), 1, len(body)) + body


def _attribute(name: str, value: bytes) -> bytes:
    raw_name = name.encode() + b"\0"
    kind = struct.pack("<BBBBL", 0x13, 0, 0, 0, len(value))
    space = struct.pack("<BB6x", 1, 0)
    head = struct.pack("<BxHHH", 1, len(raw_name), len(kind), len(space))
    return _message(0x0C, head + raw_name + bytes(-len(raw_name) % 8) + kind + space + value)


def _hard(name: str, address: int) -> bytes:
    head = struct.pack("<BBB", 1, 0, len(name)) + name.encode()
    return _message(6, head + struct.pack("<Q", address))


def _external(name: str, path: str) -> bytes:
    value = b"\0" + path.encode() + b"\0/\0"
    head = struct.pack("<BBBB", 1, 8, 64, len(name)) + name.encode()
    return _message(6, head + struct.pack("<H", len(value)) + value)
