"""Memory adapters: the ports with all their promises and no disk under them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from modelkeep.core.errors import IntegrityError, MissingError
from modelkeep.core.names import checked_object_name
from modelkeep.ports.store import ObjectStat


class MemoryStore:
    """A Store in a dict; `objects` is open to tests that want to do damage."""

    def __init__(self, label: str = "memory") -> None:
        self.label = label
        self.objects: dict[str, bytes] = {}

    def put(self, name: str, raw: bytes | memoryview) -> None:
        held = self.objects.setdefault(checked_object_name(name), bytes(raw))
        if held != raw:
            raise IntegrityError("store.exists", f"{self.label}: {name} exists with other bytes")

    def get(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        if checked_object_name(name) not in self.objects:
            raise MissingError("store.missing", f"{self.label}: no object {name}")
        return self.objects[name][start : None if length is None else start + length]

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        for name in sorted(self.objects):
            if name.startswith(prefix):
                yield ObjectStat(name=name, size_bytes=len(self.objects[name]))

    def stat(self, name: str) -> ObjectStat | None:
        raw = self.objects.get(checked_object_name(name))
        return None if raw is None else ObjectStat(name=name, size_bytes=len(raw))

    def delete(self, name: str) -> None:
        self.objects.pop(checked_object_name(name), None)


class SteppingClock:
    """A Clock that moves one millisecond each time somebody looks at it."""

    def __init__(self, start_ns: int = 1_700_000_000_000_000_000) -> None:
        self._at_ns = start_ns

    def now_ns(self) -> int:
        self._at_ns += 1_000_000
        return self._at_ns

    def monotonic_ns(self) -> int:
        return self.now_ns()


class SeededEntropy:
    """Entropy that repeats for one seed, so that a failing test replays; never for real keys."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._drawn = 0

    def random_bytes(self, count: int) -> bytes:
        self._drawn += 1
        return hashlib.shake_256(f"{self._seed}/{self._drawn}".encode()).digest(count)
