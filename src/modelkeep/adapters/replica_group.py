"""All replicas of one version of one model: who is asked, who is doubted, what is asked again.

Theory of operation. Calls of one turn of the event loop are placed together at its end, on the
least loaded replicas that are in service; where none is, they wait. Every `SWEEP_S` the group looks
after what does not happen by itself:

- a call whose deadline has passed fails;
- a replica that owes an answer and is silent for long is suspected: no new calls, and those it has
  are asked of another one too; the first answer wins, so a replica that is only slow does no harm;
- one that is silent for very long hangs: its connection is closed and the supervisor is told;
- a call that takes longer than 95 of 100 is asked of a second replica (hedging);
- a replica that was ejected comes back, and gets more calls from second to second.

Everything that is sent a second time comes out of a budget (`gate.budget`): the retries out of one,
from which a call that lost its replica waits its turn; the hedges out of another, which only has
what calls bring. Inference is idempotent: a call may be computed twice and is answered once. A text
is sent again only while none of it has been given away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from modelkeep.adapters.replica_calls import Asked
from modelkeep.adapters.replica_link import Link
from modelkeep.core.errors import KeepError, UnavailableError
from modelkeep.gate.balance import least_loaded, warmth, weighed
from modelkeep.gate.breaker import Breaker
from modelkeep.gate.budget import Budget
from modelkeep.gate.health import is_silent, may_eject
from modelkeep.gate.latency import Latencies
from modelkeep.gate.pool_settings import PoolSettings
from modelkeep.kernels.link_frames import CANCELLED
from modelkeep.kernels.replica_faults import error_of_fault, printable_fault, runtime_failed
from modelkeep.kernels.replica_frames import FaultFrame

# How often slow calls are looked for while there are calls; deadlines and replicas, always.
TICK_S = 0.01
SWEEP_S = 0.05
# Calls of one turn go to one replica together, when the model is so fast that waking a second
# process costs more than computing: one wake-up and one run of the model instead of many. A
# slower model gets its calls one by one, each to the least loaded replica.
TOGETHER_CALLS = 16
TOGETHER_S = 0.002
HEDGE_SHARE = 0.95
# How often at most a group logs what its replicas' runtimes say.
NOTE_S = 1.0
# The fault that may be the replica's own: another one is asked before the call is blamed.
_MAY_BE_ITS_OWN = "runtime.failed"


@dataclass(frozen=True, slots=True)
class Told:
    """Whom a group tells what happened.

    Attributes:
        complain: one line for developers.
        on_resent: so many calls were sent again after a lost replica.
        on_ejected: model, version and socket of a replica that hangs.
    """

    complain: Callable[[str], None]
    on_resent: Callable[[int], None]
    on_ejected: Callable[[str, int, str], None]


class Group:
    """All replicas of one version of one model."""

    def __init__(
        self,
        model: str,
        version: int,
        *,
        loop: asyncio.AbstractEventLoop,
        settings: PoolSettings,
        told: Told,
    ) -> None:
        self.loop = loop
        self.model = model
        self.version = version
        self.settings = settings
        self.complain = told.complain
        self.breaker = Breaker(settings)
        self.links: list[Link] = []
        self.waiting: list[Asked] = []
        self.is_hedging = False
        self._told = told
        self._arrived: list[Asked] = []
        self._postponed: list[Asked] = []
        self._round_trip_s = 0.0
        self._latencies = Latencies()
        self._longest_pause_s = -1.0
        self._noted_s = -NOTE_S
        self._pause_by_link: dict[Link, float] = {}
        self._turn = 0
        self._calls = 0
        self._ready: list[Link] = []
        self._is_warming = False
        self._hedge_after_s = float("inf")
        now_s = loop.time()
        self._retries = Budget(
            percent=settings.retry_percent, per_s_min=settings.retries_per_s_min, now_s=now_s
        )
        self._hedges = Budget(percent=settings.hedge_percent, per_s_min=0, now_s=now_s)

    # ---- who belongs to it ---------------------------------------------------------------------

    def join(self, link: Link) -> None:
        """Add a replica; it is in service when it has said hello."""
        self.links.append(link)
        link.connect()
        self.sort()

    def leave(self, link: Link) -> None:
        """Take a replica out: no new calls while others are there; closed when it has answered."""
        link.leaves_s = self.loop.time()
        self.sort()

    def sort(self) -> None:
        """Say anew who is in service; where nobody is, whoever is at least there."""
        there = [each for each in self.links if each.is_greeted and not each.is_stuffed]
        staying = [each for each in there if not each.leaves_s]
        good = [each for each in staying if not each.health.is_ejected and not each.is_suspected]
        self._ready = good or staying or there
        self.is_hedging = len(self._ready) > 1 and self.settings.hedge_percent > 0
        now_s = self.loop.time()
        slow_s = self.settings.slow_start_s
        self._is_warming = any(now_s - each.back_s < slow_s for each in self._ready)
        if self._ready and self.waiting:
            waiting, self.waiting = self.waiting, []
            for call in waiting:
                if not call.future.done():
                    self.place(call)

    @property
    def ready_count(self) -> int:
        """How many replicas are in service."""
        return len(self._ready)

    @property
    def pending_count(self) -> int:
        """How many calls are under way or wait."""
        waiting = len(self.waiting) + len(self._postponed) + len(self._arrived)
        return waiting + sum(len(each.pending) for each in self.links)

    # ---- calls ---------------------------------------------------------------------------------

    def place(self, call: Asked) -> None:
        """Take a call; it is sent at the end of this turn of the loop, with its neighbours."""
        if not self._arrived:
            self.loop.call_soon(self._dispatch)
        self._arrived.append(call)

    def drop(self, call: Asked) -> None:
        """Nobody waits for this call any more."""
        call.future.cancel()
        if call in self._arrived:
            self._arrived.remove(call)
        for link in self.links:
            if call.number in link.pending:
                link.cancel(call)

    def expire(self, call: Asked) -> None:
        """A call's own time is over: no fault of a replica, and nobody waits any more."""
        text = "the answer took longer than the call's timeout"
        call.fail(UnavailableError("gate.deadline", text, hint="give the call more time, or none"))
        self.drop(call)

    def _dispatch(self) -> None:
        """Send what arrived to the least loaded replicas, or keep it until one is ready."""
        arrived, self._arrived = self._arrived, []
        if self.pending_count + len(arrived) > self.settings.pending_max:
            arrived = self._within_bound(arrived)
        ready = self._ready
        if not ready:
            self.waiting += arrived
            return
        self._calls += len(arrived)
        is_fast = self._round_trip_s < TOGETHER_S and (not arrived or arrived[0].talk is None)
        together = TOGETHER_CALLS if is_fast else 1
        if len(arrived) <= together:
            if arrived:
                ready[self._chosen(self._loads(ready))].send(arrived)
            return
        loads, costs = self._loads(ready), [1 / each for each in self._warmth(ready)]
        shares: list[list[Asked]] = [[] for _ in ready]
        for start in range(0, len(arrived), together):
            calls = arrived[start : start + together]
            index = self._chosen(loads)
            loads[index] += len(calls) * costs[index]
            shares[index] += calls
        for link, calls in zip(ready, shares, strict=True):
            if calls:
                link.send(calls)

    def _loads(self, ready: Sequence[Link]) -> list[float]:
        """What each has to do: calls under way, more of them if it is not warm yet."""
        if not self._is_warming:
            return [len(link.pending) for link in ready]
        shares = self._warmth(ready)
        return [weighed(len(link.pending), each) for link, each in zip(ready, shares, strict=True)]

    def _warmth(self, ready: Sequence[Link]) -> list[float]:
        if not self._is_warming:
            return [1.0] * len(ready)
        now_s, slow_s = self.loop.time(), self.settings.slow_start_s
        return [warmth(now_s - link.back_s, slow_s) for link in ready]

    def _chosen(self, loads: Sequence[float]) -> int:
        self._turn += 1
        return least_loaded(loads, turn=self._turn)

    def _least_loaded(self, ready: Sequence[Link]) -> Link:
        return ready[self._chosen(self._loads(ready))]

    def _within_bound(self, arrived: list[Asked]) -> list[Asked]:
        """Those of the new calls for which there is room; the others fail."""
        room = max(0, self.settings.pending_max - self.pending_count)
        for call in arrived[room:]:
            text = f"too many calls of {self.model} are under way"
            call.fail(UnavailableError("gate.pending", text, hint="try again later"))
        return arrived[:room]

    def note_round_trip(self, seconds: float) -> None:
        """Learn how long this model takes, replica's queue included; slowly forgets."""
        self._round_trip_s += (seconds - self._round_trip_s) / 16
        self._latencies.note(seconds)
        if self.breaker.failures:
            self.breaker.succeeded()

    # ---- what replicas do ----------------------------------------------------------------------

    def greeted(self, link: Link) -> None:
        """A replica is there."""
        del link
        self.sort()

    def lost(self, link: Link, pending: list[Asked]) -> None:
        """A replica is gone: ask its calls elsewhere."""
        for call in pending:
            call.copies -= 1
        open_calls = [each for each in pending if not each.future.done() and not each.copies]
        if open_calls:
            self._blame(link)
        self.sort()
        resent = 0
        for call in open_calls:
            if call.sends >= self.settings.sends_max or not call.may_be_resent:
                self._fail(
                    call,
                    UnavailableError("gate.replica_lost", "replicas were lost under this call"),
                )
            elif self._retries.take():
                self.place(call)
                resent += 1
            else:
                self._postponed.append(call)
        if resent:
            self._told.on_resent(resent)

    def settled(self, winner: Link, call: Asked) -> None:
        """A call that two replicas had is answered: tell the other one; it may have lied."""
        if call.copies:
            for link in self.links:
                if link is not winner and call.number in link.pending:
                    link.cancel(call)
        accused, call.accused = call.accused, None
        if accused is not None and accused is not winner:
            self._blame(accused)

    def faulted(self, link: Link, call: Asked, fault: FaultFrame) -> None:
        """A replica could not: ask a second one, once; if that cannot either, it is the call."""
        if call.future.done() or (call.copies and fault.code != CANCELLED):
            call.accused = link
            return
        others = [each for each in self._ready if each is not link]
        if (
            fault.code == _MAY_BE_ITS_OWN
            and call.accused is None
            and call.sends == 1
            and call.may_be_resent
            and others
            and self._retries.take()
        ):
            call.accused, call.is_marked = link, True
            self._least_loaded(others).send([call])
            return
        error = error_of_fault(fault) if call.talk is not None else runtime_failed()
        if error.code == "runtime.failed":
            self._note_failure(link, fault)
        call.fail(error)

    def _note_failure(self, link: Link, fault: FaultFrame) -> None:
        """Log what a runtime said, now and then: a caller may make it say so again and again."""
        now_s = self.loop.time()
        if now_s - self._noted_s >= NOTE_S:
            self._noted_s = now_s
            said = printable_fault(fault)
            self.complain(f"{self.model}:{self.version} {link.name}: {said}")

    def _blame(self, link: Link) -> None:
        if link.health.failed(self.settings):
            self._eject(link)

    def _eject(self, link: Link) -> bool:
        out = sum(1 for each in self.links if each.health.is_ejected)
        if not may_eject(out, len(self.links), self.settings):
            return False
        link.health.eject(self.loop.time(), self.settings)
        self.complain(f"{self.model}:{self.version} {link.name}: no calls for a while")
        self.sort()
        return True

    # ---- what does not happen by itself --------------------------------------------------------

    def hedge(self, now_s: float) -> None:
        """Ask calls that take long of a second replica."""
        for link in self._ready:
            for call in list(link.pending.values()) if link.pending else ():
                if now_s - call.sent_s < self._hedge_after_s:
                    break
                if call.is_marked or call.talk is not None or call.future.done():
                    continue
                others = [
                    each
                    for each in self._ready
                    if each is not link and len(each.pending) < len(link.pending)
                ]
                if not others or not self._hedges.take():
                    return
                call.is_marked = True
                self._least_loaded(others).send([call])

    def sweep(self, now_s: float) -> None:
        """Look after deadlines, silent replicas, ejected ones and those that leave."""
        calls, self._calls = self._calls, 0
        self._retries.earn(calls, now_s)
        self._hedges.earn(calls, now_s)
        if self.is_hedging and calls:
            usual_s = self._latencies.quantile(HEDGE_SHARE)
            self._hedge_after_s = max(usual_s, self.settings.hedge_after_s_min)
        for link in tuple(self.links):
            self._look_after(link, now_s)
        self._fail_late(now_s)
        while self._postponed and self._ready and self._retries.take():
            call = self._postponed.pop(0)
            if not call.future.done():
                self.place(call)
        if self._is_warming:
            self.sort()

    def _look_after(self, link: Link, now_s: float) -> None:
        if link.leaves_s and self._may_go(link, now_s):
            self.links.remove(link)
            self._pause_by_link.pop(link, None)
            link.close()
            self.sort()
            return
        if not link.is_greeted:
            if link.is_mute(now_s):
                link.abort()
            return
        silent_s = link.silent_s(now_s)
        self._learn_pause(link, silent_s)
        if silent_s > (self.settings.text_hung_s if link.has_text else self.settings.hung_s):
            self._give_up(link, now_s)
            return
        is_doubtful = is_silent(silent_s, self._longest_pause_s, self.settings)
        if is_doubtful and not link.is_suspected and not link.has_text:
            self._suspect(link)
        elif link.is_suspected and not silent_s:
            link.is_suspected = False
            link.back_s = now_s
            self.sort()
        if link.health.may_return(now_s):
            link.health.returned()
            link.back_s = now_s
            self.sort()
        if not link.pending and now_s - link.heard_s > self.settings.ping_s:
            link.ping(now_s)

    def _may_go(self, link: Link, now_s: float) -> bool:
        """Whether a replica that leaves has answered, or has had its time."""
        if now_s - link.leaves_s > self.settings.drain_s:
            return True
        return not link.pending and link not in self._ready

    def _learn_pause(self, link: Link, silent_s: float) -> None:
        """Remember the longest pause between two answers; a pause that never ends is none."""
        before_s = self._pause_by_link.get(link, 0.0)
        self._pause_by_link[link] = silent_s
        if silent_s < before_s or (self._longest_pause_s < 0 and self._round_trip_s > 0):
            self._longest_pause_s = max(before_s, self._longest_pause_s * 0.999, 0.0)

    def _suspect(self, link: Link) -> None:
        """No new calls for a silent replica, and a second one for those that it has."""
        link.is_suspected = True
        self.sort()
        others = [each for each in self._ready if each is not link]
        if not others:
            return
        self.complain(f"{self.model}:{self.version} {link.name}: says nothing, others are asked")
        for call in list(link.pending.values()):
            if call.is_marked or call.future.done() or call.talk is not None:
                continue
            if not self._retries.take():
                return
            call.is_marked = True
            self._least_loaded(others).send([call])

    def _give_up(self, link: Link, now_s: float) -> None:
        """A replica hangs: close its connection, have it started anew."""
        self.complain(f"{self.model}:{self.version} {link.name}: hangs")
        if not self._eject(link):
            link.health.failures = 0
        link.heard_s = now_s
        link.abort()
        self._told.on_ejected(self.model, self.version, link.name)

    def _fail_late(self, now_s: float) -> None:
        late = UnavailableError(
            "gate.deadline", "no replica answered in time", hint="try again later"
        )
        for link in self.links:
            for call in link.pending.values():
                if call.deadline_s <= now_s and not call.future.done():
                    self._fail(call, late)
        for call in (*self.waiting, *self._postponed):
            if call.deadline_s <= now_s and not call.future.done():
                text = f"no replica of {self.model} is ready"
                error = UnavailableError("gate.no_replica", text, hint="try again later")
                self._fail(call, error)
        if self.waiting or self._postponed:
            self.waiting = [each for each in self.waiting if not each.future.done()]
            self._postponed = [each for each in self._postponed if not each.future.done()]

    def _fail(self, call: Asked, error: KeepError) -> None:
        self.breaker.failed(self.loop.time())
        call.fail(error)

    def close(self, error: KeepError) -> None:
        """Close every connection; what still waits fails."""
        for call in (*self.waiting, *self._postponed, *self._arrived):
            call.fail(error)
        self.waiting, self._postponed, self._arrived = [], [], []
        for link in self.links:
            for call in link.pending.values():
                call.fail(error)
            link.pending.clear()
            link.close()
        self.links = []
        self._ready = []
