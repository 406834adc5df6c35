"""Connections for a process that can make none: asked of the `Dialer`, used through asyncio.

asyncio makes sockets non-blocking by a system call (ioctl) that a locked-in process has not, so
`LockedSocket` says it in another way, and accepts its own kind.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
from typing import Any

from modelkeep.adapters.upstream_dial import REACHED, received_reply, request_bytes


class LockedSocket(socket.socket):
    """A socket whose way of waiting is set by fcntl."""

    def setblocking(self, flag: bool, /) -> None:  # noqa: FBT001 - the library's signature
        """Wait, or not."""
        flags = fcntl.fcntl(self, fcntl.F_GETFL)
        wanted = flags & ~os.O_NONBLOCK if flag else flags | os.O_NONBLOCK
        fcntl.fcntl(self, fcntl.F_SETFL, wanted)

    def never_wait(self) -> None:
        """Do not wait from now on."""
        self.setblocking(False)  # noqa: FBT003 - the signature is the library's

    def accept(self) -> tuple[LockedSocket, Any]:
        """The next connection, not waiting."""
        fd, address = self._accept()  # type: ignore[attr-defined]  # of socket.socket, untyped
        made = LockedSocket(self.family, self.type, self.proto, fileno=fd)
        made.never_wait()
        return made, address


class Connections:
    """Asks for connections; ends with the dialer.

    Args:
        asked: our end to the dialer.
    """

    def __init__(self, asked: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._asked = LockedSocket(asked.family, asked.type, asked.proto, fileno=asked.detach())
        self._asked.never_wait()
        self._waiting: dict[int, asyncio.Future[LockedSocket]] = {}
        self._number = 0
        self.is_over = asyncio.Event()
        loop.add_reader(self._asked, self._take)

    async def connection(self) -> LockedSocket:
        """A connection to the upstream.

        Raises:
            ConnectionError: there is none to be had.
        """
        self._number = number = (self._number + 1) % 2**32
        future: asyncio.Future[LockedSocket] = self._loop.create_future()
        self._waiting[number] = future
        try:
            self._asked.send(request_bytes(number))
            return await future
        except BlockingIOError as error:
            raise ConnectionError("too many connections are being made") from error
        finally:
            del self._waiting[number]

    def _take(self) -> None:
        try:
            reply = received_reply(self._asked)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            reply = None
        if reply is None:
            self._loop.remove_reader(self._asked)
            self.is_over.set()
            return
        number, status, fd = reply
        future = self._waiting.get(number)
        if future is None or future.done():
            if fd >= 0:
                os.close(fd)
        elif status != REACHED or fd < 0:
            future.set_exception(ConnectionError("the upstream cannot be reached"))
        else:
            made = LockedSocket(socket.AF_INET, socket.SOCK_STREAM, fileno=fd)
            made.never_wait()
            future.set_result(made)
