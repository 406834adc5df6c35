"""What the supervisor tells of its service: the operator, other commands, the ledger."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from modelkeep.adapters.recorder_client import RecorderClient
from modelkeep.core.entry import Entry, Fact
from modelkeep.core.errors import KeepError
from modelkeep.core.record import to_json
from modelkeep.wiring import KeepFolder, system_clock, write_file

# Facts that wait for a recorder that is down: one process restarting for a minute makes 40.
UNTOLD_MAX = 1000
# A recorder that hangs must not hold up the restart of others for long.
TELL_S_MAX = 2.0
NOTICE_RETRY_S = 2.0

Facts = Mapping[str, object]


@dataclass(slots=True)
class Notice:
    """What is told of the service in a file of its run folder; a full disk only delays it."""

    facts: Callable[[], Facts]
    folder: KeepFolder
    is_current: bool = False
    not_before_s: float = 0.0

    def written_if_due(self) -> None:
        """Write the file anew if it is outdated; after a failure not at once again."""
        if self.is_current or time.monotonic() < self.not_before_s:
            return
        raw = to_json(self.facts())
        try:
            write_file(self.folder.world.disk, self.folder.service_file, raw)
        except KeepError as error:
            warn(str(error))
            self.not_before_s = time.monotonic() + NOTICE_RETRY_S
            return
        self.is_current = True


class Untold:
    """Facts on their way to the ledger; while the recorder does not answer, they wait here."""

    def __init__(self, folder: KeepFolder) -> None:
        self._folder = folder
        self._entries: deque[Entry] = deque(maxlen=UNTOLD_MAX)
        self._not_before_s = 0.0

    def add(self, kind: str, **facts: Fact) -> None:
        """Note a fact."""
        at_ns = system_clock().now_ns()
        self._entries.append(Entry(kind=kind, at_ns=at_ns, actor="supervisor", facts=facts))

    def tell(self) -> None:
        """Hand what waits to the recorder."""
        if not self._entries or time.monotonic() < self._not_before_s:
            return
        try:
            client = RecorderClient(self._folder.run_folder, timeout_s=TELL_S_MAX)
            client.record(tuple(self._entries))
        except KeepError:
            self._not_before_s = time.monotonic() + NOTICE_RETRY_S / 10
            return
        self._entries.clear()


def say(facts: Facts, *, trust: str, as_json: bool) -> None:
    """Announce the service on standard output."""
    if as_json:
        said = to_json({"event": "ready", **facts}).decode()
    else:
        models = facts["models"]
        assert isinstance(models, list)
        where = f"{facts['url']}, gRPC at {facts['grpc']}" if facts["grpc"] else facts["url"]
        said = f"serving {', '.join(models)} at {where} (trust {trust})"
    sys.stdout.write(said + "\n")
    sys.stdout.flush()


def warn(text: str, *, hint: str = "") -> None:
    """Write what went wrong in one line for whoever runs the service; a hint gets its own."""
    tell(f"warning: {text}")
    if hint:
        tell(f"hint: {hint}")


def tell(text: str) -> None:
    """Write one line for whoever runs the service."""
    sys.stderr.write(f"modelkeep: {text}\n")
    sys.stderr.flush()


def ending(status: int) -> str:
    """How a process ended, for people."""
    return f"signal {-status}" if status < 0 else f"status {status}"
