"""A thread that carries checkpoints to the stores that witness, so that none of them is waited for.

It reads what the first store has, as anybody could, and needs nothing of the sequencer: however
long a witness takes, nothing is recorded or published later for it.
"""

from __future__ import annotations

import threading
from pathlib import Path

from modelkeep.core.errors import KeepError
from modelkeep.flows.witnessed import Poster
from modelkeep.ledger.log import LogReader
from modelkeep.ledger.settings import WitnessSettings
from modelkeep.ports.store import Store
from modelkeep.wiring import folder_store, system_clock
from modelkeep.workers.publishing import say

# A new log has its first checkpoint within a second or two; look again this soon until it has.
LOOK_S = 1.0


class Posting:
    """Posts the newest checkpoint of a log at most once in an interval, and when it ends.

    Args:
        root: the keep's folder, where relative paths of stores start.
    """

    def __init__(
        self, store: Store, *, origin: str, public: bytes, settings: WitnessSettings, root: Path
    ) -> None:
        self._log = LogReader(store, origin)
        self._public = public
        self._interval_s = settings.interval_s
        self._abroad = tuple(folder_store(root / each.path, each.label) for each in settings.stores)
        self._stop = threading.Event()
        self._failing: frozenset[str] = frozenset()
        self._thread = threading.Thread(target=self._run, daemon=True, name="witnesses")

    def start(self) -> None:
        """Start, unless there is nobody to post to."""
        if self._abroad:
            self._thread.start()

    def stop(self, wait_s: float) -> None:
        """Post what was published last, if that takes no longer than this."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(wait_s)

    def _run(self) -> None:
        due = Poster(self._abroad, interval_s=self._interval_s, clock=system_clock())
        while not self._stop.wait(min(LOOK_S, self._interval_s)):
            self._post(due)
        self._post(Poster(self._abroad, interval_s=0.0, clock=system_clock()))

    def _post(self, poster: Poster) -> None:
        """Post where it is due; a witness that fails is named once until it takes one again."""
        try:
            failed = poster.post(lambda: self._log.latest(public=self._public).checkpoint)
        except KeepError as unread:
            failed = (("of the log", unread),)
        for label, error in failed:
            if label not in self._failing:
                say(f"the witness {label} takes no checkpoint: {error}")
        self._failing = frozenset(label for label, _ in failed)
