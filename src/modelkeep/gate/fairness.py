"""Whose call is next when there is more to do than can be done: start-time fair queueing.

At most `room` calls of one model are under way, fewer while several principals wait; the others
wait, each principal's in a line of its own. Each line has a start tag; the line with the smallest
one goes next, and its tag grows by 1/weight (P. Goyal, H. M. Vin, H. Cheng: Start-time Fair
Queueing, SIGCOMM 1996). So:

1. A principal with a thousand calls waiting gets as many turns as one that has one waiting: when a
   line is new, its tag is that of the call which went last, and it goes within one round.
2. Each step of priority doubles the weight. Nobody starves.
3. Who would wait longer than `wait_ns_max` is refused at once; a call whose time ran out while it
   waited is refused when it is seen.
4. When the room to wait is full, the longest line of the lowest priority loses its newest call.

Whoever finds room and nobody waiting goes on without any of this. Loop, futures and clock are the
caller's.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Generator
from typing import Any, Protocol

from modelkeep.core.errors import UnavailableError
from modelkeep.core.instant import NS_PER_S
from modelkeep.gate.limit_settings import PRIORITY_MAX, QueueSettings

Who = tuple[str, str]  # tenant and principal
# How many calls may be under way, alone and while several principals wait.
Room = tuple[int, int]
# For how long after a second line began the smaller room counts.
SHARED_NS = NS_PER_S
PRIORITY_USUAL = 4
# Lines that are empty but had their turn lately; past it they are forgotten, all at once.
REMEMBERED_MAX = 4096
_PACE_PARTS = 8  # of the pace's moving average, one is the newest


class Turn(Protocol):
    """What a waiting call waits for: a future of the loop; its result says whether it may go."""

    def __await__(self) -> Generator[Any, None, bool]:
        """Wait for the result."""
        ...

    def set_result(self, result: bool, /) -> None:  # noqa: FBT001  # a future's own signature
        """Let it go on."""
        ...

    def result(self) -> bool:
        """Whether it may go."""
        ...

    def done(self) -> bool:
        """Whether it has a result or was cancelled."""
        ...

    def cancelled(self) -> bool:
        """Whether nobody waits any more."""
        ...


class _Waiter:
    __slots__ = ("deadline_ns", "turn")

    def __init__(self, turn: Turn, deadline_ns: int) -> None:
        self.turn = turn
        self.deadline_ns = deadline_ns


class _Line:
    """The waiting calls of one principal; `number` names its only valid place in the heap."""

    __slots__ = ("number", "priority", "start", "waiting", "who")

    def __init__(self, who: Who, priority: int, start: int) -> None:
        self.who = who
        self.priority = priority
        self.start = start
        self.number = -1
        self.waiting: deque[_Waiter] = deque()

    @property
    def weight(self) -> int:
        return 1 << self.priority

    @property
    def cost(self) -> int:
        return 1 << (PRIORITY_MAX - self.priority)


class FairQueue:
    """The calls of one model in one gateway.

    Attributes:
        room: calls that may be under way, where nobody else waits; may change at any time.
        in_flight: calls under way.
        waiting: calls that wait.
        shed_count: calls that were refused here.
    """

    def __init__(
        self,
        settings: QueueSettings,
        *,
        room: Room,
        make_turn: Callable[[], Turn],
        now_ns: Callable[[], int],
    ) -> None:
        self.settings = settings
        self.room, self._room_shared = room
        self.in_flight = 0
        self.waiting = 0
        self.shed_count = 0
        self._make_turn = make_turn
        self._now_ns = now_ns
        self._lines: dict[Who, _Line] = {}
        self._heap: list[tuple[int, int, _Line]] = []
        self._ends: dict[Who, int] = {}
        self._virtual = 0
        self._number = 0
        self._weights = 0  # of all lines
        self._pace_ns = 0  # between two turns, while somebody waits
        self._went_ns = 0
        self._shared_ns = 0  # until when the smaller room counts

    async def enter(self, who: Who, priority: int = PRIORITY_USUAL) -> None:
        """Wait for a turn; `leave` ends it. Who raises has no turn.

        Raises:
            UnavailableError: `gate.busy`, with `retry_after_s`.
        """
        if self.in_flight < self.room and not self.waiting:
            self.in_flight += 1
            return
        waiter = self._queued(who, priority)
        try:
            goes = await waiter.turn
        except BaseException:  # whoever called has gone
            if not waiter.turn.done() or waiter.turn.cancelled():
                self._forget(who, waiter)
            elif waiter.turn.result():
                self.leave()
            raise
        if not goes:
            raise self._shed(self.settings.wait_s_max)

    def leave(self) -> None:
        """End a turn; the next call goes."""
        self.in_flight -= 1
        if self.waiting:
            now_ns = self._now_ns()
            if self._went_ns:
                gap_ns = min(now_ns - self._went_ns, NS_PER_S)
                self._pace_ns += (gap_ns - self._pace_ns) // _PACE_PARTS
            self._went_ns = now_ns
            self._go_on(now_ns)

    def tend(self, room: Room) -> None:
        """Set the room, let calls in that fit now, refuse calls whose time ran out."""
        self.room, self._room_shared = room
        if not self.waiting:
            return
        now_ns = self._now_ns()
        for line in [each for each in self._lines.values() if each.waiting]:
            while line.waiting and line.waiting[0].deadline_ns <= now_ns:
                self._refuse(line.waiting.popleft())
            if not line.waiting:
                self._ended(line)
        self._go_on(now_ns)

    def is_idle(self) -> bool:
        """Whether nothing is under way and nobody waits."""
        return not self.in_flight and not self.waiting

    def _queued(self, who: Who, priority: int) -> _Waiter:
        """Join a line.

        Raises:
            UnavailableError: `gate.busy`.
        """
        line = self._lines.get(who)
        ahead = len(line.waiting) if line is not None else 0
        weight = 1 << priority
        weights = self._weights + (weight if line is None else 0)
        wait_ns = (ahead + 1) * self._pace_ns * weights // weight
        if ahead >= self.settings.waiting_each_max or wait_ns > self._wait_ns_max:
            raise self._shed(wait_ns / NS_PER_S)
        if self.waiting >= self.settings.waiting_max and not self._made_room(priority, ahead):
            raise self._shed(wait_ns / NS_PER_S)
        if not self.waiting:
            self._went_ns = 0  # a new rush: its pace begins with its first two turns
        line = self._lines.get(who) or self._begun(who, priority)
        waiter = _Waiter(self._make_turn(), self._now_ns() + self._wait_ns_max)
        line.waiting.append(waiter)
        self.waiting += 1
        return waiter

    @property
    def _wait_ns_max(self) -> int:
        return int(self.settings.wait_s_max * NS_PER_S)

    def _begun(self, who: Who, priority: int) -> _Line:
        if self._lines:
            self._shared_ns = self._now_ns() + SHARED_NS
        line = _Line(who, priority, max(self._virtual, self._ends.pop(who, 0)))
        self._lines[who] = line
        self._weights += line.weight
        self._placed(line)
        return line

    def _placed(self, line: _Line) -> None:
        self._number += 1
        line.number = self._number
        heapq.heappush(self._heap, (line.start, line.number, line))

    def _go_on(self, now_ns: int) -> None:
        room = min(self.room, self._room_shared) if now_ns < self._shared_ns else self.room
        while self.waiting and self.in_flight < room:
            start, number, line = heapq.heappop(self._heap)
            if line.number != number:
                continue
            self._virtual = start
            line.start = start + line.cost
            waiter = line.waiting.popleft()
            if waiter.deadline_ns <= now_ns or waiter.turn.done():  # done: it has gone away
                self._refuse(waiter)
            else:
                self.waiting -= 1
                self.in_flight += 1
                waiter.turn.set_result(True)
            if line.waiting:
                self._placed(line)
            else:
                self._ended(line)

    def _ended(self, line: _Line) -> None:
        """A line is empty: how far it came is remembered as long as others wait."""
        del self._lines[line.who]
        self._weights -= line.weight
        line.number = -1
        if not self._lines:
            self._ends.clear()
            self._heap.clear()
            self._virtual = 0
            return
        if len(self._ends) >= REMEMBERED_MAX:
            self._ends.clear()
        self._ends[line.who] = line.start

    def _refuse(self, waiter: _Waiter) -> None:
        """Tell a call that was taken out of its line that it may not go."""
        self.waiting -= 1
        if not waiter.turn.done():
            waiter.turn.set_result(False)

    def _forget(self, who: Who, waiter: _Waiter) -> None:
        line = self._lines.get(who)
        if line is None or waiter not in line.waiting:
            return  # it was refused before it went away
        line.waiting.remove(waiter)
        self.waiting -= 1
        if not line.waiting:
            self._ended(line)

    def _made_room(self, priority: int, ahead: int) -> bool:
        """Refuse the newest call of the longest line of the lowest priority, if that is fair."""
        if not self._lines:
            return False
        victim = min(self._lines.values(), key=lambda each: (each.priority, -len(each.waiting)))
        if (victim.priority, -len(victim.waiting)) >= (priority, -(ahead + 1)):
            return False
        self._refuse(victim.waiting.pop())
        if not victim.waiting:
            self._ended(victim)
        return True

    def _shed(self, wait_s: float) -> UnavailableError:
        self.shed_count += 1
        retry_after_s = max(1, min(round(wait_s + 0.5), 60))
        return UnavailableError(
            "gate.busy",
            "more calls are waiting than can be answered in time",
            hint=f"try again in {retry_after_s} s",
            retry_after_s=retry_after_s,
        )
