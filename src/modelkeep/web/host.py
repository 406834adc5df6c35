"""What a connection needs of the server that it belongs to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from modelkeep.gate.settings import GateSettings
from modelkeep.web.bodies import Bodies
from modelkeep.web.messages import Application

if TYPE_CHECKING:
    from modelkeep.web.http1 import Connection


class Host(Protocol):
    """The server, as its connections see it."""

    application: Application
    settings: GateSettings
    loop: asyncio.AbstractEventLoop
    common_headers: bytes
    is_stopping: bool
    receive_buffer: memoryview
    head_buffer: memoryview
    bodies: Bodies
    complain: Callable[[str], None]

    def admits(self, connection: Connection) -> bool:
        """Count a new connection in, if there is room or some can be made."""
        ...

    def forget(self, connection: Connection) -> None:
        """Count a closed connection out."""
        ...
