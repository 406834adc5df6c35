"""Make the files of this folder and `expected.json`, by the libraries that own the formats.

Run it in an environment of its own (it needs torch, gguf, onnx, safetensors and numpy; the versions
that made the present files stand in README.md):

    python tests/vectors/layouts/make.py

What a tensor is, is said by its library and never by modelkeep: `expected.json` holds name, dtype,
shape and the SHA-256 of the tensor's little-endian bytes. The last lines load every file with its
library once more and check it against that.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import gguf
import numpy as np
import onnx
import safetensors.torch
import torch
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).parent
NAMES = {
    torch.float32: "FP32",
    torch.float64: "FP64",
    torch.float16: "FP16",
    torch.bfloat16: "BF16",
    torch.int64: "INT64",
    torch.int32: "INT32",
    torch.int8: "INT8",
    torch.uint8: "UINT8",
    torch.uint16: "UINT16",
    torch.bool: "BOOL",
}
expected: dict[str, dict] = {}


def entry(dtype, shape, raw):
    return {
        "dtype": dtype,
        "shape": list(shape),
        "bytes": len(raw),
        "sha256": hashlib.sha256(raw).hexdigest(),
    }


def raw_of(tensor):
    """A torch tensor's items in C order."""
    flat = tensor.detach().contiguous().reshape(-1)
    return bytes(flat.view(torch.uint8).numpy().tobytes()) if flat.numel() else b""


def of(tensor):
    raw = raw_of(tensor)
    if tensor.dtype not in NAMES:
        return entry("RAW", [len(raw)], raw)
    return entry(NAMES[tensor.dtype], tensor.shape, raw)


def of_array(array):
    kind = array.dtype
    name = {"f": "FP", "i": "INT", "u": "UINT", "b": "BOOL"}.get(kind.kind)
    if name is None or kind.byteorder == ">":
        return entry("RAW", [array.nbytes], array.tobytes())
    dtype = "BOOL" if name == "BOOL" else f"{name}{8 * kind.itemsize}"
    if array.flags.f_contiguous and not array.flags.c_contiguous:
        return entry(dtype, [array.size], array.tobytes(order="F"))
    return entry(dtype, array.shape, array.tobytes())


# ---- torch ----

torch.manual_seed(7)


def storage_of(tensor):
    """The whole storage as a flat tensor."""
    flat = torch.empty(0, dtype=tensor.dtype)
    return flat.set_(tensor.untyped_storage())


def torch_state():
    base = torch.randn(6, 4)
    tied = torch.randn(5, 3)
    state = {
        "layer.weight": torch.randn(3, 4),
        "layer.bias": torch.randn(3).bfloat16(),
        "half": torch.randn(2, 2).half(),
        "double": torch.randn(2).double(),
        "steps": torch.tensor(7),
        "mask": torch.tensor([True, False, True]),
        "small": torch.arange(-3, 3, dtype=torch.int8),
        "wide": torch.arange(5).to(torch.uint16),
        "eight": torch.randn(4).to(torch.float8_e4m3fn),
        "complex": torch.randn(2, dtype=torch.complex64),
        "empty": torch.empty(0, 4),
        "one": torch.randn(1, 1, 3),
        "tied.in": tied,
        "tied.out": tied,
        "turned": torch.randn(3, 2).t(),
        "slice.first": base[:2],
        "slice.rest": base[2:],
        "parameter": torch.nn.Parameter(torch.randn(2, 3)),
    }
    wanted = {
        name: of(tensor)
        for name, tensor in state.items()
        if name not in ("tied.out", "turned", "slice.first", "slice.rest", "empty")
    }
    wanted["empty"] = entry("FP32", [0, 4], b"")
    wanted["turned"] = of(storage_of(state["turned"]))
    wanted["slice.first"] = of(storage_of(base))
    return state, wanted


def torch_checkpoint():
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(5, 4)).sum().backward()
    optimizer.step()
    whole = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "losses": [torch.tensor([0.5, 0.25])],
    }
    wanted = {f"model.{name}": of(each) for name, each in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        for name, each in state.items():
            wanted[f"optimizer.state.{index}.{name}"] = of(each)
    wanted["losses.0"] = of(whole["losses"][0])
    return whole, wanted


def make_torch():
    state, wanted = torch_state()
    for protocol in (2, 4):
        name = f"state-{protocol}.pt"
        torch.save(state, HERE / name, pickle_protocol=protocol)
        expected[name] = {"kind": "torch-zip", "tensors": wanted}
    whole, wanted = torch_checkpoint()
    torch.save(whole, HERE / "checkpoint.pt")
    expected["checkpoint.pt"] = {"kind": "torch-zip", "tensors": wanted}
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    torch.save(module, HERE / "module.pt")
    wanted = {name: of(each) for name, each in module.state_dict().items()}
    expected["module.pt"] = {"kind": "torch-zip", "tensors": wanted}
    scripted = torch.jit.script(torch.nn.Linear(3, 2))
    torch.jit.save(scripted, HERE / "script.pt")
    wanted = {name: of(each) for name, each in scripted.state_dict().items()}
    expected["script.pt"] = {"kind": "torch-zip", "tensors": wanted}


def check_torch():
    for name, each in expected.items():
        if each["kind"] != "torch-zip" or name == "script.pt":
            continue
        found = torch.load(HERE / name, weights_only=False)
        if name.startswith("state"):
            for key, wanted in each["tensors"].items():
                if key not in ("turned", "slice.first"):
                    assert of(found[key]) == wanted, key
            assert of(storage_of(found["turned"])) == each["tensors"]["turned"]
            assert of(storage_of(found["slice.rest"])) == each["tensors"]["slice.first"]
            assert found["turned"].untyped_storage().nbytes() == 24


# ---- gguf ----


def make_gguf():
    name = "small.gguf"
    writer = gguf.GGUFWriter(HERE / name, "llama")
    writer.add_custom_alignment(64)
    writer.add_name("small")
    writer.add_float32("a.float", 0.5)
    writer.add_bool("a.bool", val=True)
    writer.add_token_list(["<s>", "a", "b", "long token " * 5])
    writer.add_token_scores([0.0, 1.0, 2.0, 3.0])
    rng = np.random.default_rng(7)
    plain = rng.standard_normal((4, 64), dtype=np.float32)
    wanted = {}
    for key, array in {
        "f32": plain,
        "f16": plain.astype(np.float16),
        "f64": plain[0].astype(np.float64),
        "i8": np.arange(-8, 8, dtype=np.int8),
        "i32": np.arange(6, dtype=np.int32).reshape(2, 3),
    }.items():
        writer.add_tensor(key, array)
        wanted[key] = of_array(array)
    bf16 = gguf.quants.quantize(plain, gguf.GGMLQuantizationType.BF16)
    writer.add_tensor("bf16", bf16, raw_dtype=gguf.GGMLQuantizationType.BF16)
    wanted["bf16"] = entry("BF16", plain.shape, bf16.tobytes())
    for kind in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"):
        packed = gguf.quants.quantize(plain, gguf.GGMLQuantizationType[kind])
        writer.add_tensor(kind.lower(), packed, raw_dtype=gguf.GGMLQuantizationType[kind])
        wanted[kind.lower()] = entry("RAW", packed.shape, packed.tobytes())
    for kind in ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS", "TQ1_0"):
        block_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][1]
        packed = rng.integers(0, 256, (2, block_bytes), dtype=np.uint8)
        writer.add_tensor(kind.lower(), packed, raw_dtype=gguf.GGMLQuantizationType[kind])
        wanted[kind.lower()] = entry("RAW", packed.shape, packed.tobytes())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    expected[name] = {"kind": "gguf", "tensors": wanted}


def check_gguf():
    reader = gguf.GGUFReader(HERE / "small.gguf")
    wanted = expected["small.gguf"]["tensors"]
    assert {each.name for each in reader.tensors} == set(wanted)
    for each in reader.tensors:
        raw = each.data.tobytes()
        assert hashlib.sha256(raw).hexdigest() == wanted[each.name]["sha256"], each.name
        assert each.n_bytes == wanted[each.name]["bytes"]
    table = {kind.name: [int(kind), *sizes] for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    (HERE / "gguf-types.json").write_text(json.dumps(table, indent=1) + "\n")


# ---- numpy ----


def make_numpy():
    grid = np.arange(24, dtype=np.float32).reshape(4, 6)
    arrays = {
        "float.npy": grid,
        "fortran.npy": np.asfortranarray(grid),
        "big.npy": grid.astype(">f4"),
        "flags.npy": np.array([True, False]),
        "scalar.npy": np.array(3, dtype=np.int64),
        "bytes.npy": np.arange(9, dtype=np.uint8),
        "complex.npy": np.array([1 + 2j], dtype=np.complex64),
        "text.npy": np.array(["a", "bc"]),
        "empty.npy": np.zeros((0, 3), dtype=np.float16),
    }
    for name, array in arrays.items():
        np.save(HERE / name, array)
        expected[name] = {"kind": "npy", "tensors": {"array": of_array(array)}}
    for version in (2, 3):
        name = f"version-{version}.npy"
        with (HERE / name).open("wb") as file:
            np.lib.format.write_array(file, grid, version=(version, 0))
        expected[name] = {"kind": "npy", "tensors": {"array": of_array(grid)}}
    np.save(HERE / "records.npy", np.zeros(2, dtype=[("a", "<i4"), ("b", "<f8")]))
    np.save(HERE / "objects.npy", np.array([None, 1], dtype=object), allow_pickle=True)
    for name in ("records.npy", "objects.npy"):
        expected[name] = {"kind": "npy", "tensors": {}}
    many = {"weight": grid, "bias": np.arange(3.0), "deep/step": np.array(1, dtype=np.int32)}
    np.savez(HERE / "stored.npz", **many)
    wanted = {name: of_array(array) for name, array in many.items()}
    expected["stored.npz"] = {"kind": "zip", "tensors": wanted}
    np.savez_compressed(HERE / "packed.npz", **many)
    expected["packed.npz"] = {"kind": "zip", "tensors": {}}


def check_numpy():
    for name, each in expected.items():
        if each["kind"] == "npy" and each["tensors"]:
            assert of_array(np.load(HERE / name)) == each["tensors"]["array"], name
    with np.load(HERE / "stored.npz") as found:
        for key, wanted in expected["stored.npz"]["tensors"].items():
            assert of_array(found[key]) == wanted


# ---- onnx and safetensors ----


def onnx_model():
    rng = np.random.default_rng(8)
    arrays = {
        "w": rng.standard_normal((16, 8), dtype=np.float32),
        "h": rng.standard_normal((8, 8)).astype(np.float16),
        "i": np.arange(64, dtype=np.int64),
    }
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    ports = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 16])]
    outs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 8])]
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "small", ports, outs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    return model, {name: of_array(array) for name, array in arrays.items()}


def make_onnx():
    model, wanted = onnx_model()
    onnx.save(model, HERE / "inline.onnx")
    expected["inline.onnx"] = {"kind": "onnx", "tensors": wanted}
    (HERE / "external").mkdir(exist_ok=True)
    (HERE / "external" / "weights.bin").unlink(missing_ok=True)
    onnx.save_model(
        model,
        HERE / "external" / "model.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    expected["external/model.onnx"] = {"kind": "onnx", "tensors": {}}
    expected["external/weights.bin"] = {"kind": "unknown", "tensors": wanted}


def check_onnx():
    for name in ("inline.onnx", "external/model.onnx"):
        found = onnx.load(HERE / name)
        for tensor in found.graph.initializer:
            wanted = expected["inline.onnx"]["tensors"][tensor.name]
            assert of_array(numpy_helper.to_array(tensor)) == wanted


def make_safetensors():
    shards = [
        {"a": torch.randn(4, 4).bfloat16(), "b": torch.randn(3)},
        {"c": torch.randn(2, 2, 2).half(), "d": torch.arange(5), "e": torch.empty(0)},
    ]
    weight_map = {}
    for index, shard in enumerate(shards, start=1):
        name = f"shards/model-{index:05}-of-00002.safetensors"
        (HERE / "shards").mkdir(exist_ok=True)
        safetensors.torch.save_file(shard, HERE / name, metadata={"format": "pt"})
        wanted = {key: of(tensor) for key, tensor in shard.items()}
        expected[name] = {"kind": "safetensors", "tensors": wanted}
        weight_map |= dict.fromkeys(shard, Path(name).name)
    index = {"metadata": {}, "weight_map": weight_map}
    path = HERE / "shards" / "model.safetensors.index.json"
    path.write_text(json.dumps(index, indent=1) + "\n")


def main():
    make_torch()
    make_gguf()
    make_numpy()
    make_onnx()
    make_safetensors()
    check_torch()
    check_gguf()
    check_numpy()
    check_onnx()
    (HERE / "expected.json").write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
