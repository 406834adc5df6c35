"""ONNX Runtime over a memory file: the same answers, and at most one copy of the weights."""

import json
import os
import subprocess
import sys
from contextlib import suppress

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelkeep.adapters.memory_file import sealed_bytes
from modelkeep.adapters.runtime_onnx import OnnxRuntime, runtime_of_fd
from modelkeep.core.artifact import Port, Schema
from modelkeep.core.errors import IntegrityError, KeepError
from modelkeep.kernels.onnx_split import split_onnx

RANDOM = np.random.default_rng(3)
ROWS = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 32])]
IMAGES = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 8, 6, 6])]
NUMBERS = [helper.make_tensor_value_info("x", TensorProto.INT64, ["b"])]
W = RANDOM.standard_normal((32, 32), dtype=np.float32)
K = RANDOM.standard_normal((8, 8, 3, 3), dtype=np.float32)
TRUE = np.array(1, np.bool_)
SCALES = {
    "s": np.float32(0.05),
    "z": np.uint8(128),
    "ws": np.float32(0.02),
    "wz": np.int8(0),
}
NORM = {name: abs(RANDOM.standard_normal(8, dtype=np.float32)) for name in "sbmv"}


def node(operator, *names, into="y", **attributes):
    return helper.make_node(operator, list(names), [into], **attributes)


def graph(name, *nodes, **tensors):
    value = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
    given = [numpy_helper.from_array(np.asarray(array), key) for key, array in tensors.items()]
    return helper.make_graph(nodes, name, [], [value], given)


def model(inputs, *nodes, ir=9, **tensors):
    made = graph("g", *nodes, **tensors)
    made.input.extend(inputs)
    imports = [helper.make_opsetid("", 17)]
    return helper.make_model(made, opset_imports=imports, ir_version=ir).SerializeToString()


def schema(outputs=("y",)):
    ports = tuple(Port(name=name, dtype="FP32", shape=()) for name in outputs)
    return Schema(inputs=(), outputs=ports)


def inputs_of(session):
    random = np.random.default_rng(5)
    made = {}
    for port in session.get_inputs():
        shape = [each if isinstance(each, int) else 4 for each in port.shape]
        made[port.name] = (
            random.integers(0, 8, shape)
            if "int64" in port.type
            else random.standard_normal(shape).astype(np.float32)
        )
    return made


THEN = graph("t", node("MatMul", "x", "w", into="t"))
ELSE = graph("e", node("MatMul", "x", "u", into="e"), u=W + 1)
SHADOW = graph("s", node("MatMul", "x", "w", into="s"), w=W + 2)

# What a runtime's optimizers fold, fuse, reorder, share or drop.
MODELS = {
    "matmul": model(ROWS, node("MatMul", "x", "w"), w=W),
    "unused": model(ROWS, node("MatMul", "x", "w"), w=W, u=W),
    "renamed": model(ROWS, node("Identity", "w", into="v"), node("MatMul", "x", "v"), w=W),
    "taken twice": model(
        ROWS,
        node("Transpose", "w", into="t", perm=[1, 0]),
        node("MatMul", "x", "t", into="a"),
        node("MatMul", "a", "w"),
        w=W,
    ),
    "folded": model(ROWS, node("Mul", "w", "w", into="v"), node("MatMul", "x", "v"), w=W),
    "biased": model(ROWS, node("MatMul", "x", "w", into="a"), node("Add", "a", "b"), w=W, b=W[0]),
    "gemm": model(ROWS, node("Gemm", "x", "w", "b", transB=1), w=W, b=W[0]),
    "normed": model(
        IMAGES,
        node("Conv", "x", "k", into="a"),
        node("BatchNormalization", "a", "s", "b", "m", "v", into="n"),
        node("Conv", "n", "k"),
        k=K,
        **NORM,
    ),
    "gathered": model(NUMBERS, node("Gather", "w", "x"), w=W),
    "half": model(
        ROWS,
        node("Cast", "w", into="v", to=TensorProto.FLOAT),
        node("MatMul", "x", "v"),
        w=W.astype(np.float16),
    ),
    "quantised": model(
        ROWS,
        node("QuantizeLinear", "x", "s", "z", into="q"),
        node("DequantizeLinear", "q", "s", "z", into="d"),
        node("DequantizeLinear", "w", "ws", "wz", into="v"),
        node("MatMul", "d", "v", into="a"),
        node("QuantizeLinear", "a", "s", "z", into="r"),
        node("DequantizeLinear", "r", "s", "z"),
        w=(W * 40).clip(-127, 127).astype(np.int8),
        **SCALES,
    ),
    "branching": model(
        ROWS,
        helper.make_node("If", ["c"], ["y"], then_branch=THEN, else_branch=ELSE),
        c=TRUE,
        w=W,
    ),
    "shadowed": model(
        ROWS,
        helper.make_node("If", ["c"], ["v"], then_branch=SHADOW, else_branch=ELSE),
        node("MatMul", "v", "m"),
        c=TRUE,
        w=W,
        m=W,
    ),
    "an input": model(
        [*ROWS, helper.make_tensor_value_info("w", TensorProto.FLOAT, [32, 32])],
        node("MatMul", "x", "w"),
        w=W,
        ir=3,
    ),
}


@pytest.mark.parametrize("raw", MODELS.values(), ids=MODELS)
def test_answers_are_bit_by_bit_those_of_the_whole_model(raw):
    whole = onnxruntime.InferenceSession(raw, providers=["CPUExecutionProvider"])
    inputs = inputs_of(whole)
    wanted = whole.run(["y"], inputs)[0]
    width = 64  # every weight of the file stands at each alignment once
    for shift in range(4):
        room = np.zeros(len(raw) + width, np.uint8)
        start = -room.ctypes.data % width + shift
        view = memoryview(room)[start : start + len(raw)]
        view[:] = raw
        parts = split_onnx(view, weight_bytes_min=128)
        assert parts.weights
        runtime = OnnxRuntime(parts, view, schema=schema(), threads=1)
        assert (runtime.answer(inputs)["y"] == wanted).all()


def test_a_small_model_runs_from_its_memory_file():
    fd = sealed_bytes("model", MODELS["matmul"])
    runtime = runtime_of_fd(fd, schema=schema(), threads=1)
    os.close(fd)
    assert runtime.answer({"x": np.eye(32, dtype=np.float32)})["y"].tolist() == W.tolist()


@pytest.mark.parametrize("raw", [b"", b"\x3a\xff", b"no model at all", MODELS["matmul"][:-9]])
def test_what_is_no_model_is_refused(raw):
    fd = sealed_bytes("model", raw)
    with pytest.raises(IntegrityError):
        runtime_of_fd(fd, schema=schema(), threads=1)
    os.close(fd)


def test_no_data_is_read_from_the_working_folder(tmp_path, monkeypatch):
    W.tofile(tmp_path / "weights")
    W.tofile(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    for location in ("weights", "elsewhere"):
        outside = TensorProto(name="w", dims=W.shape, data_type=TensorProto.FLOAT)
        outside.data_location = TensorProto.EXTERNAL
        outside.external_data.add(key="location", value=location)
        made = helper.make_graph([node("MatMul", "x", "w")], "g", ROWS, [], [outside])
        made.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, None))
        raw = helper.make_model(made, ir_version=9).SerializeToString()
        fd = sealed_bytes("model", raw)
        with pytest.raises(KeepError) as error:
            runtime_of_fd(fd, schema=schema(), threads=1)
        assert error.value.code == "onnx.external"
        os.close(fd)


MEASURED = """
import json, re, sys, pathlib
from modelkeep.adapters.runtime_onnx import runtime_of_fd
from modelkeep.core.artifact import Port, Schema
def own():
    text = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"RssAnon:\\s+(\\d+)", text)[1]) * 1024
fd, spare = int(sys.argv[1]), int(sys.argv[2])
schema = Schema(inputs=(), outputs=(Port(name="y", dtype="FP32", shape=()),))
runtime_of_fd(spare, schema=schema, threads=1)  # the libraries are loaded and warm
before = own()
runtime = runtime_of_fd(fd, schema=schema, threads=1)
print(json.dumps(own() - before))
"""
SIZE_BYTES = 32 * 1024 * 1024


def private_bytes(raw):
    """What a fresh process has in memory of its own after it loaded the model."""
    fds = [sealed_bytes("model", each) for each in (raw, MODELS["matmul"])]
    try:
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, *map(str, fds)],
            pass_fds=fds,
            capture_output=True,
            check=True,
            env={"PYTHONPATH": os.pathsep.join(sys.path)},
        )
    finally:
        for fd in fds:
            with suppress(OSError):
                os.close(fd)
    return int(json.loads(done.stdout))


def aligned(array, *nodes, inputs):
    """A model whose one weight stands at a multiple of four bytes."""
    for name in ("w", "ww", "www", "wwww"):
        renamed = [helper.make_node(n.op_type, [name if i == "w" else i for i in n.input], ["y"])
                   for n in nodes]  # fmt: skip
        raw = model(inputs, *renamed, **{name: array})
        if split_onnx(memoryview(raw)).weights[0].offset % 4 == 0:
            return raw
    raise AssertionError("no name helps")


def test_an_embedding_is_not_copied_at_all():
    table = np.zeros((SIZE_BYTES // 4096, 1024), np.float32)
    raw = aligned(table, node("Gather", "w", "x"), inputs=NUMBERS)
    assert private_bytes(raw) < SIZE_BYTES // 4


def test_a_packed_weight_is_copied_once():
    square = np.zeros((32, SIZE_BYTES // 128), np.float32)
    assert private_bytes(model(ROWS, node("MatMul", "x", "w"), w=square)) < SIZE_BYTES * 5 // 4
