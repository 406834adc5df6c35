"""A gateway's connections to the replicas of its models; groups come, change and go under load.

What happens to a call is in `replica_group`, what happens on one connection in `replica_link`. Here
is the table of groups: `add` and `change` make a group be what they say, `remove` lets it end. A
replica that is taken out answers what it was asked before its connection is closed, and a group
that is removed still takes the calls that were permitted before, for `LINGER_S`.

Bounds: a call waits until its deadline (`gate.deadline`, or `gate.no_replica` when none was ready)
and is sent a few times at most (`gate.replica_lost`); `gate.pending` and `gate.circuit` refuse
calls of a model that has too many or has not answered for long.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from pathlib import Path

from modelkeep.adapters.replica_calls import Asked, Talk
from modelkeep.adapters.replica_group import SWEEP_S, TICK_S, Group, Told
from modelkeep.adapters.replica_link import Link
from modelkeep.core.errors import KeepError, UnavailableError, UsageError
from modelkeep.gate.breaker import Circuit
from modelkeep.gate.pool_settings import PoolSettings
from modelkeep.kernels.replica_frames import (
    AnswerFrame,
    Piece,
    TextCall,
    TextEnd,
    call_frame,
    framed,
)
from modelkeep.kernels.wire import Tensor

# Between a call's permission and its question lies a turn of the event loop, not a second.
LINGER_S = 1.0
_SOCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class ReplicaPool:
    """The replicas of every served model, for one event loop.

    Args:
        run_folder: where the replicas' sockets are.
        complain: one line for developers.
        on_resent: told how many calls were sent again after a lost replica.
        on_ejected: told model, version and socket of a replica that hangs, so that it is restarted.
    """

    def __init__(
        self,
        run_folder: Path,
        *,
        call_timeout_s: float,
        complain: Callable[[str], None],
        settings: PoolSettings = PoolSettings(),  # noqa: B008  # frozen
        on_resent: Callable[[int], None] = lambda _calls: None,
        on_ejected: Callable[[str, int, str], None] = lambda _model, _version, _socket: None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self._settings = settings
        self._told = Told(complain, on_resent, on_ejected)
        self._call_timeout_s = call_timeout_s
        self._groups: dict[tuple[str, int], Group] = {}
        self._ends: dict[tuple[str, int], tuple[float, asyncio.Future[None]]] = {}
        self._number = 0
        # The path of a Unix socket has 108 bytes; through the folder's descriptor every name fits.
        self._folder_fd = os.open(run_folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._sweep_s = 0.0
        self._ticker: asyncio.TimerHandle | None = None

    # ---- the table of groups -------------------------------------------------------------------

    def add(self, model: str, version: int, sockets: Sequence[str]) -> None:
        """Serve a version of a model from these sockets; as `change` if it is served already.

        Raises:
            UsageError: `pool.address`.
        """
        self.change(model, version, sockets)

    def change(self, model: str, version: int, sockets: Sequence[str]) -> None:
        """Have exactly these replicas answer for a version; those that are new are connected.

        Those that are no longer named get no further call, answer what they have, and are closed.

        Raises:
            UsageError: `pool.address`; nothing has changed then.
        """
        wanted = dict.fromkeys(map(_checked_name, sockets))
        ended = self._ends.pop((model, version), None)
        if ended is not None:
            ended[1].cancel()
        group = self._groups.get((model, version))
        if group is None:
            group = self._groups[model, version] = Group(
                model,
                version,
                loop=self.loop,
                settings=self._settings,
                told=self._told,
            )
        there = {each.name for each in group.links if not each.leaves_s}
        for name in wanted:
            if name not in there:
                path = f"/proc/self/fd/{self._folder_fd}/{name}"
                group.join(Link(group, path=path, name=name))
        for link in group.links:
            if link.name not in wanted and not link.leaves_s:
                group.leave(link)
        if self._ticker is None:
            self._tick()

    def remove(self, model: str, version: int) -> asyncio.Future[None]:
        """Serve a version no more; done when its replicas have answered what they were asked.

        Until then its replicas have to stay. A version that is not served is removed at once.
        """
        done: asyncio.Future[None] = self.loop.create_future()
        if (model, version) not in self._groups:
            done.set_result(None)
        elif (model, version) in self._ends:
            return self._ends[model, version][1]
        else:
            self._ends[model, version] = (self.loop.time() + LINGER_S, done)
        return done

    def is_drained(self, model: str, version: int, socket_name: str) -> bool:
        """Whether a replica that was taken out has answered everything, and may be ended."""
        group = self._groups.get((model, version))
        return group is None or all(
            each.name != socket_name or not each.leaves_s for each in group.links
        )

    # ---- calls ---------------------------------------------------------------------------------

    def ask(
        self,
        model: str,
        version: int,
        inputs: Sequence[Tensor],
        *,
        timeout_s: float | None = None,
    ) -> asyncio.Future[AnswerFrame]:
        """Have one call computed.

        Args:
            timeout_s: how long its caller waits, where that is less than the gateway would.

        The future fails with UnavailableError: `gate.no_replica`, `gate.deadline`,
        `gate.replica_lost`, `gate.pending` or `runtime.failed`.

        Raises:
            UnavailableError: `gate.circuit`, or `gate.no_replica` for a version that is not served.
        """
        self._number = number = self._number + 1
        raws = tuple([each.raw for each in inputs])
        if len(raws) == 1:
            is_small = len(raws[0]) < self._settings.shared_from_bytes
        else:
            is_small = sum(map(len, raws)) < self._settings.shared_from_bytes
        frame = (
            call_frame(number, tuple([each.shape for each in inputs]), raws) if is_small else b""
        )
        now_s = self.loop.time()
        group = self._group(model, version, now_s)
        future: asyncio.Future[AnswerFrame] = self.loop.create_future()
        deadline_s = now_s + self._call_timeout_s
        call = Asked(number, future, frame=frame, inputs=inputs, now_s=now_s, deadline_s=deadline_s)
        group.place(call)
        if timeout_s is not None and timeout_s < self._call_timeout_s:
            timer = self.loop.call_later(timeout_s, group.expire, call)
            future.add_done_callback(lambda _: timer.cancel())
        return future

    async def talk(
        self, model: str, version: int, request: bytes
    ) -> AsyncIterator[Piece | TextEnd]:
        """Have a language model write; the last that comes is the end. Closing it cancels.

        Raises:
            UnavailableError: as of `ask`; `gate.replica_lost` also when a replica is lost after
                its first piece; `gate.reader` when the pieces are not read fast enough.
        """
        self._number = number = self._number + 1
        now_s, settings = self.loop.time(), self._settings
        group = self._group(model, version, now_s)
        talk = Talk(
            pieces_max=settings.pieces_max,
            pieces_bytes_max=settings.pieces_bytes_max,
            piece_s=self._call_timeout_s,
            ends_s=now_s + settings.talk_s_max,
        )
        call = Asked(
            number,
            self.loop.create_future(),
            frame=framed(TextCall(number, request)),
            inputs=(),
            now_s=now_s,
            deadline_s=now_s + self._call_timeout_s,
            talk=talk,
        )
        call.future.add_done_callback(talk.wake)
        group.place(call)
        try:
            while not talk.is_over:
                yield await talk.next(call, self.loop)
        finally:
            if not talk.is_over:
                group.drop(call)
            if call.future.done() and not call.future.cancelled():
                call.future.exception()  # it was told by `next`, or nobody listens any more

    def _group(self, model: str, version: int, now_s: float) -> Group:
        group = self._groups.get((model, version))
        if group is None:
            raise UnavailableError(
                "gate.no_replica", f"no replica of {model} is ready", hint="try again later"
            )
        if group.breaker.state is not Circuit.CLOSED and not group.breaker.permits(now_s):
            raise UnavailableError(
                "gate.circuit",
                f"{model} does not answer at present",
                hint="try again later",
                retry_after_s=group.breaker.retry_after_s(now_s),
            )
        return group

    # ---- questions -----------------------------------------------------------------------------

    def ready_count(self, model: str, version: int) -> int:
        """How many replicas of a version are in service."""
        group = self._groups.get((model, version))
        return group.ready_count if group is not None else 0

    def silent(self) -> tuple[str, ...]:
        """The sockets of replicas that ought to be there, and have said no hello."""
        return tuple(
            link.name
            for group in self._groups.values()
            for link in group.links
            if not link.is_greeted and not link.leaves_s
        )

    def pending_count(self, model: str, version: int) -> int:
        """How many calls of a version are under way or wait."""
        group = self._groups.get((model, version))
        return group.pending_count if group is not None else 0

    def close(self) -> None:
        """Close every connection; idempotent."""
        if self._ticker is not None:
            self._ticker.cancel()
        for group in self._groups.values():
            group.close(_over())
        for _, done in self._ends.values():
            done.cancel()
        self._groups.clear()
        self._ends.clear()
        if self._folder_fd >= 0:
            os.close(self._folder_fd)
            self._folder_fd = -1

    def _tick(self) -> None:
        """Look for slow calls often while there are some, after everything else now and then."""
        now_s = self.loop.time()
        groups = tuple(self._groups.values())
        is_busy = False
        for group in groups:
            if group.is_hedging and group.pending_count:
                is_busy = True
                group.hedge(now_s)
        if now_s >= self._sweep_s:
            self._sweep_s = now_s + SWEEP_S
            for group in groups:
                group.sweep(now_s)
            for key, (since_s, done) in tuple(self._ends.items()):
                self._end_if_drained(key, since_s, done, now_s)
        self._ticker = self.loop.call_later(TICK_S if is_busy else SWEEP_S, self._tick)

    def _end_if_drained(
        self, key: tuple[str, int], since_s: float, done: asyncio.Future[None], now_s: float
    ) -> None:
        """End a group that was removed: when nothing is under way, or has been for too long."""
        group = self._groups[key]
        is_late = now_s > since_s + self._settings.drain_s
        if now_s < since_s or (group.pending_count and not is_late):
            return
        group.close(_over())
        del self._groups[key], self._ends[key]
        with suppress(asyncio.InvalidStateError):
            done.set_result(None)


def _checked_name(text: str) -> str:
    if _SOCKET.fullmatch(text) is None:
        raise UsageError("pool.address", f"not the name of a replica's socket: {text[:200]}")
    return text


def _over() -> KeepError:
    return UnavailableError("gate.no_replica", "the model is served no more")
