"""A Store that keeps small objects of another one in a bounded folder on this machine.

Only objects that are named by the digest of their own bytes are kept, and no packs: what is read
here proves itself, and what is here is ciphertext. Damage, a cut write and a file of somebody else
are a miss. The folder holds no truth: it may be removed at any time.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from modelkeep.adapters.disk import Disk
from modelkeep.core.names import checked_object_name
from modelkeep.kernels.digest import hex_of
from modelkeep.ports.range_store import read_into
from modelkeep.ports.store import ObjectStat, Store

CACHED_KINDS = frozenset({"index", "recipe", "envelope", "snapshot"})
# An index of 65,536 segments has about 8 MB; more than this is no small object.
CACHED_BYTES_MAX = 32 * 1024 * 1024
_HEX_DIGITS = 64


class CachedStore:
    """Another store, nearer.

    Args:
        folder: for this store alone; made when something is kept.
        bytes_max: what the folder may hold; the objects that were kept first go first.
    """

    def __init__(self, store: Store, *, folder: Path, bytes_max: int, disk: Disk) -> None:
        self.label = store.label
        self._store = store
        self._folder = folder
        self._bytes_max = bytes_max
        self._disk = disk
        self._kept: dict[str, int] | None = None  # digest -> size, oldest first
        self._lock = threading.Lock()

    @property
    def uncached(self) -> Store:
        """The store without what is remembered of it here: whoever checks it must not ask us."""
        return self._store

    def put(self, name: str, raw: bytes | memoryview) -> None:
        self._store.put(name, raw)

    def get(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        digest = _cached_digest(checked_object_name(name))
        if not digest:
            return self._store.get(name, start=start, length=length)
        raw = self._read(digest)
        if raw is None:
            if start or length is not None:
                return self._store.get(name, start=start, length=length)
            raw = self._store.get(name)
            if hex_of(raw) == digest:  # else it is for the reader to judge
                self._keep(digest, raw)
        return raw[start : None if length is None else start + length]

    def get_into(self, name: str, start: int, target: memoryview) -> int:
        if not _cached_digest(checked_object_name(name)):
            return read_into(self._store, name, start, target)
        raw = self.get(name, start=start, length=len(target))
        target[: len(raw)] = raw
        return len(raw)

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        return self._store.list(prefix)

    def stat(self, name: str) -> ObjectStat | None:
        return self._store.stat(name)

    def delete(self, name: str) -> None:
        self._store.delete(name)
        digest = _cached_digest(checked_object_name(name))
        if digest:
            self._forget(digest)

    def _read(self, digest: str) -> bytes | None:
        try:
            raw = self._disk.read(self._folder / digest, 0, CACHED_BYTES_MAX + 1)
        except OSError:
            return None
        if hex_of(raw) == digest:
            return raw
        self._forget(digest)
        return None

    def _keep(self, digest: str, raw: bytes) -> None:
        """Keep a copy if that can be done; not durable: what a crash cuts is a miss."""
        if len(raw) > min(CACHED_BYTES_MAX, self._bytes_max):
            return
        temporary = self._folder / f"{digest}.{os.urandom(8).hex()}"
        with self._lock, contextlib.suppress(OSError):
            kept = self._known()
            while kept and sum(kept.values()) + len(raw) > self._bytes_max:
                oldest = next(iter(kept))
                self._disk.unlink(self._folder / oldest)
                del kept[oldest]
            self._disk.make_folder(self._folder)
            try:
                self._disk.create(temporary, raw)
                self._disk.rename(temporary, self._folder / digest)
            except OSError:  # a full disk
                self._disk.unlink(temporary)
                raise
            kept[digest] = len(raw)

    def _forget(self, digest: str) -> None:
        with self._lock, contextlib.suppress(OSError):
            self._disk.unlink(self._folder / digest)
            self._known().pop(digest, None)

    def _known(self) -> dict[str, int]:
        if self._kept is None:
            self._kept = {path.name: size for path, size in self._disk.walk(self._folder)}
        return self._kept


def _cached_digest(name: str) -> str:
    """The digest in the name of an object that is kept here; empty for all others."""
    parts = name.split("/")
    digest = parts[-1]
    is_kept = len(parts) == 4 and parts[0] in CACHED_KINDS and len(digest) == _HEX_DIGITS
    return digest if is_kept else ""
