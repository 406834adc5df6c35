"""Follows State for a gateway: reads who may call what, again as soon as that changes.

State is read by a thread of its own, because a database that does not answer must not stop the
gateway; what was read comes back into the event loop whole. State that cannot be read may hide a
revocation: after `STALE_S_MAX` without an answer the gateway is told to let nobody in, until the
next answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from modelkeep.core.errors import KeepError
from modelkeep.core.rows import Domain, Tenant
from modelkeep.gate.authn import Keyring, keyring_of
from modelkeep.gate.domains import KnownDomains
from modelkeep.ports.state import State

# With a look every `tokens_reload_s` (0.25 s), a revocation is in force within a second even if
# State fails right after it was written: 0.7 + 0.25 s.
STALE_S_MAX = 0.7
FIRST_WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Access:
    """Who may call what, as of one moment."""

    keyring: Keyring
    domains: KnownDomains


NOBODY = Access(keyring=Keyring(()), domains=KnownDomains())


class StateWatch:
    """Reads State every `every_s` until the process ends.

    Args:
        open_state: opens State for reading; called again after a failure.
        changed: takes what was read, in the event loop.
        complain: writes one line for developers.
        keyring_of: who is known, as State says it.
    """

    def __init__(
        self,
        open_state: Callable[[], State],
        *,
        every_s: float,
        changed: Callable[[Access], None],
        complain: Callable[[str], None],
        keyring_of: Callable[[State], Keyring] = keyring_of,
    ) -> None:
        self._open_state = open_state
        self._keyring_of = keyring_of
        self._every_s = every_s
        self._changed = changed
        self._complain = complain
        self._loop = asyncio.get_running_loop()
        self._answered_s = time.monotonic()
        self._is_blind = False
        self._first = asyncio.Event()
        self._state: State | None = None
        self._revision: int | None = None

    async def start(self) -> None:
        """Begin to read; returns once there was an answer or a failure, or after a while."""
        threading.Thread(target=self._read_on, name="state", daemon=True).start()
        try:
            await asyncio.wait_for(self._first.wait(), FIRST_WAIT_S)
        except TimeoutError:
            self._complain("State does not answer")

    async def guard(self) -> None:
        """Let nobody in while State is silent; a task for as long as the gateway runs."""
        while True:
            await asyncio.sleep(self._every_s)
            if not self._is_fresh():
                self._let_nobody_in()

    def _read_on(self) -> None:
        while True:
            asked_s = time.monotonic()
            try:
                self._tell(asked_s, self._read())
            except KeepError as error:
                self._complain(f"keys cannot be read: {error}")
                self._forget()
                self._tell(0.0, None)
            time.sleep(self._every_s)

    def _read(self) -> Access | None:
        """What State says; None where that has not changed."""
        if self._state is None:
            self._state = self._open_state()
        revision = self._state.revision()  # before the rows: what changes meanwhile is read again
        if revision == self._revision and not self._is_blind:
            return None
        rows = self._state.rows
        found = Access(
            keyring=self._keyring_of(self._state),
            domains=KnownDomains(rows(Domain), rows(Tenant)),
        )
        self._revision = revision
        return found

    def _forget(self) -> None:
        if self._state is not None:
            self._state.close()
            self._state = None
        self._revision = None

    def _tell(self, asked_s: float, found: Access | None) -> None:
        """Hand over what was true at some moment after `asked_s`."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
            self._loop.call_soon_threadsafe(self._take, asked_s, found)

    def _take(self, asked_s: float, found: Access | None) -> None:
        self._answered_s = max(self._answered_s, asked_s)
        if found is not None and self._is_fresh():
            self._is_blind = False
            self._changed(found)
        elif found is not None:  # too late to be used, and the only ones: the next look reads all
            self._let_nobody_in()
        self._first.set()

    def _let_nobody_in(self) -> None:
        if not self._is_blind:
            self._is_blind = True
            self._changed(NOBODY)

    def _is_fresh(self) -> bool:
        """An answer counts from when it was asked for: one that took long may be old."""
        return time.monotonic() - self._answered_s <= STALE_S_MAX
