"""Layouts against the libraries that own the formats: every tensor is found, bit for bit.

`expected.json` was written by torch, gguf, numpy, onnx and safetensors themselves: see
`tests/vectors/layouts/make.py`.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from modelkeep.kernels import ggufs
from modelkeep.kernels.tensors import identify, places_of, tensor_entries, tensor_places

VECTORS = Path(__file__).parents[2] / "vectors" / "layouts"
EXPECTED = json.loads((VECTORS / "expected.json").read_text())


def seen(places, raw):
    """What `expected.json` says of each tensor, from the places."""
    found = {}
    for place in places:
        piece = raw[place.offset : place.offset + place.length]
        assert len(piece) == place.length
        assert place.name not in found
        found[place.name] = {
            "dtype": place.dtype,
            "shape": list(place.shape),
            "bytes": place.length,
            "sha256": hashlib.sha256(piece).hexdigest(),
        }
    return found


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_every_tensor_is_found_as_its_library_sees_it(name):
    raw = (VECTORS / name).read_bytes()
    kind = identify(memoryview(raw))
    assert kind == EXPECTED[name]["kind"]
    if name == "external/weights.bin":
        return  # its tensors are the model's: the next test
    places = tensor_places(name, memoryview(raw), kind)
    assert seen(places, raw) == EXPECTED[name]["tensors"]
    at = 0
    for place in places:
        assert place.offset >= at
        at = place.offset + place.length
    assert at <= len(raw)
    entries = tensor_entries(name, memoryview(raw), kind)
    assert [each.name for each in entries] == [each.name for each in places]


def folder(*names):
    files = {name: memoryview((VECTORS / name).read_bytes()) for name in names}
    return files, {name: identify(view) for name, view in files.items()}


def test_a_folder_shows_the_external_data_of_its_models():
    names = sorted(name for name in EXPECTED if "/" in name)
    names.append("shards/model.safetensors.index.json")
    files, kinds = folder(*names)
    places = places_of(files, kinds)
    for name in names[:-1]:
        assert seen(places[name], bytes(files[name])) == EXPECTED[name]["tensors"]
    assert places["shards/model.safetensors.index.json"] == ()


def test_onnx_itself_reads_the_external_tensors_from_the_same_bytes():
    model = onnx.load(VECTORS / "external" / "model.onnx")
    files, kinds = folder("external/model.onnx", "external/weights.bin")
    raw = bytes(files["external/weights.bin"])
    at = {each.name: each for each in places_of(files, kinds)["external/weights.bin"]}
    for tensor in model.graph.initializer:
        place = at[tensor.name]
        array = onnx.numpy_helper.to_array(tensor)
        assert array.tobytes() == raw[place.offset : place.offset + place.length]


@pytest.mark.parametrize("name", sorted(name for name in EXPECTED if name.endswith(".npy")))
def test_numpy_itself_reads_the_same_array(name):
    raw = (VECTORS / name).read_bytes()
    array = np.load(VECTORS / name, allow_pickle=name == "objects.npy")
    for place in tensor_places(name, memoryview(raw), "npy"):
        order = "F" if np.isfortran(array) else "C"
        assert array.tobytes(order) == raw[place.offset : place.offset + place.length]


def test_the_table_of_blocks_is_the_one_of_the_package_gguf():
    table = json.loads((VECTORS / "gguf-types.json").read_text())
    ours = {name: [kind, *sizes] for kind, (name, *sizes) in ggufs.BLOCKS.items()}
    plain = {size[0]: size[1:] for size in table.values() if size[1] == 1}
    assert plain == {kind: [1, size] for kind, (_, size) in ggufs.PLAIN.items()}
    packed = {name: row for name, row in table.items() if row[1] > 1}
    # ggml-common.h: `block_q8_1` is two halves and 32 items; the package says two floats. Such
    # blocks live in memory only, no file holds them.
    assert packed.pop("Q8_1") == [9, 32, 40]
    assert ours.pop("Q8_1") == [9, 32, 36]
    assert ours == packed
