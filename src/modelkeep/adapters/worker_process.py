"""Processes that look at untrusted things for us: how they start, end, and are talked to.

One message is a length (u32, big-endian) and a MessagePack record, bounded both ways; descriptors
go beside it.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import TypeVar

from modelkeep.core.record import Record, from_msgpack, to_msgpack

MESSAGE_BYTES_MAX = 32 * 1024 * 1024
END_S_MAX = 5.0
LENGTH_BYTES = 4
# A process that forks has one thread: libraries for arrays must not start theirs.
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
M = TypeVar("M", bound=Record)


def started(module: str, its: socket.socket, *words: str) -> subprocess.Popen[bytes]:
    """Start a module as a process that has one end of a pair of sockets, and nothing else.

    Raises:
        OSError: when it cannot be started.
    """
    # The code that runs there is the code that runs here, wherever it was imported from.
    root = str(Path(__file__).parents[2])
    program = (
        f"import runpy, sys; sys.path.insert(0, {root!r}); "
        f"runpy.run_module({module!r}, run_name='__main__')"
    )
    return subprocess.Popen(  # noqa: S603 - our own module, no shell
        [sys.executable, "-I", "-c", program, "--fd", str(its.fileno()), *words],
        pass_fds=(its.fileno(),),
        stdin=subprocess.DEVNULL,
        env=_ENVIRONMENT,
        process_group=0,
    )


def ended(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process whose socket was closed; one that does not end is killed."""
    try:
        process.wait(END_S_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def framed(message: Record) -> bytes:
    """One message as it goes over the socket."""
    raw = to_msgpack(message)
    assert len(raw) <= MESSAGE_BYTES_MAX, "a message to or from such a process is bounded"
    return len(raw).to_bytes(LENGTH_BYTES, "big") + raw


def received(source: socket.socket, kind: type[M]) -> tuple[M | None, int]:
    """Receive one message and the descriptor beside it, -1 for none; None when the other end left.

    Raises:
        IntegrityError: `record.msgpack`.
        OSError: when it is too long, or does not come.
    """
    # A descriptor comes with the first byte of the message that it belongs to.
    head, fds, _, _ = socket.recv_fds(source, LENGTH_BYTES, 1)
    fd = fds[0] if fds else -1
    if not head:
        return None, fd
    head += _read(source, LENGTH_BYTES - len(head))
    length = int.from_bytes(head, "big")
    if length > MESSAGE_BYTES_MAX:
        raise OSError("a message is too long")
    return from_msgpack(kind, _read(source, length), what="a process's message"), fd


def _read(source: socket.socket, length: int) -> bytes:
    parts = bytearray()
    while len(parts) < length:
        part = source.recv(min(length - len(parts), 1 << 20))
        if not part:
            raise OSError("a message was cut off")
        parts += part
    return bytes(parts)
