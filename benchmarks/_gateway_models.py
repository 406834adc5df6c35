"""What is served and what is asked: two models and one call in each form, the same for everyone.

`digits` is the demo's classifier of 64 numbers. `image` takes 1x3x224x224, the shape of every
picture model, and computes next to nothing (a mean of each channel, then 3x10 weights), so what is
measured is how 150,528 numbers travel.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _gateway_load import Payload

from modelkeep.cli.demo_data import digits, trained

IMAGE_SHAPE = (1, 3, 224, 224)
# Digits that a client writes for numbers from 0 to 1; 1.4 MB of JSON.
DECIMALS = 6
_SEED = 20


@dataclass(frozen=True)
class Model:
    """One ONNX file and its one input, for the peers' configurations; all of it is FP32."""

    name: str
    path: Path
    input_name: str
    input_shape: tuple[int, ...]  # without the rows
    outputs: tuple[tuple[str, str, tuple[int, ...]], ...]  # name, Triton's type, shape of a row


def made_models(folder: Path) -> list[Model]:
    """Train the one, write the other."""
    made = trained(digits(), folder)[1].file
    image = folder / "image.onnx"
    image.write_bytes(image_model())
    return [
        Model(
            "digits", Path(made), "pixels", (64,),
            (("label", "TYPE_INT64", (1,)), ("probabilities", "TYPE_FP32", (10,))),
        ),
        Model("image", image, "x", IMAGE_SHAPE[1:], (("y", "TYPE_FP32", (10,)),)),
    ]  # fmt: skip


def image_model() -> bytes:
    """Mean over each channel, then a matrix."""
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415  # slow, only here

    weights = np.random.default_rng(_SEED).normal(size=(3, 10)).astype(np.float32)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["x"], ["means"]),
            helper.make_node("Flatten", ["means"], ["rows"]),
            helper.make_node("MatMul", ["rows", "weights"], ["y"]),
        ],
        "image",
        [value("x", TensorProto.FLOAT, ["rows", *IMAGE_SHAPE[1:]])],
        [value("y", TensorProto.FLOAT, ["rows", 10])],
        [numpy_helper.from_array(weights, "weights")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    return bytes(made.SerializeToString())


def payloads() -> dict[str, Payload]:
    """Every call, by `<model>-<form>`."""
    pixels = [n % 17 / 16 for n in range(64)]
    picture = np.random.default_rng(_SEED).uniform(0, 1, IMAGE_SHAPE).round(DECIMALS)
    values = picture.astype(np.float32)
    small = np.asarray([pixels], np.float32)
    made = [
        _json("digits", "pixels", (1, 64), pixels),
        _binary("digits", "pixels", small),
        _grpc("digits", "pixels", small),
        _json("image", "x", IMAGE_SHAPE, picture.reshape(-1).tolist()),
        _binary("image", "x", values),
        _grpc("image", "x", values),
    ]
    return {each.name: each for each in made}


def _json(model: str, name: str, shape: tuple[int, ...], data: list[float]) -> Payload:
    given = {"name": name, "shape": shape, "datatype": "FP32", "data": data}
    body = json.dumps({"inputs": [given]}, separators=(",", ":")).encode()
    return Payload(f"{model}-json", model, "json", body, (("Content-Type", "application/json"),))


def _binary(model: str, name: str, rows: np.ndarray) -> Payload:
    """V2's binary tensor extension, both ways, as tritonclient does by default."""
    raw = rows.tobytes()
    size = {"binary_data_size": len(raw)}
    given = {"name": name, "shape": rows.shape, "datatype": "FP32", "parameters": size}
    head = {"inputs": [given], "parameters": {"binary_data_output": True}}
    text = json.dumps(head, separators=(",", ":")).encode()
    headers = (
        ("Content-Type", "application/octet-stream"),
        ("Inference-Header-Content-Length", str(len(text))),
    )
    return Payload(f"{model}-binary", model, "binary", text + raw, headers)


def _grpc(model: str, name: str, rows: np.ndarray) -> Payload:
    """`ModelInferRequest` of the protocol's grpc_predict_v2.proto, framed as gRPC wants it."""
    shape = b"".join(_varint(each) for each in rows.shape)
    tensor = _field(1, name.encode()) + _field(2, b"FP32") + _field(3, shape)
    message = _field(1, model.encode()) + _field(5, tensor) + _field(7, rows.tobytes())
    framed = b"\0" + len(message).to_bytes(4, "big") + message
    return Payload(f"{model}-grpc", model, "grpc", framed)


def _field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    return bytes([*made, value])
