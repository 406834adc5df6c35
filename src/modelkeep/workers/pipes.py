"""Two connections made one: what comes on either is sent on the other, and they end together.

Nothing is looked at. What one side does not take is not read from the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

PASSED_BYTES_MAX = 1024 * 1024


class Pipe(asyncio.Protocol):
    """One of the two. What comes before there is another waits, most of it in the kernel.

    Args:
        met: told of it once it is connected.

    Attributes:
        other: where what comes is sent.
        transport: None while it is not connected.
        early: what came before there was another.
    """

    def __init__(self, met: Callable[[Pipe], None] | None = None) -> None:
        self.other: Pipe | None = None
        self.transport: asyncio.Transport | None = None
        self._met = met
        self.early: list[bytes] = []

    def join(self, other: Pipe) -> None:
        """Make two one, both connected."""
        self.other, other.other = other, self
        for each in (self, other):
            for data in each.early:
                each.data_received(data)
            each.early.clear()
            if each.transport is not None:
                each.transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the other."""
        # uvloop's transports have the methods of asyncio.Transport but are no subclass of it.
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=PASSED_BYTES_MAX)
        self.transport.pause_reading()
        if self._met is not None:
            self._met(self)

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        if self.other is None:  # uvloop begins to read after `connection_made`, whatever that said
            self.early.append(data)
            if self.transport is not None:
                self.transport.pause_reading()
        elif self.other.transport is not None:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        """This side does not take more at present."""
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """It does again."""
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        """End the other one too."""
        self.transport = None
        if self.other is not None:
            self.other.abort()

    def abort(self) -> None:
        """End it, whatever is under way."""
        if self.transport is not None:
            self.transport.abort()
