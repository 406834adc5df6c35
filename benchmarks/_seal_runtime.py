"""From a sealed memory file into NumPy, PyTorch and ONNX Runtime: copies, seconds, answers.

Each way runs in a fresh process that is given the memory file's descriptor. A copy is private
memory (RssAnon) that the process did not have before the load, as a part of the model's size:
`rest` after the first calls, `peak` at the most, sampled every 10 ms. The pages of the memory file
itself are there once, whoever maps them, and are not counted.

ONNX Runtime is given the model in three ways: `whole` (bytes, as anybody would), `ours`, and
`unpacked` (ours, but kernels may not pack weights): why packing stays on. Four replicas are four
processes over one memory file; PSS divides what they share.

Run alone as `python benchmarks/_seal_runtime.py`; it is a part of `./run bench seal`.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import mmap
import os
import re
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from _vault_measure import Watch

MIB = 1024 * 1024
FULL_BYTES, QUICK_BYTES = 512 * MIB, 64 * MIB
SOURCE = Path(__file__).resolve().parent.parent / "src"
ROUNDS = 5
REPLICAS = 4
WAYS = ("whole", "ours", "unpacked")
MODELS = ("matmul", "gemm", "conv", "gather", "gather odd")
WIDTH, CHANNELS, COLUMNS = 2048, 512, 1024
BATCHES = {"matmul": (1, 8, 64), "gemm": (1, 8, 64), "conv": (1,), "gather": (64,)}


def measure(python_torch: Path | None = None, *, is_quick: bool = False) -> dict[str, Any]:
    """Load every model in every way.

    Args:
        python_torch: of an environment with PyTorch; without one its row is missing.
    """
    size_bytes = QUICK_BYTES if is_quick else FULL_BYTES
    found: dict[str, Any] = {"size_bytes": size_bytes, "onnx": {}, "views": {}, "replicas": {}}
    for name in MODELS:
        with memory_file(name, size_bytes) as fd:
            rows = {way: loaded(sys.executable, way, name, fd) for way in WAYS}
            if rows["whole"]["answers"] != rows["ours"]["answers"]:
                raise AssertionError(f"{name}: the answers differ from those of the whole model")
            found["onnx"][name] = rows
            if name in ("matmul", "gather"):
                found["replicas"][name] = {way: replicas(way, name, fd) for way in WAYS}
    with memory_file("safetensors", size_bytes) as fd:
        for way, python in (("numpy", sys.executable), ("torch", python_torch)):
            if python is not None:
                found["views"][way] = loaded(str(python), way, "safetensors", fd)
    return found


def show(found: dict[str, Any]) -> None:
    """Print the table."""
    size = found["size_bytes"]
    print(f"\nfrom a sealed memory file of {size / 1e6:.0f} MB; copies of it in private memory\n")
    print(f"  {'':22}{'peak':>7}{'rest':>7}{'load':>11}   call, by batch")
    rows = {f"ONNX {n}, {way}": r for n, each in found["onnx"].items() for way, r in each.items()}
    for name, row in {**rows, **found["views"]}.items():
        peak, rest = row["peak_bytes"] / size, row["rest_bytes"] / size
        calls = "  ".join(f"{batch}: {ms:.2f} ms" for batch, ms in row.get("call_ms", {}).items())
        took_ms = 1e3 * row["seconds"]
        print(f"  {name:22}{peak:7.2f}{rest:7.2f}{took_ms:8.0f} ms   {calls}")
    print(f"\n  {REPLICAS} replicas over one memory file, all memory / size of the model\n")
    for name, each in found["replicas"].items():
        said = "  ".join(f"{way} {row['pss_bytes'] / size:.2f}" for way, row in each.items())
        print(f"  {name:22}{said}")


# ---- models --------------------------------------------------------------------------------------


def made_onnx(name: str, size_bytes: int) -> bytes:
    """A model of that size: layers of one kind with random weights."""
    random = np.random.default_rng(20_261_121)
    if name == "conv":
        shape: tuple[int, ...] = (CHANNELS, CHANNELS, 3, 3)
    elif name.startswith("gather"):
        shape = (size_bytes // COLUMNS // 4, COLUMNS)
    else:
        shape = (WIDTH, WIDTH)
    layers = max(size_bytes // 4 // int(np.prod(shape)), 1)
    scale = np.float32(1 / np.sqrt(np.prod(shape[1:])))
    weights = [scale * random.standard_normal(shape, dtype=np.float32) for _ in range(layers)]
    if not name.startswith("gather"):
        return stacked(name, weights)
    for title in ("g", "gg", "ggg", "gggg"):  # the longer it is, the later the data begins
        raw = stacked(name, weights, title=title)
        at = raw.index(weights[0][:1].tobytes())
        if at % 4 == (1 if name == "gather odd" else 0):
            return raw
    raise AssertionError("no title helps")


def stacked(name: str, weights: list[Any], *, title: str = "g") -> bytes:
    """The file: one node over another."""
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415

    forms = {"matmul": ("b", WIDTH), "gemm": ("b", WIDTH), "conv": ("b", CHANNELS, 14, 14)}
    kind = name.partition(" ")[0]
    operator = {"matmul": "MatMul", "gemm": "Gemm", "conv": "Conv", "gather": "Gather"}[kind]
    extra: dict[str, Any] = {"conv": {"pads": [1] * 4}, "gemm": {"transB": 1}}.get(kind, {})
    nodes, last = [], "x"
    for at in range(len(weights)):
        taken = [f"w{at}", last] if kind == "gather" else [last, f"w{at}"]
        nodes.append(helper.make_node(operator, taken, [f"y{at}"], **extra))
        last = f"y{at}"
    element = TensorProto.INT64 if kind == "gather" else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        title,
        [helper.make_tensor_value_info("x", element, forms.get(kind, ("b",)))],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(each, f"w{at}") for at, each in enumerate(weights)],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    raw = made.SerializeToString()
    assert isinstance(raw, bytes)
    return raw


def made_safetensors(size_bytes: int) -> bytes:
    """A file of sixteen bf16 matrices."""
    each = size_bytes // 16
    header = {
        f"layer{at}": {
            "dtype": "BF16",
            "shape": [each // 2 // COLUMNS, COLUMNS],
            "data_offsets": [at * each, (at + 1) * each],
        }
        for at in range(16)
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    piece = np.random.default_rng(1).integers(0, 0x4000, each // 2, np.uint16).tobytes()
    return len(text).to_bytes(8, "little") + text + 16 * piece


@contextmanager
def memory_file(name: str, size_bytes: int) -> Iterator[int]:
    """A model in a sealed memory file; made in a process of its own, whose memory goes with it."""
    ours, its = socket.socketpair()
    with ours, its:
        words = [sys.executable, __file__, "--make", name, str(size_bytes), str(its.fileno())]
        subprocess.run(words, check=True, pass_fds=[its.fileno()])
        _, (fd,), *_ = socket.recv_fds(ours, 1, 1)
    try:
        yield fd
    finally:
        os.close(fd)


def make(name: str, size_bytes: int, target: int) -> None:
    """Make a model and send its memory file."""
    from modelkeep.adapters.memory_file import sealed_bytes  # noqa: PLC0415

    is_onnx = name != "safetensors"
    raw = made_onnx(name, size_bytes) if is_onnx else made_safetensors(size_bytes)
    with socket.socket(fileno=target) as its:
        socket.send_fds(its, [b"."], [sealed_bytes("model", raw)])


# ---- processes -----------------------------------------------------------------------------------


def loaded(python: str, way: str, name: str, fd: int) -> dict[str, Any]:
    """Load once in a fresh process that is watched."""
    with started(python, way, name, fd) as process:
        before = json.loads(line_of(process))
        with Watch(process.pid) as watch:
            tell(process)
            row: dict[str, Any] = json.loads(line_of(process))
        row["rest_bytes"] = row.pop("own_bytes") - before
        row["peak_bytes"] = max(watch.anonymous_bytes - before, row["rest_bytes"])
    return row


def replicas(way: str, name: str, fd: int) -> dict[str, int]:
    """Load in some processes that live at once: what they take together."""
    with ExitStack() as stack:
        crowd = [
            stack.enter_context(started(sys.executable, way, name, fd)) for _ in range(REPLICAS)
        ]
        before = sum(json.loads(line_of(each)) for each in crowd)
        for each in crowd:  # one after the other: two cores
            tell(each)
            line_of(each)
        found = [memory_of(each.pid) for each in crowd]
    # The memory file is there whole, also what of it nobody has mapped.
    return {
        "pss_bytes": sum(own for own, _ in found) - before + os.fstat(fd).st_size,
        "private_bytes": sum(own for own, _ in found) - before,
        "mapped_pss_bytes": sum(shared for _, shared in found),
    }


@contextmanager
def started(python: str, way: str, name: str, fd: int) -> Iterator[subprocess.Popen[str]]:
    """A child that says when it is warm, waits for a line, loads, and waits for another."""
    words = [python, __file__, "--child", way, name, str(fd)]
    # What modelkeep needs itself comes from here; PyTorch's environment need not have it.
    path = os.pathsep.join([str(SOURCE), *(each for each in sys.path if "site-packages" in each)])
    process = subprocess.Popen(
        words, pass_fds=[fd], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    try:
        yield process
    finally:
        process.communicate()


def tell(process: subprocess.Popen[str]) -> None:
    """Let a child go on."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def line_of(process: subprocess.Popen[str]) -> str:
    """What a child says next."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{process.args} ended with {process.wait()}")
    return line


def memory_of(pid: int) -> tuple[int, int]:
    """Private anonymous memory of a process, and its part of what it shares of memory files."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    shared = re.search(r"^Pss_Shmem:\s+(\d+)", rollup, re.MULTILINE)
    return own_bytes(pid), int(shared[1]) * 1024 if shared else 0


def own_bytes(pid: int | str = "self") -> int:
    """Private anonymous memory of a process."""
    found = re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


# ---- in the child --------------------------------------------------------------------------------


def child(way: str, name: str, fd: int) -> None:
    """Load in one way and say what it took."""
    load = {"numpy": by_views, "torch": by_views}.get(way, by_runtime)(way, name)
    load(small_of(way))  # libraries are there and warm
    gc.collect()
    say(own_bytes())
    sys.stdin.readline()
    started_s = time.perf_counter()
    use = load(fd)
    seconds = time.perf_counter() - started_s
    found = use()
    say({"seconds": seconds, "own_bytes": own_bytes(), **found})
    sys.stdin.readline()


def say(what: Any) -> None:
    """One line of JSON."""
    print(json.dumps(what), flush=True)


def small_of(way: str) -> int:
    """A small model for the same way."""
    raw = made_safetensors(32 * 1024) if way in ("numpy", "torch") else SMALL_ONNX
    fd = os.memfd_create("small")
    os.write(fd, raw)
    return fd


# y = x, as an ONNX file: loads the runtime.
SMALL_ONNX = (
    b'\x08\t:9\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x10\n\x01x\x12\x0b\n\t\x08\x01\x12\x05\n\x03'
    b"\x12\x01bb\x10\n\x01y\x12\x0b\n\t\x08\x01\x12\x05\n\x03\x12\x01bB\x04\n\x00\x10\x11"
)

Load = Callable[[int], Callable[[], dict[str, Any]]]


def by_views(way: str, _: str) -> Load:
    """NumPy or torch: all tensors, then a sum over each."""

    def load(fd: int) -> Callable[[], dict[str, Any]]:
        from modelkeep.core.artifact import TensorEntry  # noqa: PLC0415
        from modelkeep.core.digest import Digest  # noqa: PLC0415
        from modelkeep.kernels.safetensors import safetensors_layout  # noqa: PLC0415

        raw = memoryview(mmap.mmap(fd, os.fstat(fd).st_size, prot=mmap.PROT_READ))
        entries = [
            TensorEntry(each.name, each.dtype, each.shape, each.offset, each.length, Digest(""))
            for each in safetensors_layout(raw).tensors
        ]
        if way == "torch":
            from modelkeep.adapters.torch_views import torch_tensors  # noqa: PLC0415

            views: dict[str, Any] = torch_tensors(raw, entries)
        else:
            from modelkeep.kernels.tensor_views import views as numpy_views  # noqa: PLC0415

            views = dict(numpy_views(raw, entries))

        def use() -> dict[str, Any]:
            return {"answers": str([each.max().item() for each in views.values()])}

        return use

    return load


def by_runtime(way: str, name: str) -> Load:
    """ONNX Runtime, then calls of several batches."""
    import onnxruntime  # noqa: PLC0415

    from modelkeep.adapters import runtime_onnx  # noqa: PLC0415
    from modelkeep.core.artifact import Schema  # noqa: PLC0415

    options_of = runtime_onnx._options  # noqa: SLF001 - the same options, but for one

    def unpacked(*words: Any, **named: Any) -> Any:
        options = options_of(*words, **named)
        options.add_session_config_entry("session.disable_prepacking", "1")
        return options

    if way == "unpacked":
        runtime_onnx._options = unpacked  # noqa: SLF001

    def load(fd: int) -> Callable[[], dict[str, Any]]:
        if way == "whole":
            kept = None
            with mmap.mmap(fd, os.fstat(fd).st_size, prot=mmap.PROT_READ) as mapped:
                session = onnxruntime.InferenceSession(
                    mapped[:], options_of((), (), threads=1), providers=["CPUExecutionProvider"]
                )
        else:
            schema = Schema(inputs=(), outputs=())
            kept = runtime_onnx.runtime_of_fd(fd, schema=schema, threads=1)
            session = kept._session  # noqa: SLF001

        def use() -> dict[str, Any]:
            return called(session, name, kept)

        return use

    return load


def called(session: Any, name: str, _kept: object) -> dict[str, Any]:
    """Medians of a few calls per batch, and a digest of all answers; `_kept` lives as long."""
    port = session.get_inputs()[0]
    random = np.random.default_rng(7)
    digest, took = hashlib.sha256(), {}
    for batch in BATCHES[name.partition(" ")[0]]:
        shape = (batch, *port.shape[1:])
        rows = (
            random.integers(0, QUICK_BYTES // COLUMNS // 4, shape)
            if "int64" in port.type
            else random.standard_normal(shape, dtype=np.float32)
        )
        digest.update(session.run(None, {port.name: rows})[0].tobytes())
        times = []
        for _ in range(ROUNDS):
            started_s = time.perf_counter()
            session.run(None, {port.name: rows})
            times.append(time.perf_counter() - started_s)
        took[batch] = 1e3 * statistics.median(times)
    return {"answers": digest.hexdigest(), "call_ms": took}


def main() -> int:
    """Measure and print; or be the child of such a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="an eighth of the size")
    parser.add_argument("--torch", type=Path, help="the Python of an environment with PyTorch")
    parser.add_argument("--make", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make(options.make[0], *map(int, options.make[1:]))
        return 0
    if options.child:
        child(*options.child[:2], int(options.child[2]))
        return 0
    show(measure(options.torch, is_quick=options.quick))
    return 0


if __name__ == "__main__":
    sys.exit(main())
