"""ONNX Runtime on the CPU, from a sealed memory file, with at most one copy of the weights.

Theory of operation. The file is mapped, never read into bytes. `split_onnx` makes a small graph of
it; the large weights go to the runtime as values over the mapped pages.

What the runtime (measured: 1.31) then copies, and why not less:

- While it loads, it copies every weight once, into memory of its own: its optimizers need them.
- A weight that a kernel packs (MatMul, Gemm, Conv) lives on in packed form: that is its one copy.
  Packing stays on: without it answers have other last bits than everybody's, and take up to twice
  as long.
- Of the others (an embedding that is gathered) the copy is given up and the mapped pages are used,
  the same ones in all replicas, if they are aligned to their elements. Where they are not, which is
  a matter of chance in an ONNX file, the runtime keeps its copy: kernels may use instructions that
  trap on a misaligned element.
- Weights whose layout its optimizers change (Conv) are there up to three times while it loads, and
  once afterwards.

`benchmarks/_seal_runtime.py` measures this. The values point into the mapping, so it lives as long
as the session does.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime

from modelkeep.adapters.heap import trimmed
from modelkeep.core.artifact import Schema
from modelkeep.core.errors import IntegrityError, UnavailableError
from modelkeep.kernels.arrays import Array
from modelkeep.kernels.onnx_split import ELEMENT_BYTES, SplitModel, Weight, split_onnx

_LOG_FATAL_ONLY = 4
# Where the runtime looks for external data that nobody gave it: no folder, so nothing is found. By
# default it is the working folder of the process, also for a model that is given as bytes.
_NO_FOLDER = "/dev/null"


class OnnxRuntime:
    """One ONNX model; single-threaded use."""

    def __init__(
        self, model: SplitModel, weights: memoryview, *, schema: Schema, threads: int
    ) -> None:
        onnxruntime.disable_telemetry_events()
        onnxruntime.set_default_logger_severity(_LOG_FATAL_ONLY)
        # Kept: the session points into them and does not own them.
        self._values = [_value(weight, weights) for weight in model.weights]
        options = _options(model.weights, self._values, threads=threads)
        try:
            self._session = onnxruntime.InferenceSession(
                model.graph, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise IntegrityError("runtime.load", f"the model does not load: {error}") from error
        self._outputs = [port.name for port in schema.outputs]
        trimmed()

    def answer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        try:
            answers = self._session.run(self._outputs, dict(inputs))
        except Exception as error:
            raise UnavailableError("runtime.failed", f"the model failed: {error}") from error
        return dict(zip(self._outputs, answers, strict=True))


def runtime_of_fd(
    fd: int,
    *,
    schema: Schema,
    threads: int,
    lock_in: Callable[[int], object] = lambda _size: None,
) -> OnnxRuntime:
    """Load a model from a memory file; no file on disk, and no path for external data.

    The descriptor may be closed afterwards. The file must be sealed: what changes under a runtime
    changes its answers.

    Args:
        lock_in: told the file's size when it is mapped, before its first byte is looked at.

    Raises:
        IntegrityError: `runtime.load`, `onnx.*` or `protobuf.*`.
    """
    size_bytes = os.fstat(fd).st_size
    if size_bytes == 0:
        raise IntegrityError("runtime.load", "the model's memory file is empty")
    view = memoryview(mmap.mmap(fd, size_bytes, prot=mmap.PROT_READ))
    lock_in(size_bytes)
    return OnnxRuntime(split_onnx(view), view, schema=schema, threads=threads)


def _options(weights: Sequence[Weight], values: Sequence[Any], *, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _LOG_FATAL_ONLY
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # The arena keeps the largest batch ever seen and never gives it back; small models gain
    # nothing from it. Spinning workers would burn the cores that the gateway needs.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", _NO_FOLDER
    )
    if weights:
        # Given twice: as the data of what the graph refers to, which the runtime copies for its
        # optimizers, and as the value to use in the end instead of that copy.
        options.add_external_initializers([weight.name for weight in weights], list(values))
    for weight, value in zip(weights, values, strict=True):
        if value.data_ptr() % ELEMENT_BYTES[weight.element_type] == 0:
            options.add_initializer(weight.name, value)
    return options


def _value(weight: Weight, view: memoryview) -> Any:
    """A tensor over the mapped bytes; numpy needs only to know how wide an element is."""
    raw = view[weight.offset : weight.offset + weight.length]
    width = ELEMENT_BYTES[weight.element_type]
    array = np.frombuffer(raw, np.dtype(f"<u{width}")).reshape(weight.shape)
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array, weight.element_type)
