"""A process that turns one model into ONNX: the near end of the pipe to it, and what goes over it.

The process (`workers.converter`) imports the framework that the model was made with, is locked in,
and only then reads the model. It writes into a memory file that it was given, and ends. What it
says was said by a process that had the model in it: it is bounded, and a process that hangs is
killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading

from modelkeep.adapters.worker_process import ended, framed, received, started
from modelkeep.core.errors import IntegrityError, UnavailableError, UsageError
from modelkeep.core.record import Record
from modelkeep.kernels.agreement import Agreement

WORKER = "modelkeep.workers.converter"
# One message of protocol buffers, which an ONNX file is, ends here.
OUTPUT_BYTES_MAX = (1 << 31) - 1
WAIT_S = 600.0
# Of addresses, beside what the framework takes when it is imported and some times the model.
MEMORY_BYTES = 8 * 1024 * 1024 * 1024
TEXT_CHARS_MAX = 600


class ConversionAsk(Record, frozen=True):
    """One model; the memory file for the result comes along.

    Attributes:
        framework: `sklearn`, `skops`, `keras` or `savedmodel`.
        path: of its file or folder, which nobody else writes to.
    """

    framework: str
    path: str
    rtol: float
    atol: float
    seed: int
    memory_bytes: int
    cpu_s: int


class ConversionReply(Record, frozen=True):
    """What came of it.

    Attributes:
        code: of what went wrong; empty when the memory file holds the model.
    """

    code: str = ""
    text: str = ""
    agreement: Agreement | None = None
    unsheltered: tuple[str, ...] = ()


def asked(ask: ConversionAsk, *, wait_s: float) -> tuple[bytes, ConversionReply]:
    """Have one model converted.

    Raises:
        IntegrityError: `conversion.differs`, `conversion.failed`.
        UsageError: `conversion.inputs`.
        UnavailableError: `conversion.start`, `conversion.ended`.
    """
    memory = os.memfd_create("converted", os.MFD_CLOEXEC)
    try:
        reply = _answered(ask, memory, wait_s)
        if reply is None:
            raise UnavailableError(
                "conversion.ended",
                f"the process that converts ended without an answer, or took over {wait_s:.0f} s",
                hint="the model may need more memory or time than it may take; nothing was written",
            )
        if reply.code or reply.agreement is None:
            raise _error_of(reply)
        size_bytes = os.fstat(memory).st_size
        if size_bytes > OUTPUT_BYTES_MAX:
            raise IntegrityError("conversion.failed", "the ONNX model is over 2 GiB")
        os.lseek(memory, 0, os.SEEK_SET)
        with os.fdopen(os.dup(memory), "rb") as stream:
            return stream.read(size_bytes), reply
    finally:
        os.close(memory)


def _answered(ask: ConversionAsk, memory: int, wait_s: float) -> ConversionReply | None:
    own, its = socket.socketpair()
    try:
        process = started(WORKER, its)
    except OSError as error:
        own.close()
        raise UnavailableError(
            "conversion.start", f"cannot start the process that converts: {error.strerror}"
        ) from error
    finally:
        its.close()
    timer = threading.Timer(wait_s, _killed, (process,))
    timer.start()
    reply = None
    try:
        with own, contextlib.suppress(OSError, IntegrityError):
            socket.send_fds(own, [framed(ask)], [memory])
            reply, _ = received(own, ConversionReply)
    finally:
        timer.cancel()
        _killed(process)  # it has nothing left to do, and what it wrote must not change
        ended(process)
    return reply


def _killed(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _error_of(reply: ConversionReply) -> IntegrityError | UsageError | UnavailableError:
    text = "".join(char for char in reply.text if char.isprintable())[:TEXT_CHARS_MAX]
    if reply.code == "conversion.inputs":
        return UsageError("conversion.inputs", text)
    if reply.code == "conversion.differs":
        hint = "nothing was written; `--tolerance` says how far numbers may be apart"
        return IntegrityError("conversion.differs", text, hint=hint)
    if reply.code.startswith("sandbox."):
        return UnavailableError(
            "conversion.start",
            f"the process that converts is not locked in: {text}",
            hint="`modelkeep scan --explain-sandbox` shows what this machine gives",
        )
    return IntegrityError("conversion.failed", text, hint="nothing was written")
