"""New connections: one TLS handshake begins in a turn of the loop, and those under way are bounded.

A handshake costs as much as several calls. A loop that is handed a hundred new connections at once
would serve nobody else until it had taken them all; here it takes one, then looks after the others,
then takes the next. So:

1. What connects waits in the kernel's queue; one is taken in a turn.
2. At most a few handshakes go on at a time, and how slow a client is does not count: after a few
   milliseconds its handshake takes nobody's turn any more.
3. Who connected and has not spoken yet costs a descriptor and nothing else: no TLS is set up for
   it. When many spoke at once they go on one in a turn, in the order in which they spoke.
4. Connections that are not through their handshake are bounded together. Past the bound a newcomer
   takes the place of the one that has been silent longest, or else of the one that has been amid
   its handshake longest, if that is long for an honest client. Where there is none either,
   newcomers wait in the kernel's queue.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections import deque
from collections.abc import Callable, Coroutine
from itertools import islice

# Connections of one listener before the end of their handshake. One takes about 40 KiB.
OPENING_MAX = 1024
# For how long none is accepted when the process or the machine has no descriptors or memory left.
EXHAUSTED_S = 0.25
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
SHUTDOWN_S = 1.0
# Of one connection in the kernel; without it 4 MiB, times thousands who do not read.
UNSENT_BYTES_MAX = 128 * 1024
# Whoever is amid the handshake for longer may lose the place to a newcomer.
PATIENCE_S = 1.0
# So many handshakes that are younger than this go on at a time, each of which may have a step in
# one turn of the loop; a near client needs 2 ms for all of its own.
YOUNG_MAX = 3
YOUNG_S = 0.004


class Accepting:
    """The listening side of one server.

    Args:
        listening: bound and listening; closed by `stop`.
        make: a protocol for a client that is through its handshake.
        handshake_s: from being accepted to the handshake's end.
        complain: told what is wrong with the machine.
    """

    def __init__(
        self,
        listening: socket.socket,
        context: ssl.SSLContext,
        *,
        make: Callable[[], asyncio.BaseProtocol],
        handshake_s: float,
        complain: Callable[[str], None],
        opening_max: int = OPENING_MAX,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listening = listening
        self._context = context
        self._make = make
        self._handshake_s = handshake_s
        self._complain = complain
        self._opening_max = opening_max
        self._silent: dict[socket.socket, float] = {}  # until when; the oldest first
        self._spoke: deque[tuple[socket.socket, float]] = deque()
        self._under_way: dict[asyncio.Task[None], float] = {}  # since when; the oldest first
        self._is_listening = False
        self._is_over = False
        self._has_turn = False
        listening.setblocking(False)  # noqa: FBT003  # the standard library's own signature
        # What connects inherits it: the kernel keeps as much of what a client does not read.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES_MAX)
        self._listen()

    @property
    def opening_count(self) -> int:
        """Connections that are not through their handshake."""
        return len(self._silent) + len(self._spoke) + len(self._under_way)

    def sweep(self) -> None:
        """Hang up on those who have said nothing for too long; called now and then."""
        now = self._loop.time()
        while self._silent:
            oldest, ends = next(iter(self._silent.items()))
            if ends > now:
                break
            self._drop(oldest)
        self._listen()

    def stop(self) -> None:
        """Accept no more; who is amid the handshake ends it, the others are hung up on."""
        self._is_over = True
        self._deaf()
        self._listening.close()
        for each in tuple(self._silent):
            self._drop(each)
        while self._spoke:
            self._spoke.popleft()[0].close()

    # ---- the kernel's queue --------------------------------------------------------------------

    def _listen(self) -> None:
        if not (self._is_listening or self._is_over) and self._has_room():
            self._is_listening = True
            self._loop.add_reader(self._listening, self._accept)

    def _deaf(self) -> None:
        if self._is_listening:
            self._is_listening = False
            self._loop.remove_reader(self._listening)

    def _has_room(self) -> bool:
        return self.opening_count < self._opening_max or self._slowest() is not None

    def _slowest(self) -> socket.socket | asyncio.Task[None] | None:
        """Who loses the place to a newcomer."""
        for client in self._silent:
            return client
        for task, since in self._under_way.items():
            return task if since + PATIENCE_S < self._loop.time() else None
        return None

    def _make_room(self) -> None:
        slowest = self._slowest()
        if isinstance(slowest, socket.socket):
            self._drop(slowest)
        elif slowest is not None:
            del self._under_way[slowest]
            slowest.cancel()

    def _accept(self) -> None:
        """Take one; the loop calls again in its next turn while there are more."""
        if not self._has_room():
            self._deaf()
            return
        try:
            client, _ = self._listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another gateway took it, or it has gone
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
            self._complain(f"no connection can be accepted: {error.strerror}")
            self._deaf()
            self._loop.call_later(EXHAUSTED_S, self._listen)
            return
        if self.opening_count >= self._opening_max:
            self._make_room()
        client.setblocking(False)  # noqa: FBT003  # the standard library's own signature
        self._silent[client] = self._loop.time() + self._handshake_s
        self._loop.add_reader(client, self._speaks, client)

    def _drop(self, client: socket.socket) -> None:
        self._loop.remove_reader(client)
        del self._silent[client]
        client.close()

    # ---- handshakes ----------------------------------------------------------------------------

    def _speaks(self, client: socket.socket) -> None:
        self._loop.remove_reader(client)
        self._spoke.append((client, self._silent.pop(client)))
        self._take_turn()

    def _take_turn(self) -> None:
        if self._spoke and not self._has_turn:
            self._has_turn = True
            self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        self._has_turn = False
        if not self._spoke:
            return
        now = self._loop.time()
        young = tuple(islice(reversed(self._under_way.values()), YOUNG_MAX))
        if len(young) == YOUNG_MAX and young[-1] + YOUNG_S > now:
            self._loop.call_later(YOUNG_S, self._take_turn)  # or when one of them ends
            return
        client, ends = self._spoke.popleft()
        left_s = ends - now
        if left_s > 0:
            task = self._loop.create_task(self._secured(client, left_s))
            self._under_way[task] = now
            task.add_done_callback(self._ended)
        else:
            client.close()
        self._take_turn()

    def _secured(self, client: socket.socket, left_s: float) -> Coroutine[None, None, None]:
        return _handshake(
            self._loop, client, make=self._make, context=self._context, seconds=left_s
        )

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.pop(task, None)
        if not task.cancelled() and (fault := task.exception()) is not None:
            self._complain(f"{type(fault).__name__}: {fault}")
        self._take_turn()
        self._listen()


async def _handshake(
    loop: asyncio.AbstractEventLoop,
    client: socket.socket,
    *,
    make: Callable[[], asyncio.BaseProtocol],
    context: ssl.SSLContext,
    seconds: float,
) -> None:
    """Go through one handshake; who fails or gives up is no news."""
    try:
        await loop.connect_accepted_socket(
            make,
            client,
            ssl=context,
            ssl_handshake_timeout=seconds,
            ssl_shutdown_timeout=SHUTDOWN_S,
        )
    except OSError:  # ssl.SSLError, TimeoutError and ConnectionError are some
        client.close()
