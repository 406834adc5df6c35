"""The process that asks models one question: warm, without rights, a child for every model.

It is started by whoever admits models, over a pair of sockets that nobody else can reach, and ends
when its socket does. Order:
 1. the runtime is loaded: later nothing can be opened any more;
 2. it gives up root, network and capabilities, for itself and all its children;
 3. for each model that comes as a descriptor it forks; the child maps the model, is locked in as a
    replica is (or says that this machine cannot), and only then loads it and asks;
 4. the child's answer goes on undecoded; a child that ends otherwise, says too much or takes too
    long is killed, and that is what is said of its model.

`python -m modelkeep.workers.trial --fd N`
"""

from __future__ import annotations

import argparse
import gc
import os
import select
import signal
import socket
import sys
import time
import warnings
from contextlib import suppress

import numpy as np

import modelkeep.adapters.runtime_onnx  # noqa: F401 - step 1: what a child cannot load any more
from modelkeep.adapters.replica_sandbox import trial_grants, trial_limits
from modelkeep.adapters.sandboxes import this_sandbox
from modelkeep.adapters.trial_process import (
    CLOCK_S_MAX,
    CPU_S_MAX,
    TrialAsk,
    TrialReply,
    TrialTensor,
)
from modelkeep.adapters.worker_process import LENGTH_BYTES, MESSAGE_BYTES_MAX, received
from modelkeep.core.errors import KeepError, UnavailableError
from modelkeep.core.record import to_msgpack
from modelkeep.kernels.arrays import NUMPY_BY_DTYPE
from modelkeep.ports.sandbox import Grants, Sandbox
from modelkeep.wiring import open_runtime

EXIT_CRASHED = 70
_READ_BYTES = 1 << 20
_FAILURE_CHARS_MAX = 4096


def main(arguments: list[str] | None = None) -> int:
    """Serve until the parent is gone."""
    parser = argparse.ArgumentParser(prog="modelkeep trial")
    parser.add_argument("--fd", type=int, required=True)
    options = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):  # it ends with its parent, not before
        signal.signal(number, signal.SIG_IGN)
    # The runtime has a thread of its own, which waits and holds no lock of Python's.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    gc.freeze()
    sandbox = this_sandbox()
    with socket.socket(fileno=options.fd) as parent:
        try:
            sandbox.enclose(Grants())
            while True:
                ask, fd = received(parent, TrialAsk)
                if ask is None:
                    return 0
                said = _asked(sandbox, ask, fd)
                parent.sendall(len(said).to_bytes(LENGTH_BYTES, "big") + said)
        except (ConnectionError, BrokenPipeError):
            return 0  # the parent is gone
        except (KeepError, OSError) as error:
            sys.stderr.write(f"modelkeep trial: {error}\n")
            return EXIT_CRASHED


def _asked(sandbox: Sandbox, ask: TrialAsk, fd: int) -> bytes:
    """Fork a child for a model; what it says, or what became of it."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _answer(sandbox, ask, fd, writing)
        except BaseException:  # noqa: BLE001 - a child's end: its parent says that it failed
            os._exit(EXIT_CRASHED)
        os._exit(0)
    os.close(writing)
    os.close(fd)
    said, until_s, why = bytearray(), time.monotonic() + CLOCK_S_MAX, ""
    while not why:
        ready, _, _ = select.select([reading], [], [], max(0.0, until_s - time.monotonic()))
        part = os.read(reading, _READ_BYTES) if ready else b""
        said += part
        if not ready:
            why = "it took too long by the clock"
        elif len(said) > MESSAGE_BYTES_MAX - LENGTH_BYTES:
            why = "its answer is too long"
        elif not part:
            break
    os.close(reading)
    if why:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    _, ended = os.waitpid(pid, 0)
    status = os.waitstatus_to_exitcode(ended)
    if not why and status == 0:
        return bytes(said)
    if status in (-signal.SIGXCPU, -signal.SIGKILL):
        why = why or f"it took over {CPU_S_MAX} s of processor time"
    return to_msgpack(TrialReply(failure=why or f"its process ended with status {status}"))


def _answer(sandbox: Sandbox, ask: TrialAsk, fd: int, writing: int) -> None:
    """The child: map, be locked in, load, ask, say."""
    try:
        runtime = open_runtime(
            fd,
            schema=ask.schema,
            threads=1,
            lock_in=lambda size: sandbox.lock_in(
                trial_limits(size, cpu_s=CPU_S_MAX), trial_grants(writing)
            ),
        )
        inputs = {
            each.name: np.array(each.values, NUMPY_BY_DTYPE[each.dtype]).reshape(each.shape)
            for each in ask.inputs
        }
        answers = runtime.answer(inputs)
        reply = TrialReply(
            outputs=tuple(
                TrialTensor(
                    name=port.name,
                    dtype=port.dtype,
                    shape=answers[port.name].shape,
                    raw=np.ascontiguousarray(
                        answers[port.name], NUMPY_BY_DTYPE[port.dtype]
                    ).tobytes(),
                )
                for port in ask.schema.outputs
                if port.dtype in NUMPY_BY_DTYPE
            )
        )
    except KeepError as error:
        is_ours = isinstance(error, UnavailableError) and error.code.startswith("sandbox.")
        reply = TrialReply(failure=error.message[:_FAILURE_CHARS_MAX], is_ours=is_ours)
    view = memoryview(to_msgpack(reply))
    while view:
        view = view[os.write(writing, view) :]


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)  # nothing is left to be done
