"""The listening socket and all its connections: accepting, timing, draining."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import heapq
import socket
import ssl
import time
from collections.abc import Callable, Iterator

from modelkeep.gate.settings import GateSettings
from modelkeep.web.accepting import Accepting
from modelkeep.web.bodies import Bodies
from modelkeep.web.http1 import Connection
from modelkeep.web.messages import Application

# How often waiting connections are looked at; a second's error in a timeout harms nobody.
SWEEP_S = 0.5
ENDED_A_TURN = 8
# What one connection hands over in a turn of the loop, all sharing it: as much as a TLS record has,
# and less between bodies, or a client who sends many requests ahead has a hundred read at once.
RECEIVE_BYTES = 16 * 1024
HEAD_BYTES = 4 * 1024
# At the bound of connections, so many that are idle longest are looked up at once.
LOOKED_UP = 256


class Server:
    """All connections of one listening socket."""

    def __init__(
        self,
        application: Application,
        settings: GateSettings,
        *,
        complain: Callable[[str], None],
    ) -> None:
        self.application = application
        self.settings = settings
        self.complain = complain
        self.loop = asyncio.get_running_loop()
        self.is_stopping = False
        self.common_headers = b""
        self.receive_buffer = memoryview(bytearray(RECEIVE_BYTES))
        self.head_buffer = self.receive_buffer[:HEAD_BYTES]
        self.bodies = Bodies(settings.bodies_bytes_max)
        self._connections: set[Connection] = set()
        self._longest: list[tuple[float, Connection]] = []  # idle when looked up; the first last
        self._emptied = asyncio.Event()
        self._accepting: Accepting | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    async def start(self, listening: socket.socket, context: ssl.SSLContext) -> None:
        """Accept connections from an inherited listening socket."""
        self._accepting = Accepting(
            listening,
            context,
            make=lambda: Connection(self),
            handshake_s=self.settings.handshake_timeout_s,
            complain=self.complain,
        )
        self._sweep()

    async def stop(self) -> None:
        """Accept no more, finish what is under way within the drain timeout, close all."""
        self.is_stopping = True
        self._emptied.clear()
        if self._accepting is not None:
            self._accepting.stop()
        for connection in tuple(self._connections):
            connection.stop()
        if self._connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._emptied.wait(), self.settings.drain_timeout_s)
        for connection in tuple(self._connections):
            connection.hang_up()
        if self._sweeper is not None:
            self._sweeper.cancel()

    @property
    def connection_count(self) -> int:
        """Open connections, after their handshake."""
        return len(self._connections)

    def admits(self, connection: Connection) -> bool:
        """Count a new connection in, in the place of the one idle longest if need be.

        Where none is idle there is no room: who has a request under way keeps the place.
        """
        if self.is_stopping:
            return False
        if len(self._connections) >= self.settings.connections_max:
            longest = self._idle_longest()
            if longest is None:
                return False
            self._connections.discard(longest)
            longest.hang_up()
        self._connections.add(connection)
        return True

    def _idle_longest(self) -> Connection | None:
        """Looks over all connections once for many: whoever was idle then is idle longest now."""
        for is_fresh in (False, True):
            if is_fresh:
                idle = (each for each in self._connections if each.is_idle)
                found = heapq.nsmallest(LOOKED_UP, idle, key=lambda each: each.waits_until_s)
                self._longest = [(each.waits_until_s, each) for each in reversed(found)]
            while self._longest:
                waits_until_s, each = self._longest.pop()
                is_same = each.is_idle and each.waits_until_s == waits_until_s
                if is_same and each in self._connections:
                    return each
        return None

    def forget(self, connection: Connection) -> None:
        """Count a closed connection out."""
        self._connections.discard(connection)
        if not self._connections:
            self._emptied.set()

    def _sweep(self) -> None:
        now = time.monotonic()
        date = email.utils.formatdate(usegmt=True).encode()
        self.common_headers = b"date: " + date + b"\r\ncache-control: no-store\r\n"
        self._sweep_some(iter(tuple(self._connections)), now)
        if self._accepting is not None:
            self._accepting.sweep()
        self._sweeper = self.loop.call_later(SWEEP_S, self._sweep)

    def _sweep_some(self, connections: Iterator[Connection], now: float) -> None:
        """End what is over, a few in a turn: a thousand may have begun together."""
        ended = 0
        for connection in connections:
            ended += connection.sweep(now)
            if ended == ENDED_A_TURN:
                self.loop.call_soon(self._sweep_some, connections, now)
                return
