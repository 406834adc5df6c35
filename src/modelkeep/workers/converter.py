"""The process that turns one model into ONNX, and compares what both say.

It is started for one model, over a pair of sockets that nobody else can reach. Order:
 1. it gives up network, namespaces and capabilities; it stays the user that it is, for the
    framework lies where that user installed it;
 2. the framework is imported;
 3. it is locked in: from then on it opens nothing for writing, and for reading only what Python
    imports from, a few facts about the machine, and the model; no socket, no process, so much
    memory, so much time;
 4. the model is loaded and converted, and both forms answer the same inputs;
 5. where they agree the ONNX model is written into the memory file, and said.

`python -m modelkeep.workers.converter --fd N`
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import warnings
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from modelkeep.adapters.conversion_process import (
    OUTPUT_BYTES_MAX,
    TEXT_CHARS_MAX,
    ConversionAsk,
    ConversionReply,
)
from modelkeep.adapters.sandboxes import this_sandbox
from modelkeep.adapters.worker_process import framed, received
from modelkeep.core.errors import KeepError
from modelkeep.kernels.agreement import ROWS, Agreement, compared, drawn
from modelkeep.kernels.arrays import Array
from modelkeep.ports.sandbox import CALLS, DESCRIPTORS, LIMITS, PRIVILEGES, Grants, Limits

# What loads a model, and what converts it: modules of the adapters.
_STEPS = {
    "sklearn": ("conversion_joblib.pickled_estimator", "conversion_skl2onnx.converted_estimator"),
    "skops": ("conversion_skops.skops_estimator", "conversion_skl2onnx.converted_estimator"),
    "keras": ("conversion_keras.keras_model", "conversion_tf2onnx.converted_function"),
    "savedmodel": ("conversion_tensorflow.saved_model", "conversion_tf2onnx.converted_function"),
}
_SURROUNDINGS = {
    "CUDA_VISIBLE_DEVICES": "",
    "KERAS_BACKEND": "tensorflow",
    "KERAS_HOME": "/nonexistent",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
_READABLE = (
    *("/dev/random", "/dev/urandom", "/proc/cpuinfo", "/proc/meminfo", "/proc/self"),
    "/sys/devices/system/cpu",
)
_DESCRIPTORS_MAX = 1024
_THREADS_MAX = 4096


def main(arguments: list[str] | None = None) -> int:
    """Convert one model."""
    parser = argparse.ArgumentParser(prog="modelkeep converter")
    parser.add_argument("--fd", type=int, required=True)
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    os.environ.update(_SURROUNDINGS)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # frameworks greet; what fails is said otherwise
    with socket.socket(fileno=options.fd) as parent:
        ask, memory = received(parent, ConversionAsk)
        if ask is None:
            return 0
        try:
            reply = _converted(ask, memory, parent.fileno())
        except KeepError as error:
            reply = ConversionReply(code=error.code, text=error.message[:TEXT_CHARS_MAX])
        except Exception as error:  # noqa: BLE001 - what libraries raise of models they do not know
            text = f"{type(error).__name__}: {error}".encode("utf-8", "replace").decode()
            reply = ConversionReply(code="conversion.failed", text=text[:TEXT_CHARS_MAX])
        _write(parent.fileno(), framed(reply))
    return 0


def _converted(ask: ConversionAsk, memory: int, parent: int) -> ConversionReply:
    sandbox = this_sandbox()
    demanded = (PRIVILEGES, LIMITS, DESCRIPTORS, CALLS) if sys.platform == "linux" else ()
    readable = (sys.prefix, sys.base_prefix, *sys.path, *_READABLE, ask.path)
    grants = Grants(
        descriptors=(parent, memory),
        readable=tuple(dict.fromkeys(each for each in readable if each and Path(each).exists())),
        threads=True,
        executable=True,
        user=os.geteuid(),
        demanded=demanded,
    )
    limits = Limits(
        memory_bytes=ask.memory_bytes,
        cpu_s=ask.cpu_s,
        file_bytes=OUTPUT_BYTES_MAX,
        descriptors=_DESCRIPTORS_MAX,
        processes=_THREADS_MAX,
    )
    sandbox.enclose(grants)
    load, convert = (_step(each) for each in _STEPS[ask.framework])
    runtime = import_module("onnxruntime")
    measures = sandbox.lock_in(limits, grants)
    model = load(ask.path)
    raw, ports, answer = convert(*model) if isinstance(model, tuple) else convert(model)
    session = _session(runtime, raw)
    numbers, labels, largest = 0, 0, 0.0
    for rows in ROWS:
        inputs = drawn(ports, rows, seed=ask.seed)
        found = compared(answer(inputs), _said(session, inputs), rtol=ask.rtol, atol=ask.atol)
        numbers, labels, largest = numbers + found[0], labels + found[1], max(largest, found[2])
    _write(memory, raw)
    agreement = Agreement(
        rows=ROWS,
        seed=ask.seed,
        numbers=numbers,
        labels=labels,
        largest=largest,
        rtol=ask.rtol,
        atol=ask.atol,
    )
    off = tuple(each.name for each in measures if not each.is_on)
    return ConversionReply(agreement=agreement, unsheltered=off)


def _step(name: str) -> Any:
    module, _, function = name.partition(".")
    return getattr(import_module(f"modelkeep.adapters.{module}"), function)


def _write(fd: int, raw: bytes) -> None:
    """By `write`: what else sends on a socket is forbidden by now."""
    view = memoryview(raw)
    while view:
        view = view[os.write(fd, view) :]


def _session(runtime: Any, raw: bytes) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return runtime.InferenceSession(raw, options, providers=["CPUExecutionProvider"])


def _said(session: Any, inputs: Mapping[str, Array]) -> list[Array]:
    """What the ONNX model says; its inputs stand in the order of the model's own."""
    names = [each.name for each in session.get_inputs()]
    given = inputs if set(names) == set(inputs) else dict(zip(names, inputs.values(), strict=True))
    return list(session.run(None, dict(given)))


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)  # nothing is left to be done, and a framework's threads do not end
