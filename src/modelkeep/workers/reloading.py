"""What became of a changed modelkeep.toml, told to whoever runs the service.

Some keys are read at every look; the others are in force as they were when the service started,
so those are compared with that, whatever the file said in between.
"""

from __future__ import annotations

from modelkeep.config import Config
from modelkeep.core.record import as_plain
from modelkeep.workers.telling import tell, warn

# Read by a running service at every look; whatever else changes is for its next start.
_HOT_TABLES = (
    *(
        "inputs",
        "outputs",
        "upstreams",
        "limits",
        "queue",
        "hosts",
        "objectives",
        "retention",
        "preflight",
        "approvals",
    ),
    *("vault", "scan", "admission", "advisories", "keys", "argon2"),
)
_HOT_SERVE = (
    *("models", "replicas", "replicas_max", "calls_per_replica", "threads", "batch_rows_max"),
    *("streams_max", "context_max", "certificate", "key", "hostnames"),
)


class Reloading:
    """Remembers what is in force and what was said.

    Args:
        started: the configuration that the service was started with.
    """

    def __init__(self, started: Config) -> None:
        self._started = started
        self._said: tuple[str, ...] = ()
        self._is_asked = False
        self._is_begun = False
        self._extras: list[str] = []

    def asked(self) -> None:
        """Somebody asked for a reload: what comes of the next look is said."""
        self._is_asked = True

    def begun(self) -> None:
        """A look begins, after whatever was asked so far."""
        self._is_begun, self._is_asked = self._is_begun or self._is_asked, False

    def also(self, what: str) -> None:
        """Something beside modelkeep.toml changed with a reload that is under way."""
        if self._is_asked or self._is_begun:
            self._extras.append(what)

    def ended(self, before: Config, after: Config | None, *, is_whole: bool) -> None:
        """A look is over: say what it changed if it was asked for, and what waits.

        Args:
            after: None where modelkeep.toml could not be read.
            is_whole: whether all that is wanted came up; what did not was said by itself.
        """
        is_asked, self._is_begun = self._is_begun, False
        extras, self._extras = self._extras, []
        if after is None:
            return
        waiting = tuple(key for key in _changed(self._started, after) if not _is_hot(key))
        if waiting and (is_asked or waiting != self._said):
            warn(f"in force after a restart: {', '.join(waiting)}")
        self._said = waiting
        if not is_asked:
            return
        now = [*(key for key in _changed(before, after) if _is_hot(key)), *extras]
        if now:
            tell(f"reloaded: {', '.join(dict.fromkeys(now))}")
        elif is_whole:
            tell("reloaded: nothing changed" if not waiting else "reloaded: nothing else changed")


def _is_hot(key: str) -> bool:
    return key in _HOT_TABLES or key.removeprefix("serve.") in _HOT_SERVE


def _changed(old: Config, new: Config) -> list[str]:
    """Tables that differ; of `[serve]` the keys."""
    was, became = as_plain(old), as_plain(new)
    tables = [name for name in became if name != "serve" and became[name] != was[name]]
    keys = became["serve"]
    return tables + [f"serve.{name}" for name in keys if keys[name] != was["serve"][name]]
