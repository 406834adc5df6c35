"""The gateways as the supervisor sees them: what each has in force, and how it is doing.

Whatever is to be in force is sent whole at every change, and again when a gateway is started: so a
gateway that missed something, or was killed, cannot stay behind.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from modelkeep.core.errors import IntegrityError
from modelkeep.core.record import from_json, to_json
from modelkeep.workers.control import (
    CERTIFICATE,
    LOAD,
    METRICS,
    TABLE,
    End,
    Expositions,
    Load,
    Table,
)
from modelkeep.workers.process import Child

# A gateway that says nothing for so long is not counted on: it starts, or it hangs.
SILENT_S = 5.0
# It says something each second: by then it hangs, and another takes its place.
HUNG_S = 30.0
# Of a pause between two looks no more counts: when we were held up, so were the gateways.
_LOOK_S_MAX = 0.5


@dataclass(slots=True)
class Gateway:
    """One gateway.

    Attributes:
        load: what it said last since it was started; None before.
        silent_s: for how long it has said nothing while we listened.
    """

    child: Child
    end: End
    load: Load | None = None
    heard_s: float = 0.0
    silent_s: float = 0.0
    metrics: bytes = b""


@dataclass(slots=True)
class Gateways:
    """All gateways of one service."""

    all: tuple[Gateway, ...]
    _table: bytes = b""
    _chain: bytes = b""
    _listened_s: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, made: Iterable[tuple[Child, End]]) -> Gateways:
        """The gateways that a layout made."""
        return cls(tuple(Gateway(child, end) for child, end in made))

    def children(self) -> tuple[Child, ...]:
        """Their processes."""
        return tuple(each.child for each in self.all)

    def sends_table(self, table: Table) -> None:
        """Put a table in force everywhere."""
        self._table = to_json(table)
        for each in self.all:
            each.end.send(TABLE, self._table)

    def sends_chain(self, chain: bytes) -> None:
        """Have everybody serve another certificate."""
        self._chain = chain
        for each in self.all:
            each.end.send(CERTIFICATE, chain)

    def greet(self, child: Child) -> None:
        """A process is about to be started: what it reads first is everything that is in force."""
        for each in self.all:
            if each.child is child:
                self._drop_unread(each)
                each.load, each.metrics, each.silent_s = None, b"", 0.0
                each.end.forget()
                each.end.send(TABLE, self._table)
                if self._chain:
                    each.end.send(CERTIFICATE, self._chain)

    def listen(self) -> Iterator[Load]:
        """Take what they said; the loads that are new."""
        told = False
        now_s = time.monotonic()
        passed_s = min(now_s - self._listened_s, _LOOK_S_MAX)
        self._listened_s = now_s
        for each in self.all:
            each.silent_s += passed_s
            try:
                for kind, body in each.end.received():
                    if kind == LOAD:
                        each.load = from_json(Load, body, what="a gateway's load")
                        each.heard_s, each.silent_s = now_s, 0.0
                        yield each.load
                    elif kind == METRICS:
                        each.metrics, told = body, True
            except IntegrityError:
                each.child.killed()  # it is not what was started: another takes its place
            if each.silent_s > HUNG_S and each.load is not None:
                each.child.killed()
            each.end.flush()
        if told and len(self.all) > 1:
            self._relay_metrics()

    def loads(self) -> tuple[Load, ...]:
        """What those said that speak."""
        now_s = time.monotonic()
        return tuple(
            each.load
            for each in self.all
            if each.load is not None and now_s - each.heard_s < SILENT_S
        )

    def have(self, number: int) -> bool:
        """Whether every gateway that runs has this table, or a later one, in force."""
        return all(
            each.load is not None and each.load.table >= number
            for each in self.all
            if each.child.process is not None
        )

    def are_ready(self, number: int) -> bool:
        """Whether every gateway answers by this table."""
        return self.have(number) and all(
            each.load is not None and each.load.is_ready for each in self.all
        )

    def missing(self, number: int) -> str:
        """Why they do not all answer by this table, for people."""
        return "; ".join(
            f"{each.child.name} {why}" for each in self.all if (why := _missing(each.load, number))
        )

    def in_flight(self, model: str, version: int) -> int:
        """Calls of one version that are under way, as of a second ago."""
        return sum(
            each.in_flight
            for load in self.loads()
            for each in load.models
            if (each.model, each.version) == (model, version)
        )

    def hold(self, socket_name: str) -> bool:
        """Whether a gateway still holds a connection to a replica."""
        return any(socket_name in load.sockets for load in self.loads())

    def silent(self) -> frozenset[str]:
        """Sockets of replicas that no gateway is connected with."""
        loads = self.loads()
        return (
            frozenset(loads[0].silent).intersection(*(each.silent for each in loads[1:]))
            if loads
            else frozenset()
        )

    def close(self) -> None:
        """Close our ends."""
        for each in self.all:
            each.end.close()

    def _drop_unread(self, each: Gateway) -> None:
        """What its predecessor said last is not about it."""
        with contextlib.suppress(IntegrityError):
            for _ in each.end.received():
                continue

    def _relay_metrics(self) -> None:
        """Let each have what all others said of themselves."""
        for each in self.all:
            others = (other.metrics for other in self.all if other is not each)
            texts = Expositions(texts=tuple(text for text in others if text))
            each.end.send(METRICS, to_json(texts))


def _missing(load: Load | None, number: int) -> str:
    if load is None:
        return "says nothing"
    if load.table < number:
        return "does not take the table of models"
    return "" if load.is_ready else "knows no replica of some model that answers"
