"""What State says that concerns a running service: which versions are wanted, whose keys are gone.

Every entry of the ledger changes State; the keep is opened again only when one of these rows did.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from modelkeep.core.errors import KeepError
from modelkeep.core.rows import Alias, Deprecation, Domain, DomainStatus, Traffic
from modelkeep.ports.state import State

LOOK_EVERY_S = 0.25


@dataclass(frozen=True, slots=True)
class Seen:
    """What State said.

    Attributes:
        wanted: another value means that something else may be wanted.
        dead: domains whose keys were destroyed.
        shut: domains whose models nobody may load now.
    """

    wanted: tuple[object, ...]
    dead: frozenset[str]
    shut: frozenset[str]


class StateEye:
    """Looks at State a few times a second.

    Args:
        open_state: opens State for reading; called again after a failure.
    """

    def __init__(self, open_state: Callable[[], State]) -> None:
        self._open_state = open_state
        self._state: State | None = None
        self._revision: int | None = None
        self._not_before_s = 0.0

    def look(self) -> Seen | None:
        """What State says, if that has changed since the last look and State answers."""
        if time.monotonic() < self._not_before_s:
            return None
        self._not_before_s = time.monotonic() + LOOK_EVERY_S
        try:
            if self._state is None:
                self._state = self._open_state()
            revision = self._state.revision()  # before the rows: what changes then is read again
            if revision == self._revision:
                return None
            seen = _seen(self._state)
        except KeepError:  # the gateways let nobody in while State is silent; we look again
            self.close()
            self._revision = None
            return None
        self._revision = revision
        return seen

    def close(self) -> None:
        """Release State; idempotent."""
        if self._state is not None:
            self._state.close()
            self._state = None


def _seen(state: State) -> Seen:
    rows = state.rows
    domains = sorted(rows(Domain), key=lambda row: row.name)
    aliases = sorted((row.model, row.alias, row.version) for row in rows(Alias))
    deprecations = sorted((row.model, row.version, row.until_ns) for row in rows(Deprecation))
    traffic = tuple(sorted(rows(Traffic), key=lambda row: row.model))
    statuses = tuple((row.name, row.status) for row in domains)
    return Seen(
        wanted=(
            state.applied().snapshot,
            tuple(aliases),
            tuple(deprecations),
            traffic,
            statuses,
        ),
        dead=frozenset(row.name for row in domains if row.status is DomainStatus.DESTROYED),
        shut=frozenset(row.name for row in domains if row.status is not DomainStatus.LIVE),
    )
