"""The gateways that one replica serves: their sockets, what they send, what they have not read.

Single threaded: `run` looks at the sockets between two pieces of work, and waits on them when there
is none. It trusts nobody: frames are bounded, and a gateway that does not read its answers is cut
off. When the lifeline becomes readable (the supervisor is gone) it ends.
"""

from __future__ import annotations

import fcntl
import os
import selectors
import socket
from typing import Generic, Protocol, TypeVar

from modelkeep.core.errors import IntegrityError
from modelkeep.kernels.replica_frames import FrameReader

CONNECTIONS_MAX = 256


class Own(Protocol):
    """What a replica keeps of one gateway, beside the socket."""

    def received(self, connected: socket.socket) -> bytes:
        """What has come; empty when the gateway is gone."""
        ...


Kept = TypeVar("Kept", bound=Own)


class Link(Generic[Kept]):
    """One gateway."""

    __slots__ = ("is_open", "own", "reader", "socket", "unsent")

    def __init__(self, connected: socket.socket, own: Kept, *, frame_bytes_max: int) -> None:
        self.socket = connected
        self.own = own
        self.reader = FrameReader(frame_bytes_max)
        self.unsent = bytearray()
        self.is_open = True


class Answerer(Protocol[Kept]):
    """A replica, as its links see it."""

    @property
    def is_busy(self) -> bool:
        """Whether there is work."""
        ...

    def met(self, others: int) -> Kept:
        """What is kept of a gateway that has connected, beside so many others."""
        ...

    def greeting(self, own: Kept) -> bytes:
        """What it is sent first."""
        ...

    def take(self, link: Link[Kept], raw: memoryview) -> None:
        """One frame; an IntegrityError cuts its gateway off."""
        ...

    def closed(self, link: Link[Kept]) -> None:
        """Nothing more comes from a gateway or goes to it."""
        ...

    def work(self) -> None:
        """A piece of what there is to do."""
        ...


class GatewayLinks(Generic[Kept]):
    """All gateways of one replica.

    Args:
        listen_fd: listening Unix stream socket.
        frame_bytes_max: of one frame that a gateway sends.
        unsent_bytes_max: what one gateway may leave unread.
    """

    def __init__(
        self,
        answerer: Answerer[Kept],
        listen_fd: int,
        *,
        frame_bytes_max: int,
        unsent_bytes_max: int,
    ) -> None:
        self._answerer = answerer
        self._frame_bytes_max = frame_bytes_max
        self._unsent_bytes_max = unsent_bytes_max
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(fileno=listen_fd)
        _never_wait(self._listener)
        self._count = 0

    def run(self, lifeline_fd: int) -> None:
        """Serve until the lifeline breaks."""
        self._selector.register(self._listener, selectors.EVENT_READ, None)
        self._selector.register(lifeline_fd, selectors.EVENT_READ, None)
        while True:
            for key, events in self._selector.select(0 if self._answerer.is_busy else None):
                if isinstance(key.data, Link):
                    self._serve(key.data, events)
                elif key.fileobj is self._listener:
                    self._accept()
                else:
                    return
            if self._answerer.is_busy:
                self._answerer.work()

    def send(self, link: Link[Kept], data: bytes) -> None:
        """Send what the gateway takes now, and the rest when it reads on."""
        if not link.is_open:
            return
        link.unsent += data
        try:
            sent = link.socket.send(link.unsent)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._close(link)
            return
        del link.unsent[:sent]
        if len(link.unsent) > self._unsent_bytes_max:
            self._close(link)
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if link.unsent else 0)
        if wanted != self._selector.get_key(link.socket).events:
            self._selector.modify(link.socket, wanted, link)

    def _accept(self) -> None:
        try:
            connected, _ = self._listener.accept()
        except OSError:
            return
        if self._count >= CONNECTIONS_MAX:
            connected.close()
            return
        _never_wait(connected)
        own = self._answerer.met(self._count)
        link = Link(connected, own, frame_bytes_max=self._frame_bytes_max)
        self._count += 1
        self._selector.register(connected, selectors.EVENT_READ, link)
        self.send(link, self._answerer.greeting(own))

    def _serve(self, link: Link[Kept], events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self.send(link, b"")
        if not events & selectors.EVENT_READ or not link.is_open:
            return
        try:
            data = link.own.received(link.socket)
            if not data:
                self._close(link)
                return
            for raw in link.reader.frames(data):
                self._answerer.take(link, raw)
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, IntegrityError):
            self._close(link)

    def _close(self, link: Link[Kept]) -> None:
        if link.is_open:
            link.is_open = False
            self._count -= 1
            self._selector.unregister(link.socket)
            link.socket.close()
            self._answerer.closed(link)


def _never_wait(one: socket.socket) -> None:
    """As `settimeout(0)`, which needs a system call (ioctl) that a locked-in process has not."""
    fcntl.fcntl(one, fcntl.F_SETFL, fcntl.fcntl(one, fcntl.F_GETFL) | os.O_NONBLOCK)
