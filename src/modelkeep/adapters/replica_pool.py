"""A gateway's connections to the replicas of its models.

A replica's listening socket belongs to the supervisor and outlives the replica. So connecting
always works at once, and a connection means nothing until the replica says hello on it: that is
when it is ready. When a replica dies, its connection breaks, the pool connects again (the new
connection waits in the socket's queue for the next replica) and sends the calls that were under
way there to another replica, or keeps them for the next one that says hello. Inference is
idempotent, so a call may be computed twice but is answered once.

Bounds: a call waits until its deadline (`gate.deadline`, or `gate.no_replica` when none was
ready) and is sent `SENDS_MAX` times at most, so that a call that kills replicas cannot kill
them for ever. Frames are bounded by `kernels.replica_frames`, and the
flow checks what a replica says.

Calls of one turn of the event loop leave in one write (`TOGETHER_CALLS` says to how many
replicas), and a replica that finds several calls runs them as one batch.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from modelkeep.core.errors import IntegrityError, KeepError, UnavailableError
from modelkeep.gate.balance import least_loaded
from modelkeep.kernels.replica_frames import (
    PROTOCOL,
    AnswerFrame,
    FaultFrame,
    FrameReader,
    Hello,
    call_frame,
    decoded_reply,
)
from modelkeep.kernels.wire import Tensor

# Two replicas lost under one call is bad luck; four times is the call's doing.
SENDS_MAX = 4
RECONNECT_S_FIRST = 0.01
RECONNECT_S_MAX = 0.25
SWEEP_S = 0.05
# Calls of one turn go to one replica together, when the model is so fast that waking a second
# process costs more than computing: one wake-up and one run of the model instead of many. A
# slower model gets its calls one by one, each to the least loaded replica.
TOGETHER_CALLS = 16
TOGETHER_S = 0.002


class _Pending:
    """A call under way."""

    __slots__ = ("deadline", "frame", "future", "number", "sends", "sent_at")

    def __init__(
        self,
        number: int,
        frame: bytes,
        future: asyncio.Future[AnswerFrame],
        *,
        sent_at: float,
        deadline: float,
    ) -> None:
        self.number = number
        self.frame = frame
        self.future = future
        self.sent_at = sent_at
        self.deadline = deadline
        self.sends = 0


class _Link(asyncio.Protocol):
    """One connection to one replica, reconnected for ever until `close`."""

    def __init__(self, group: _Group, address: str) -> None:
        self.is_ready = False
        self.pending: dict[int, _Pending] = {}
        self._group = group
        self._address = address
        self._transport: asyncio.Transport | None = None
        self._reader = FrameReader()
        self._last_sent = 0.0
        self._is_closed = False
        self._delay_s = RECONNECT_S_FIRST
        self._task: asyncio.Task[None] | None = None

    def connect(self) -> None:
        """Start connecting; failures are tried again with a growing delay."""
        if not self._is_closed:
            self._task = self._group.loop.create_task(self._connected())

    def send(self, calls: Sequence[_Pending]) -> None:
        """Send calls in one write."""
        for pending in calls:
            pending.sends += 1
            self.pending[pending.number] = pending
        assert self._transport is not None
        frames = [pending.frame for pending in calls]
        self._transport.write(frames[0] if len(frames) == 1 else b"".join(frames))

    def close(self) -> None:
        """Give the connection up."""
        self._is_closed = True
        if self._task is not None:
            self._task.cancel()
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods of asyncio.Transport but are no subclass of it.
        self._transport = cast("asyncio.Transport", transport)
        self._reader = FrameReader()

    def data_received(self, data: bytes) -> None:
        try:
            for raw in self._reader.frames(data):
                self._take(decoded_reply(raw))
            if self._last_sent:
                self._group.note_round_trip(self._last_sent)
                self._last_sent = 0.0
        except IntegrityError as error:
            self._group.complain(f"{self._address}: {error}")
            assert self._transport is not None
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        was_ready, self.is_ready = self.is_ready, False
        self._transport = None
        lost = list(self.pending.values())
        self.pending.clear()
        self._group.lost(self, lost)
        if was_ready:
            self.connect()
        elif not self._is_closed:
            self._group.loop.call_later(self._next_delay_s(), self.connect)

    def _take(self, reply: AnswerFrame | FaultFrame | Hello) -> None:
        if type(reply) is AnswerFrame:
            pending = self.pending.pop(reply.number, None)
            if pending is not None and not pending.future.done():
                pending.future.set_result(reply)
                self._last_sent = pending.sent_at
        elif isinstance(reply, FaultFrame):
            pending = self.pending.pop(reply.number, None)
            if pending is not None and not pending.future.done():
                pending.future.set_exception(_fault(reply))
        else:
            self._greet(reply)

    def _greet(self, hello: AnswerFrame | Hello) -> None:
        group = self._group
        wanted = Hello(PROTOCOL, group.model, group.version)
        if hello != wanted or self.is_ready:
            raise IntegrityError("frame.hello", "the replica is not the one that was expected")
        self.is_ready = True
        self._delay_s = RECONNECT_S_FIRST
        group.greeted(self)

    async def _connected(self) -> None:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.settimeout(0)
        try:
            made.connect(self._address)
            await self._group.loop.create_unix_connection(lambda: self, sock=made)
        except OSError:
            made.close()
            self._group.loop.call_later(self._next_delay_s(), self.connect)

    def _next_delay_s(self) -> float:
        delay_s = self._delay_s
        self._delay_s = min(delay_s * 2, RECONNECT_S_MAX)
        return delay_s


class _Group:
    """All replicas of one version of one model."""

    def __init__(
        self, pool: ReplicaPool, model: str, version: int, addresses: Sequence[str]
    ) -> None:
        self.loop = pool.loop
        self.model = model
        self.version = version
        self.complain = pool.complain
        self.links = [_Link(self, address) for address in addresses]
        self.waiting: list[_Pending] = []
        self._arrived: list[_Pending] = []
        self._round_trip_s = 0.0
        self._pool = pool
        self._turn = 0
        self._ready: list[_Link] = []

    def place(self, pending: _Pending) -> None:
        """Take a call; it is sent at the end of this turn of the loop, with its neighbours."""
        if not self._arrived:
            self.loop.call_soon(self._dispatch)
        self._arrived.append(pending)

    def _dispatch(self) -> None:
        """Send what arrived to the least loaded replicas, or keep it until one is ready."""
        arrived, self._arrived = self._arrived, []
        ready = self._ready
        if not ready:
            self.waiting += arrived
            return
        together = TOGETHER_CALLS if self._round_trip_s < TOGETHER_S else 1
        for start in range(0, len(arrived), together):
            self._turn += 1
            index = least_loaded([len(link.pending) for link in ready], turn=self._turn)
            ready[index].send(arrived[start : start + together])

    def note_round_trip(self, sent_at: float) -> None:
        """Learn how long this model takes, replica's queue included; slowly forgets."""
        self._round_trip_s += (self.loop.time() - sent_at - self._round_trip_s) / 16

    def greeted(self, link: _Link) -> None:
        """A replica is ready: give it what waits."""
        self._ready.append(link)
        waiting, self.waiting = self.waiting, []
        for pending in waiting:
            if not pending.future.done():
                self.place(pending)

    def lost(self, link: _Link, pending: list[_Pending]) -> None:
        """A replica is gone: place its calls anew."""
        if link in self._ready:
            self._ready.remove(link)
        alive = [each for each in pending if not each.future.done()]
        for each in alive:
            if each.sends >= SENDS_MAX:
                each.future.set_exception(
                    UnavailableError("gate.replica_lost", "replicas were lost under this call")
                )
            else:
                self.place(each)
        if alive:
            self._pool.on_resent(len(alive))

    @property
    def ready_count(self) -> int:
        """How many replicas have said hello."""
        return len(self._ready)

    def sweep(self, now: float) -> None:
        """Give up the calls whose deadline has passed."""
        for link in self.links:
            late = [each for each in link.pending.values() if each.deadline <= now]
            for each in late:
                del link.pending[each.number]
                _fail(
                    each,
                    UnavailableError(
                        "gate.deadline", "no replica answered in time", hint="try again later"
                    ),
                )
        if self.waiting:
            for each in self.waiting:
                if each.deadline <= now:
                    _fail(
                        each,
                        UnavailableError(
                            "gate.no_replica",
                            f"no replica of {self.model} is ready",
                            hint="try again later",
                        ),
                    )
            self.waiting = [each for each in self.waiting if not each.future.done()]


class ReplicaPool:
    """The replicas of every served model, for one event loop."""

    def __init__(
        self,
        run_folder: Path,
        *,
        call_timeout_s: float,
        complain: Callable[[str], None],
        on_resent: Callable[[int], None] = lambda _calls: None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.complain = complain
        self.on_resent = on_resent
        self._call_timeout_s = call_timeout_s
        self._groups: dict[tuple[str, int], _Group] = {}
        self._number = 0
        # The path of a Unix socket has 108 bytes; through the folder's descriptor every name fits.
        self._folder_fd = os.open(run_folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._sweeper: asyncio.TimerHandle | None = None

    def add(self, model: str, version: int, sockets: Sequence[str]) -> None:
        """Serve a version of a model from these sockets of the run folder."""
        addresses = [f"/proc/self/fd/{self._folder_fd}/{name}" for name in sockets]
        group = self._groups[model, version] = _Group(self, model, version, addresses)
        for link in group.links:
            link.connect()
        if self._sweeper is None:
            self._sweep()

    def ask(
        self, model: str, version: int, inputs: Sequence[Tensor]
    ) -> asyncio.Future[AnswerFrame]:
        """Have one call computed.

        The future fails with UnavailableError: `gate.no_replica`, `gate.deadline`,
        `gate.replica_lost` or `runtime.failed`.
        """
        self._number = number = self._number + 1
        frame = call_frame(
            number, tuple(each.shape for each in inputs), tuple(each.raw for each in inputs)
        )
        future: asyncio.Future[AnswerFrame] = self.loop.create_future()
        now = self.loop.time()
        deadline = now + self._call_timeout_s
        self._groups[model, version].place(
            _Pending(number, frame, future, sent_at=now, deadline=deadline)
        )
        return future

    def ready_count(self, model: str, version: int) -> int:
        """How many replicas of a model are ready."""
        return self._groups[model, version].ready_count

    def close(self) -> None:
        """Close every connection; idempotent."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for group in self._groups.values():
            for link in group.links:
                link.close()
        self._groups.clear()
        if self._folder_fd >= 0:
            os.close(self._folder_fd)
            self._folder_fd = -1

    def _sweep(self) -> None:
        now = self.loop.time()
        for group in self._groups.values():
            group.sweep(now)
        self._sweeper = self.loop.call_later(SWEEP_S, self._sweep)


def _fail(pending: _Pending, error: KeepError) -> None:
    if not pending.future.done():
        pending.future.set_exception(error)


def _fault(reply: FaultFrame) -> KeepError:
    return UnavailableError("runtime.failed", reply.message[:500], replica_code=reply.code[:100])
