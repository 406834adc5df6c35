"""One connection of a gateway to one replica, made again for ever until it is closed.

A replica's listening socket outlives the replica. So connecting works at once, and a connection
means nothing until the replica says hello on it. A reply to a call that was never asked, an answer
that comes twice, a frame that claims too much, a place outside the shared memory: each ends the
connection, and the calls under way there go to another replica.

An entry of `pending` stays until its reply, even after its caller has gone: the replica is still
at work on it, and its room in the shared memory is not free.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from modelkeep.adapters.replica_calls import Asked
from modelkeep.adapters.shared_memory import GatewayMemory
from modelkeep.core.errors import IntegrityError
from modelkeep.gate.health import Health
from modelkeep.kernels.link_frames import (
    CANCEL,
    PING,
    SHARE,
    Freed,
    Offer,
    Ping,
    Pong,
    Share,
    SharedAnswer,
    SharedCall,
    decoded_said,
)
from modelkeep.kernels.replica_frames import (
    PROTOCOL,
    AnswerFrame,
    Cancel,
    FaultFrame,
    FrameReader,
    Hello,
    Piece,
    TextEnd,
    framed,
)

if TYPE_CHECKING:
    from modelkeep.adapters.replica_group import Group

RECONNECT_S_FIRST = 0.01
RECONNECT_S_MAX = 0.25
CONNECT_S_MAX = 5.0
# A connection on which no hello comes is made again: the replica loads, or something is stuck.
HELLO_S_MAX = 10.0
# A connection that lasted so long was a good one: the next one is tried at once. It is also how
# often at most a link complains, whatever its replica does.
GOOD_S = 1.0
# What waits to be sent to a replica that does not read; past it the replica gets nothing more.
UNSENT_BYTES_MAX = 32 * 1024 * 1024
# Texts that were cancelled and of which more may come.
CANCELLED_MAX = 4096


class Link(asyncio.Protocol):
    """One connection to one replica."""

    def __init__(self, group: Group, *, path: str, name: str) -> None:
        self.name = name
        self.health = Health()
        self.pending: dict[int, Asked] = {}
        self.is_greeted = False
        self.leaves_s = 0.0  # since when it is taken out; 0 while it is not
        self.is_stuffed = False
        self.is_suspected = False
        self.heard_s = 0.0
        self.pinged_s = 0.0
        self.back_s = 0.0
        self._group = group
        self._path = path
        self._offers: frozenset[str] = frozenset()
        self._memory: GatewayMemory | None = None
        self._cancelled: dict[int, None] = {}
        self._socket: socket.socket | None = None
        self._transport: asyncio.Transport | None = None
        self._reader = FrameReader()
        self._last_sent_s = 0.0
        self._owes_s = 0.0
        self._made_s = 0.0
        self._greeted_s = 0.0
        self._is_closed = False
        self._delay_s = RECONNECT_S_FIRST
        self._complained_s = -GOOD_S
        self._task: asyncio.Task[None] | None = None

    # ---- what the group does -------------------------------------------------------------------

    def connect(self) -> None:
        """Start connecting; failures are tried again with a growing delay."""
        if not self._is_closed:
            self._task = self._group.loop.create_task(self._connected())

    def send(self, calls: Sequence[Asked]) -> None:
        """Send calls in one write."""
        assert self._transport is not None
        if not self.pending:
            self._owes_s = self._group.loop.time()
        frames = []
        for call in calls:
            call.sends += 1
            call.copies += 1
            self.pending[call.number] = call
            frames.append(call.frame or self._large(call))
        self._transport.write(frames[0] if len(frames) == 1 else b"".join(frames))

    def ping(self, now_s: float) -> None:
        """Ask for a sign of life, if the replica gives one."""
        if PING in self._offers and self._transport is not None and not self.pinged_s:
            self.pinged_s = now_s
            self._transport.write(framed(Ping(0)))

    def cancel(self, call: Asked) -> None:
        """Nobody waits for this call any more.

        Of a text nothing more is looked at; for tensors the replica's reply is waited for.
        """
        if self._transport is None:
            return
        if call.talk is not None:
            del self.pending[call.number]
            self._cancelled[call.number] = None
            if len(self._cancelled) > CANCELLED_MAX:
                del self._cancelled[next(iter(self._cancelled))]
        if call.talk is not None or CANCEL in self._offers:
            self._transport.write(framed(Cancel(call.number)))

    def silent_s(self, now_s: float) -> float:
        """For how long nothing was heard though something is owed; 0 when nothing is."""
        if self.pending:
            return now_s - max(self._owes_s, self.heard_s)
        return now_s - max(self.pinged_s, self.heard_s) if self.pinged_s else 0.0

    @property
    def has_text(self) -> bool:
        """Whether a text is under way."""
        return any(call.talk is not None for call in self.pending.values())

    def is_mute(self, now_s: float) -> bool:
        """Whether it is connected, and no hello came for long."""
        is_waiting = self._transport is not None and not self.is_greeted
        return is_waiting and now_s - self._made_s > HELLO_S_MAX

    def abort(self) -> None:
        """End the connection; it is made again."""
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """End the connection for good."""
        self._is_closed = True
        if self._task is not None:
            self._task.cancel()
        self.abort()

    # ---- what the event loop does --------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods of asyncio.Transport but are no subclass of it.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=UNSENT_BYTES_MAX)
        self._reader = FrameReader(self._group.settings.answer_bytes_max)
        self._made_s = self._group.loop.time()
        if self._is_closed:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            for raw in self._reader.frames(data):
                said = decoded_said(raw)
                if type(said) is AnswerFrame:
                    self._answered(said)
                else:
                    self._take(said)
        except IntegrityError as error:
            self._complain(error)
            self.abort()
            return
        self.heard_s = now_s = self._group.loop.time()
        if self._last_sent_s:
            self._group.note_round_trip(now_s - self._last_sent_s)
            self._last_sent_s = 0.0
            if self.health.failures:
                self.health.succeeded()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        was_greeted, self.is_greeted = self.is_greeted, False
        self.is_stuffed = self.is_suspected = False
        self._transport = self._socket = self._memory = None
        self._offers = frozenset()
        self._cancelled.clear()
        self.pinged_s = 0.0
        lost = list(self.pending.values())
        self.pending.clear()
        self._group.lost(self, lost)
        if was_greeted and self._group.loop.time() - self._greeted_s >= GOOD_S:
            self._delay_s = RECONNECT_S_FIRST
            self.connect()
        else:
            self._connect_later()

    def pause_writing(self) -> None:
        self.is_stuffed = True
        self._group.sort()

    def resume_writing(self) -> None:
        self.is_stuffed = False
        self._group.sort()

    # ---- frames --------------------------------------------------------------------------------

    def _answered(self, reply: AnswerFrame) -> None:
        call = self.pending.pop(reply.number, None)
        if call is None or call.talk is not None:
            raise _unasked(reply.number)
        call.copies -= 1
        self._last_sent_s = call.sent_s
        if self._memory is not None:
            self._memory.freed(reply.number)
        if not call.future.done():
            call.future.set_result(reply)
            if call.is_marked:
                self._group.settled(self, call)

    def _take(
        self,
        said: FaultFrame | Hello | Piece | TextEnd | SharedAnswer | Pong | Offer,
    ) -> None:
        if isinstance(said, Piece | TextEnd):
            self._heard_text(said)
        elif isinstance(said, SharedAnswer):
            self._answered(self._copied(said))
        elif isinstance(said, FaultFrame):
            self._faulted(said)
        elif isinstance(said, Pong):
            if not self.pinged_s:
                raise _unasked(said.number)
            self.pinged_s = 0.0
        elif isinstance(said, Offer):
            self._accept(said)
        else:
            self._greet(said)

    def _heard_text(self, said: Piece | TextEnd) -> None:
        call = self.pending.get(said.number)
        if call is None:
            if said.number not in self._cancelled:
                raise _unasked(said.number)
            if isinstance(said, TextEnd):
                del self._cancelled[said.number]
            return
        if call.talk is None:
            raise _unasked(said.number)
        if isinstance(said, TextEnd):
            del self.pending[said.number]
            call.copies -= 1
            self.health.succeeded()
            self._group.breaker.succeeded()
        call.talk.take(call, said, self._group.loop.time())

    def _faulted(self, fault: FaultFrame) -> None:
        call = self.pending.pop(fault.number, None)
        if call is None:
            if self._cancelled.pop(fault.number, self) is self:
                raise _unasked(fault.number)
            return
        call.copies -= 1
        if self._memory is not None:
            self._memory.freed(fault.number)
        self._group.faulted(self, call, fault)

    def _copied(self, answer: SharedAnswer) -> AnswerFrame:
        if self._memory is None or self._transport is None:
            raise IntegrityError("frame.span", "no memory is shared with this replica")
        tensors = self._memory.copied(answer.offset, answer.lengths)
        self._transport.write(framed(Freed(answer.offset)))
        return AnswerFrame(answer.number, answer.shapes, tensors)

    def _accept(self, offer: Offer) -> None:
        """Take what a replica offers; hand it shared memory, before anything else is sent."""
        if self.is_greeted or self._offers:
            raise IntegrityError("frame.offer", "an offer comes once, before the hello")
        self._offers = frozenset(offer.what)
        size = self._group.settings.shared_bytes
        if SHARE not in self._offers or not size or self._socket is None:
            return
        with suppress(OSError):  # no memory, or no room in the socket: frames do
            memory = GatewayMemory(size)
            try:
                frame = framed(Share(size))
                if socket.send_fds(self._socket, [frame], list(memory.descriptors)) == len(frame):
                    self._memory = memory
            finally:
                memory.close_descriptors()

    def _greet(self, hello: Hello) -> None:
        group = self._group
        if hello != Hello(PROTOCOL, group.model, group.version) or self.is_greeted:
            raise IntegrityError("frame.hello", "the replica is not the one that was expected")
        self.is_greeted = True
        self.heard_s = self.back_s = self._greeted_s = group.loop.time()
        group.greeted(self)

    def _large(self, call: Asked) -> bytes:
        """A call through shared memory where there is room, else as one frame."""
        if self._memory is not None:
            spans = self._memory.written(call.number, [each.raw for each in call.inputs])
            if spans:
                shapes = tuple(each.shape for each in call.inputs)
                return framed(SharedCall(call.number, shapes, spans))
        return call.whole_frame()

    # ---- connecting ----------------------------------------------------------------------------

    async def _connected(self) -> None:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.settimeout(0)
        try:
            made.connect(self._path)
            self._socket = made
            async with asyncio.timeout(CONNECT_S_MAX):
                await self._group.loop.create_unix_connection(lambda: self, sock=made)
        except OSError:
            self._socket = None
            made.close()
            self._connect_later()

    def _complain(self, error: Exception) -> None:
        now_s = self._group.loop.time()
        if now_s - self._complained_s >= GOOD_S:
            self._complained_s = now_s
            self._group.complain(f"{self.name}: {error}")

    def _connect_later(self) -> None:
        delay_s = self._delay_s
        self._delay_s = min(delay_s * 2, RECONNECT_S_MAX)
        if not self._is_closed:
            self._group.loop.call_later(delay_s, self.connect)


def _unasked(number: int) -> IntegrityError:
    return IntegrityError("frame.number", f"a reply that nobody waits for: {number}")
