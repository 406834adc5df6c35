"""The Recorder port over the recorder process's Unix socket.

A message is its length as big-endian uint32, then one MessagePack record; one request, one reply.
Each call connects anew: the supervisor holds the listening socket across restarts of the
recorder, so a request that arrives meanwhile waits in its queue and is answered by the next one.

A socket's address holds 108 bytes, a keep's path may be longer: the socket is reached through
the open run folder, `/proc/self/fd/N/recorder.sock`.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from modelkeep.core.entry import Entry
from modelkeep.core.errors import IntegrityError, UnavailableError, UsageError
from modelkeep.core.record import Record, from_msgpack, to_msgpack

SOCKET_NAME = "recorder.sock"
# 1 MiB holds about 4,000 entries; the recorder holds one request per connection in memory.
MESSAGE_BYTES_MAX = 1024 * 1024
# Two of the recorder's restarts; an fsync takes milliseconds.
TIMEOUT_S = 10.0

QUEUE_FULL_PAUSE_S = 0.01

LENGTH_BYTES = 4


class RecordRequest(Record, frozen=True):
    """Entries to record, in order."""

    entries: tuple[Entry, ...]


class RecordReply(Record, frozen=True):
    """Where they stand, or why they do not.

    Attributes:
        first: the index of the first; -1 when they were not recorded.
        code: of the error; empty when they were.
    """

    first: int = -1
    code: str = ""
    message: str = ""


def framed(record: Record) -> bytes:
    """A record as a message."""
    raw = to_msgpack(record)
    return len(raw).to_bytes(LENGTH_BYTES, "big") + raw


class RecorderClient:
    """A `Recorder` for other processes than the recorder itself."""

    def __init__(self, run_folder: Path, *, timeout_s: float = TIMEOUT_S) -> None:
        self._run_folder = run_folder
        self._timeout_s = timeout_s

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Nothing stays open between calls; here for symmetry with an in-process recorder."""

    def is_reachable(self) -> bool:
        """Whether somebody listens: false while a service starts or has just ended."""
        try:
            with self._connected():
                return True
        except OSError:
            return False

    def record(self, entries: Sequence[Entry]) -> int:
        """Append entries in order; see the port.

        Raises:
            UnavailableError: `ledger.unavailable`, or `ledger.full` when the disk has no room.
            UsageError: `ledger.request_size` or `ledger.entry_size`.
        """
        message = framed(RecordRequest(entries=tuple(entries)))
        if len(message) > MESSAGE_BYTES_MAX:
            raise UsageError(
                "ledger.request_size",
                f"{len(entries)} entries make a request of {len(message)} bytes",
                hint="record fewer at a time",
            )
        try:
            raw = self._answer(message)
            reply = from_msgpack(RecordReply, raw, what="the recorder's reply")
        except (OSError, IntegrityError) as error:
            raise UnavailableError(
                "ledger.unavailable",
                f"the recorder does not answer: {error}",
                hint="is the service running? `modelkeep status`",
            ) from error
        if reply.code == "ledger.entry_size":
            raise UsageError("ledger.entry_size", reply.message, hint="keep facts short")
        if reply.code == "ledger.full":
            raise UnavailableError("ledger.full", reply.message, hint="free some space")
        if reply.code or reply.first < 0:
            raise UnavailableError("ledger.unavailable", reply.message, cause=reply.code)
        return reply.first

    def _answer(self, message: bytes) -> bytes:
        with self._connected() as connection:
            connection.sendall(message)
            length = int.from_bytes(_received(connection, LENGTH_BYTES), "big")
            if length > MESSAGE_BYTES_MAX:
                raise OSError("its reply is too long")
            return _received(connection, length)

    @contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        folder = os.open(self._run_folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(self._timeout_s)
                self._connect(connection, f"/proc/self/fd/{folder}/{SOCKET_NAME}")
                yield connection
        finally:
            os.close(folder)

    def _connect(self, connection: socket.socket, address: str) -> None:
        """Wait for room in the listener's queue, which a full one refuses at once (unix(7))."""
        deadline_s = time.monotonic() + self._timeout_s
        while True:
            try:
                connection.connect(address)
            except BlockingIOError:
                if time.monotonic() >= deadline_s:
                    raise
                time.sleep(QUEUE_FULL_PAUSE_S)
                continue
            return


def _received(connection: socket.socket, length: int) -> bytes:
    parts = []
    while length > 0:
        part = connection.recv(length)
        if not part:
            raise ConnectionResetError("it closed the connection")
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
