"""ONNX Runtime on the CPU, from the bytes of a sealed memory file."""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping

import onnxruntime

from modelkeep.core.artifact import Schema
from modelkeep.core.errors import IntegrityError, UnavailableError
from modelkeep.kernels.arrays import Array

_LOG_FATAL_ONLY = 4


class OnnxRuntime:
    """One ONNX model; single-threaded use."""

    def __init__(self, model: bytes, *, schema: Schema, threads: int) -> None:
        onnxruntime.disable_telemetry_events()
        onnxruntime.set_default_logger_severity(_LOG_FATAL_ONLY)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _LOG_FATAL_ONLY
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # The arena keeps the largest batch ever seen and never gives it back; small models gain
        # nothing from it. Spinning workers would burn the cores that the gateway needs.
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                model, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise IntegrityError("runtime.load", f"the model does not load: {error}") from error
        self._outputs = [port.name for port in schema.outputs]

    def answer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        try:
            answers = self._session.run(self._outputs, dict(inputs))
        except Exception as error:
            raise UnavailableError("runtime.failed", f"the model failed: {error}") from error
        return dict(zip(self._outputs, answers, strict=True))


def runtime_of_fd(fd: int, *, schema: Schema, threads: int) -> OnnxRuntime:
    """Load a model from a memory file; no file on disk, and no path for external data.

    Raises:
        IntegrityError: `runtime.load`.
    """
    size_bytes = os.fstat(fd).st_size
    if size_bytes == 0:
        raise IntegrityError("runtime.load", "the model's memory file is empty")
    with mmap.mmap(fd, size_bytes, prot=mmap.PROT_READ) as mapped:
        return OnnxRuntime(mapped[:], schema=schema, threads=threads)
