"""A call on its way to replicas, and a text that comes back in pieces."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from modelkeep.core.errors import KeepError, UnavailableError
from modelkeep.kernels.replica_frames import AnswerFrame, Piece, TextEnd, call_frame
from modelkeep.kernels.wire import Tensor

if TYPE_CHECKING:
    from modelkeep.adapters.replica_link import Link


class Asked:
    """One call.

    Attributes:
        frame: as it is sent, where it is small or of a text; else empty, and `inputs` are sent as
            the connection can take them.
        copies: replicas that have it now.
        sends: how often it was sent.
        is_marked: a second replica has it, or had it: its answer is looked at more closely.
        accused: the replica that said a fault while another one is asked.
    """

    __slots__ = (
        "accused",
        "copies",
        "deadline_s",
        "frame",
        "future",
        "inputs",
        "is_marked",
        "number",
        "sends",
        "sent_s",
        "talk",
    )

    def __init__(
        self,
        number: int,
        future: asyncio.Future[AnswerFrame],
        *,
        frame: bytes,
        inputs: Sequence[Tensor],
        now_s: float,
        deadline_s: float,
        talk: Talk | None = None,
    ) -> None:
        self.number = number
        self.future = future
        self.frame = frame
        self.inputs = inputs
        self.sent_s = now_s
        self.deadline_s = deadline_s
        self.talk = talk
        self.copies = 0
        self.sends = 0
        self.is_marked = False
        self.accused: Link | None = None

    @property
    def may_be_resent(self) -> bool:
        """Whether nothing of an answer has been given away yet."""
        return self.talk is None or not self.talk.has_begun

    def whole_frame(self) -> bytes:
        """The call with its tensors in it."""
        return self.frame or call_frame(
            self.number,
            tuple(each.shape for each in self.inputs),
            tuple(each.raw for each in self.inputs),
        )

    def fail(self, error: KeepError) -> None:
        """Give it up, unless it has its answer."""
        if not self.future.done():
            self.future.set_exception(error)


class Talk:
    """The pieces of one text, between the connection that brings them and the one that reads."""

    def __init__(
        self, *, pieces_max: int, pieces_bytes_max: int, piece_s: float, ends_s: float
    ) -> None:
        self.has_begun = False
        self.is_over = False
        self._pieces_max = pieces_max
        self._pieces_bytes_max = pieces_bytes_max
        self._waiting_bytes = 0
        self._piece_s = piece_s
        self._ends_s = ends_s
        self._said: deque[Piece | TextEnd] = deque()
        self._reader: asyncio.Future[None] | None = None

    def take(self, call: Asked, said: Piece | TextEnd, now_s: float) -> None:
        """Add a piece or the end; whoever reads too slowly loses the rest."""
        self.has_begun = True
        size_bytes = _bytes_of(said)
        if size_bytes and self._has_no_room(size_bytes):
            call.fail(UnavailableError("gate.reader", "the answer was not read fast enough"))
        if not call.future.done():  # else something is missing before it
            self._said.append(said)
            self._waiting_bytes += size_bytes
            call.deadline_s = min(now_s + self._piece_s, self._ends_s)
        self.wake()

    def _has_no_room(self, size_bytes: int) -> bool:
        is_too_large = self._waiting_bytes + size_bytes > self._pieces_bytes_max
        return len(self._said) >= self._pieces_max or (bool(self._said) and is_too_large)

    def wake(self, _: object = None) -> None:
        """Have whoever waits look again."""
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def next(self, call: Asked, loop: asyncio.AbstractEventLoop) -> Piece | TextEnd:
        """The next piece, or the end.

        Raises:
            UnavailableError: as the call's future.
        """
        while not self._said:
            if call.future.done():
                call.future.result()
            self._reader = loop.create_future()
            await self._reader
        said = self._said.popleft()
        self._waiting_bytes -= _bytes_of(said)
        self.is_over = type(said) is TextEnd
        return said


def _bytes_of(said: Piece | TextEnd) -> int:
    """What waits with it; nothing of an end, for which there is always room."""
    return max(len(said.text.encode()), 1) if type(said) is Piece else 0
