"""What the supervisor forgets: models of destroyed domains, whose plaintext is in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from modelkeep.adapters.memory_file import MemoryFile
from modelkeep.core.errors import KeepError
from modelkeep.core.rows import Domain, DomainStatus
from modelkeep.ports.state import State
from modelkeep.workers.plan import ReplicaPlan
from modelkeep.workers.process import Child, stopped

LOOK_EVERY_S = 0.5
GRACE_S = 0.5


class Shredder:
    """Ends the replicas of a destroyed domain for good; the gateway refuses its calls by then.

    Args:
        domains: domain of each served model, by (name, version).
        memories: of each served model, likewise.
        open_state: opens State for reading; called again after a failure.
    """

    def __init__(
        self,
        children: Sequence[Child],
        domains: Mapping[tuple[str, int], str],
        memories: Mapping[tuple[str, int], MemoryFile],
        open_state: Callable[[], State],
    ) -> None:
        self._children = children
        self._domains = domains
        self._memories = memories
        self._open_state = open_state
        self._state: State | None = None
        self._revision: int | None = None
        self._not_before_s = 0.0

    def drop(self) -> tuple[str, ...]:
        """Look, twice a second at most; names of the replicas that were ended."""
        if time.monotonic() < self._not_before_s:
            return ()
        self._not_before_s = time.monotonic() + LOOK_EVERY_S
        dead = self._dead()
        hit = [child for child in self._children if not child.is_over and self._is_of(child, dead)]
        for child in hit:
            child.is_over = True
        stopped(hit, grace_s=GRACE_S)
        for plan in (child.plan for child in hit):
            if isinstance(plan, ReplicaPlan):
                self._memories[plan.model, plan.version].wiped()
        return tuple(child.name for child in hit)

    def wipe(self) -> None:
        """Wipe every model: nothing serves it any more; idempotent."""
        for each in self._memories.values():
            each.wiped()

    def close(self) -> None:
        """Release State; idempotent."""
        if self._state is not None:
            self._state.close()
            self._state = None

    def _is_of(self, child: Child, dead: frozenset[str]) -> bool:
        plan = child.plan
        if not isinstance(plan, ReplicaPlan):
            return False
        return self._domains.get((plan.model, plan.version), "") in dead

    def _dead(self) -> frozenset[str]:
        """Destroyed domains, if State has changed since the last look."""
        try:
            if self._state is None:
                self._state = self._open_state()
            revision = self._state.revision()
            if revision == self._revision:
                return frozenset()
            rows = self._state.rows(Domain)
        except KeepError:  # the gateway lets nobody in while State is silent; we look again
            self.close()
            self._revision = None
            return frozenset()
        self._revision = revision
        return frozenset(row.name for row in rows if row.status is DomainStatus.DESTROYED)
