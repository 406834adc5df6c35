"""A process that asks models one question: the near end of the pipe to it, and what goes over it.

The process (`workers.trial`) has loaded the runtime and given up root and network; for each model
it forks a child that is locked in as a replica is, loads the model and answers. A model that takes
its child over can answer for itself, as every model can, and reaches nothing else. Messages are
framed as those of the scanner.
"""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Sequence

from modelkeep.adapters.memory_file import sealed_bytes
from modelkeep.adapters.worker_process import (
    MESSAGE_BYTES_MAX,
    ended,
    framed,
    received,
    started,
)
from modelkeep.core.artifact import CanaryTensor, Port, Schema
from modelkeep.core.errors import IntegrityError, UnavailableError
from modelkeep.core.limits import TENSOR_RANK_MAX
from modelkeep.core.record import Record
from modelkeep.kernels.wire import ELEMENT_BYTES, Tensor, element_count
from modelkeep.ports.scanner import Unjudged

WORKER = "modelkeep.workers.trial"
# Of processor time, from the loading of the model to its answer.
CPU_S_MAX = 120
# By the clock it may take longer, as others use the processor too.
CLOCK_S_MAX = 4 * CPU_S_MAX
TEXT_CHARS_MAX = 300


class TrialAsk(Record, frozen=True):
    """One question; the model's descriptor comes along."""

    schema: Schema
    inputs: tuple[CanaryTensor, ...]


class TrialTensor(Record, frozen=True):
    """One output as the child gave it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    raw: bytes


class TrialReply(Record, frozen=True):
    """What came of it; without outputs, why not.

    Attributes:
        is_ours: the machine failed and not the model, which was not looked at.
    """

    outputs: tuple[TrialTensor, ...] = ()
    failure: str = ""
    is_ours: bool = False


class ProcessTrial:
    """Starts the process when it is first needed; whatever ends it, the next use starts another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._owner = 0

    def answered(
        self, file: Unjudged, schema: Schema, inputs: Sequence[CanaryTensor]
    ) -> tuple[Tensor, ...]:
        with self._lock:
            reply = self._asked(file, TrialAsk(schema=schema, inputs=tuple(inputs)))
        return _answer_of(reply, schema)

    def close(self) -> None:
        """End it; idempotent."""
        with self._lock:
            self._end()

    def _asked(self, file: Unjudged, ask: TrialAsk) -> TrialReply:
        target = self._started()
        fd = file.fd if file.fd >= 0 else sealed_bytes("tried", file.raw)
        try:
            raw = framed(ask)
            sent = socket.send_fds(target, [raw], [fd])
            target.sendall(raw[sent:])
            reply, _ = received(target, TrialReply)
        except (OSError, IntegrityError):
            reply = None
        finally:
            if fd != file.fd:
                os.close(fd)
        if reply is None:
            self._end()
            raise UnavailableError(
                "trial.start",
                "the process that asks models does not answer",
                hint="what it wrote stands above; nothing was let in",
            )
        return reply

    def _started(self) -> socket.socket:
        if self._socket is not None and self._owner == os.getpid():
            if self._process is not None and self._process.poll() is None:
                return self._socket
            self._end()
        own, its = socket.socketpair()
        try:
            self._process = started(WORKER, its)
        except OSError as error:
            own.close()
            raise UnavailableError(
                "trial.start",
                f"cannot start the process that asks models: {error.strerror}",
                hint="is there room for one more process, and memory?",
            ) from error
        finally:
            its.close()
        own.settimeout(CLOCK_S_MAX + 60)
        self._socket, self._owner = own, os.getpid()
        return own

    def _end(self) -> None:
        if self._socket is not None:
            self._socket.close()
        process, self._process, self._socket = self._process, None, None
        if process is not None and self._owner == os.getpid():
            ended(process)


def _answer_of(reply: TrialReply, schema: Schema) -> tuple[Tensor, ...]:
    """What a reply comes to; of outputs, what has the form of the schema.

    Raises:
        IntegrityError: `trial.failed`.
        UnavailableError: `trial.start`.
    """
    if reply.failure or reply.is_ours:
        said = "".join(char for char in reply.failure if char.isprintable())[:TEXT_CHARS_MAX]
        if reply.is_ours:
            raise UnavailableError(
                "trial.start",
                f"the process that asks models is not locked in: {said}",
                hint="`modelkeep scan --explain-sandbox` shows what this machine gives",
            )
        raise IntegrityError("trial.failed", said)
    ports = {port.name: port for port in schema.outputs}
    for each in reply.outputs:
        port = ports.get(each.name)
        if port is None or not _fits(each, port):
            raise IntegrityError("trial.failed", "it answered in another form than its schema's")
    return tuple(Tensor(each.name, each.dtype, each.shape, each.raw) for each in reply.outputs)


def _fits(each: TrialTensor, port: Port) -> bool:
    """Whether an output is its port's; few and small sizes first, so that none is a long product.

    A port without dimensions may be one of which the file says none (`OnnxModel.unshaped`).
    """
    is_small = len(each.shape) <= TENSOR_RANK_MAX and all(
        0 <= size <= MESSAGE_BYTES_MAX for size in each.shape
    )
    has_form = not port.shape or (
        len(each.shape) == len(port.shape)
        and all(want in (-1, have) for want, have in zip(port.shape, each.shape, strict=True))
    )
    if each.dtype != port.dtype or not is_small or not has_form:
        return False
    return len(each.raw) == element_count(each.shape) * ELEMENT_BYTES.get(each.dtype, 0)
