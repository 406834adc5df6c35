"""Power cuts: a disk that forgets what was not synced, and a fuse that blows before one write.

The seam is `adapters.disk.Disk`: every store, journal and configuration writes through it. A
`SimulatedDisk` keeps two images, what a running process sees and what a power cut would leave.
Bytes become durable with `sync` of their file, names with `sync_folder`; nothing becomes durable
by itself, or, where chance decides, any part of it in any order: of what was not synced, each name
and each sector of a file survives or does not. POSIX allows both, and all between. The `Fuse`
counts operations that change something and raises `PowerCut` instead of the one it was set to.

SQLite writes for itself: `CuttingState` cuts before and after each of its transactions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

from modelkeep.core.entry import Entry
from modelkeep.core.rows import Applied, R
from modelkeep.ports.state import State

# What a disk writes at once.
SECTOR_BYTES = 512


class PowerCut(BaseException):
    """The power failed; production code must not be able to swallow it."""


class Fuse:
    """Counts changes; blows at one of them.

    Args:
        at: number of the change, from 0, that does not happen any more; None never blows.
    """

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        self.count = 0

    def spend(self) -> None:
        """One change is about to happen.

        Raises:
            PowerCut: when it is the one, and for every one after it.
        """
        if self.at is not None and self.count >= self.at:
            raise PowerCut
        self.count += 1


class _File:
    """The bytes of one file: as a process sees them, and as a power cut leaves them."""

    __slots__ = ("durable", "seen")

    def __init__(self) -> None:
        self.seen = bytearray()
        self.durable = b""


class SimulatedDisk:
    """A Disk in memory. `after_power_cut` is the disk that the next start finds."""

    def __init__(self, fuse: Fuse | None = None) -> None:
        self.fuse = fuse or Fuse()
        self._seen: dict[Path, _File] = {}
        self._durable: dict[Path, _File] = {}

    def after_power_cut(
        self, fuse: Fuse | None = None, *, chance: Random | None = None
    ) -> SimulatedDisk:
        """What is left: durable names with durable bytes.

        Args:
            chance: decides, for every name and sector that was not synced, whether it is left as
                it was seen; without it none is.
        """
        left = SimulatedDisk(fuse)
        copies: dict[int, _File] = {}
        for path in sorted(self._durable.keys() | self._seen.keys()):
            file, seen = self._durable.get(path), self._seen.get(path)
            if chance is not None and file is not seen and chance.random() < 0.5:
                file = seen
            if file is None:
                continue
            copy = copies.setdefault(id(file), _File())
            if not copy.seen:
                raw = file.durable if chance is None else _survived(file, chance)
                copy.seen[:] = raw
                copy.durable = raw
            left._seen[path] = left._durable[path] = copy
        return left

    def rewrite(self, path: Path, raw: bytes) -> None:
        """Change a file from outside, durably: an operator's editor, or an attacker."""
        file = self._file(path)
        file.seen[:] = raw
        file.durable = raw

    def lose(self, path: Path) -> None:
        """Remove a file from outside, durably."""
        self._seen.pop(path, None)
        self._durable.pop(path, None)

    def create(self, path: Path, raw: bytes | memoryview) -> None:
        self.fuse.spend()
        if path in self._seen:
            raise FileExistsError(17, "File exists", str(path))
        file = self._seen[path] = _File()
        file.seen[:] = raw

    def append(self, path: Path, raw: bytes | memoryview) -> None:
        self.fuse.spend()
        self._seen.setdefault(path, _File()).seen.extend(raw)

    def truncate(self, path: Path, size_bytes: int) -> None:
        self.fuse.spend()
        del self._file(path).seen[size_bytes:]

    def sync(self, path: Path) -> None:
        self.fuse.spend()
        file = self._file(path)
        file.durable = bytes(file.seen)

    def link(self, source: Path, target: Path) -> None:
        self.fuse.spend()
        if target in self._seen:
            raise FileExistsError(17, "File exists", str(target))
        self._seen[target] = self._file(source)

    def rename(self, source: Path, target: Path) -> None:
        self.fuse.spend()
        self._seen[target] = self._file(source)
        del self._seen[source]

    def unlink(self, path: Path) -> None:
        if path in self._seen:
            self.fuse.spend()
            del self._seen[path]

    def make_folder(self, folder: Path) -> None:
        del folder  # folders are where files are; RealDisk makes them durable at once

    def sync_folder(self, folder: Path) -> None:
        self.fuse.spend()
        for path in [path for path in self._durable if path.parent == folder]:
            del self._durable[path]
        self._durable.update(
            {path: file for path, file in self._seen.items() if path.parent == folder}
        )

    def release(self, path: Path) -> None:
        del path  # nothing is kept open

    def read(self, path: Path, start: int = 0, length: int | None = None) -> bytes:
        seen = self._file(path).seen
        return bytes(seen[start : None if length is None else start + length])

    def size(self, path: Path) -> int | None:
        file = self._seen.get(path)
        return None if file is None else len(file.seen)

    def walk(self, folder: Path) -> list[tuple[Path, int]]:
        below = f"{folder}/"  # as text: comparing paths part by part was half of a test's time
        return sorted(
            (path, len(file.seen))
            for path, file in self._seen.items()
            if str(path).startswith(below)
        )

    def _file(self, path: Path) -> _File:
        if path not in self._seen:
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return self._seen[path]


def _survived(file: _File, chance: Random) -> bytes:
    """Bytes of a file after a power cut: of what was not synced some sectors, in any order."""
    seen, durable = bytes(file.seen), file.durable
    if seen == durable:
        return seen
    size_bytes = chance.choice((len(durable), len(seen), chance.randint(0, len(seen))))
    size_bytes = max(size_bytes, min(len(durable), len(seen)))
    raw = bytearray(size_bytes)
    raw[: len(durable)] = durable[:size_bytes]
    for at in range(0, size_bytes, SECTOR_BYTES):
        if chance.random() < 0.5:
            sector = seen[at : min(at + SECTOR_BYTES, size_bytes)]
            raw[at : at + len(sector)] = sector
    return bytes(raw)


class CuttingState:
    """A State whose transactions cost the fuse one change before and one after them."""

    def __init__(self, state: State, fuse: Fuse) -> None:
        self._state = state
        self._fuse = fuse

    def applied(self) -> Applied:
        return self._state.applied()

    def apply(self, first: int, entries: Sequence[Entry]) -> None:
        self._fuse.spend()
        self._state.apply(first, entries)
        self._fuse.spend()

    def rows(self, kind: type[R]) -> tuple[R, ...]:
        return self._state.rows(kind)

    def revision(self) -> int:
        return self._state.revision()

    def close(self) -> None:
        self._state.close()
