"""Makes one file of each format with so many bytes of weights: `sized.py FOLDER [BYTES]`.

They are numbers that do not pack: with 10 MB each format that one library can write, of larger
ones the formats of large models.
"""

import os
import pickle
import sys
import warnings
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1"}

import gguf
import joblib
import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from safetensors.numpy import save_file
from sklearn.ensemble import RandomForestClassifier
from sklearn.neural_network import MLPRegressor

MIB = 1024 * 1024
LARGE = 100 * MIB
MESSAGE_BYTES_MAX = 1800 * MIB  # of what one message of protobuf can hold
rng = np.random.default_rng(7)


def main() -> None:
    """Write them."""
    folder = Path(sys.argv[1])
    size = int(sys.argv[2]) if len(sys.argv) > 2 else 10 * MIB
    folder.mkdir(parents=True, exist_ok=True)
    width = 1024 * 16
    parts = [rng.random((size // width // 8 // 4, width), dtype=np.float32) for _ in range(8)]
    named = {f"layer.{number}.weight": part for number, part in enumerate(parts)}
    tensor_files(folder, named, size)
    if size > LARGE:
        np.savez_compressed(folder / "packed.npz", a=parts[0])
        with (folder / "model.pkl").open("wb") as target:
            pickle.dump(named, target, 5)
    else:
        small_files(folder, named)


def tensor_files(folder: Path, named: dict[str, np.ndarray], size: int) -> None:
    """The formats of large models."""
    save_file(named, folder / "model.safetensors")
    torch.save({k: torch.from_numpy(v) for k, v in named.items()}, folder / "model.pt")
    writer = gguf.GGUFWriter(folder / "model.gguf", "llama")
    for name, part in named.items():
        writer.add_tensor(name, part)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if size < MESSAGE_BYTES_MAX:
        nodes = [helper.make_node("Identity", [name], [f"out.{name}"]) for name in named]
        outputs = [helper.make_tensor_value_info(f"out.{name}", 1, None) for name in named]
        weights = [numpy_helper.from_array(part, name) for name, part in named.items()]
        graph = helper.make_graph(nodes, "g", [], outputs, weights)
        onnx.save(helper.make_model(graph), folder / "model.onnx")


def small_files(folder: Path, named: dict[str, np.ndarray]) -> None:
    """The others."""
    state = {k: torch.from_numpy(v) for k, v in named.items()}
    torch.save(state, folder / "old.pt", _use_new_zipfile_serialization=False)
    np.save(folder / "model.npy", np.concatenate(list(named.values())))
    np.savez(folder / "model.npz", **named)
    np.savez_compressed(folder / "packed.npz", **named)
    network = MLPRegressor(hidden_layer_sizes=(512, 384), max_iter=1)
    network.fit(rng.random((8, 256)), rng.random(8))
    (folder / "network.pkl").write_bytes(pickle.dumps(network))
    joblib.dump(network, folder / "network.joblib")
    joblib.dump(network, folder / "network.joblib.gz", compress=("gzip", 3))
    joblib.dump(network, folder / "network.joblib.xz", compress=("xz", 1))
    forest = RandomForestClassifier(90).fit(rng.random((4000, 20)), rng.integers(0, 2, 4000))
    joblib.dump(forest, folder / "forest.joblib")
    (folder / "forest.pkl").write_bytes(pickle.dumps(forest))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
