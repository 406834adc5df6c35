"""The listening socket and all its connections: accepting, timing, draining."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import socket
import ssl
import time
from collections.abc import Callable

from modelkeep.gate.settings import GateSettings
from modelkeep.web.http1 import Application, Connection

# How often waiting connections are looked at; a second's error in a timeout harms nobody.
SWEEP_S = 0.5


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
        self._connections: set[Connection] = set()
        self._emptied = asyncio.Event()
        self._listener: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    async def start(self, listening: socket.socket, context: ssl.SSLContext) -> None:
        """Accept connections from an inherited listening socket."""
        self._sweep()
        self._listener = await self.loop.create_server(
            lambda: Connection(self),
            sock=listening,
            ssl=context,
            ssl_handshake_timeout=self.settings.handshake_timeout_s,
            ssl_shutdown_timeout=1.0,
        )

    async def stop(self) -> None:
        """Accept no more, finish what is under way within the drain timeout, close all."""
        self.is_stopping = True
        self._emptied.clear()
        if self._listener is not None:
            self._listener.close()
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
        """Count a new connection in, if there is room."""
        if self.is_stopping or len(self._connections) >= self.settings.connections_max:
            return False
        self._connections.add(connection)
        return True

    def forget(self, connection: Connection) -> None:
        """Count a closed connection out."""
        self._connections.discard(connection)
        if not self._connections:
            self._emptied.set()

    def _sweep(self) -> None:
        now = time.monotonic()
        date = email.utils.formatdate(usegmt=True).encode()
        self.common_headers = b"date: " + date + b"\r\ncache-control: no-store\r\n"
        for connection in tuple(self._connections):
            connection.sweep(now)
        self._sweeper = self.loop.call_later(SWEEP_S, self._sweep)
