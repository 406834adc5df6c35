"""A Store in a folder: each object a file that appears whole, durable, and never changes."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from modelkeep.adapters.disk import Disk, IntoDisk, RealDisk
from modelkeep.adapters.store_guard import StoreGuard, demand_bounded
from modelkeep.adapters.sync_together import sync_together
from modelkeep.core.errors import IntegrityError, KeepError, MissingError, UnavailableError
from modelkeep.core.names import checked_object_name, is_object_name
from modelkeep.ports.batch_store import Object
from modelkeep.ports.store import ObjectStat

_TEMPORARY = ".tmp"


class FolderStore:
    """Objects as files below one folder.

    Write order of `put`: temporary file -> bytes durable -> hard link under the final name (which
    fails if the name is taken, so two writers cannot both win) -> name durable. A crash leaves at
    most files in `.tmp`, which no name can reach. `put_new` takes each step for all objects before
    the next one, so that the file system makes them durable together.

    Args:
        keep_id: write nothing but `format/` where no format object of this keep is: the folder is
            empty because what should be mounted there is not, or it is another keep's. Empty for a
            store of no keep in particular.
    """

    def __init__(
        self, path: Path, label: str, disk: Disk | None = None, *, keep_id: str = ""
    ) -> None:
        self.path = path
        self.label = label
        self._disk = disk or RealDisk()
        self._into = self._disk if isinstance(self._disk, IntoDisk) else None
        self._guard = StoreGuard(label, str(path), keep_id) if keep_id else None

    def put(self, name: str, raw: bytes | memoryview) -> None:
        self._demand_there(name)
        target = self.path / checked_object_name(name)
        try:
            if self._disk.size(target) is None:
                self._create(target, raw)
            elif self._disk.read(target, 0, len(raw) + 1) != raw:
                raise IntegrityError(
                    "store.exists",
                    f"{self.label}: {name} exists with other bytes",
                    hint="run `modelkeep check --repair`",
                    store=self.label,
                    object=name,
                )
            self._disk.sync_folder(target.parent)
        except OSError as error:
            raise self._unavailable("store.write", name, error) from error

    def put_new(self, objects: Sequence[Object]) -> list[Object]:
        for name, _ in objects[:1]:
            self._demand_there(name)
        taken: list[Object] = []
        fresh: list[tuple[Path, Path, Object]] = []
        holding = self.path / _TEMPORARY
        try:
            self._disk.make_folder(holding)
            for each in objects:
                target = self.path / checked_object_name(each[0])
                if self._disk.size(target) is not None:
                    taken.append(each)
                    continue
                self._disk.make_folder(target.parent)
                fresh.append((holding / os.urandom(12).hex(), target, each))
                self._disk.create(fresh[-1][0], each[1])
            sync_together(self._disk, [temporary for temporary, _, _ in fresh])
            for temporary, target, each in fresh:
                try:
                    self._disk.link(temporary, target)
                except FileExistsError:
                    taken.append(each)
            for folder in dict.fromkeys(target.parent for _, target, _ in fresh):
                self._disk.sync_folder(folder)
        except OSError as error:
            raise self._unavailable("store.write", f"{len(objects)} objects", error) from error
        finally:
            for temporary, _, _ in fresh:
                self._disk.unlink(temporary)
        return taken

    def get(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        path = self.path / checked_object_name(name)
        try:
            if length is None:
                demand_bounded(self.label, name, self._disk.size(path) or 0)
            return self._disk.read(path, start, length)
        except OSError as error:
            raise self._unreadable(name, error) from error

    def get_into(self, name: str, start: int, target: memoryview) -> int:
        path = self.path / checked_object_name(name)
        try:
            if self._into is not None:
                return self._into.read_into(path, start, target)
            raw = self._disk.read(path, start, len(target))
        except OSError as error:
            raise self._unreadable(name, error) from error
        target[: len(raw)] = raw
        return len(raw)

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        folder = self.path / prefix.rpartition("/")[0]
        try:
            found = self._disk.walk(folder)
        except OSError as error:
            raise self._unavailable("store.read", prefix, error) from error
        named = sorted((path.relative_to(self.path).as_posix(), size) for path, size in found)
        for name, size_bytes in named:
            if name.startswith(prefix) and is_object_name(name):  # others put files here too
                yield ObjectStat(name=name, size_bytes=size_bytes)

    def stat(self, name: str) -> ObjectStat | None:
        try:
            size_bytes = self._disk.size(self.path / checked_object_name(name))
        except OSError as error:
            raise self._unavailable("store.read", name, error) from error
        return None if size_bytes is None else ObjectStat(name=name, size_bytes=size_bytes)

    def delete(self, name: str) -> None:
        path = self.path / checked_object_name(name)
        try:
            if self._disk.size(path) is not None:
                self._disk.unlink(path)
                self._disk.sync_folder(path.parent)
        except OSError as error:
            raise self._unavailable("store.write", name, error) from error

    def _demand_there(self, name: str) -> None:
        """Refuse to write into the place of a store that is not there; it may be unmounted."""
        if self._guard is not None:
            self._guard.demand(name, self._first_bytes)

    def _first_bytes(self, name: str, length: int) -> bytes | None:
        try:
            return self._disk.read(self.path / name, 0, length)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._unavailable("store.read", name, error) from error

    def _create(self, target: Path, raw: bytes | memoryview) -> None:
        holding = self.path / _TEMPORARY
        self._disk.make_folder(holding)
        self._disk.make_folder(target.parent)
        temporary = holding / os.urandom(12).hex()
        try:
            self._disk.create(temporary, raw)
            self._disk.sync(temporary)
            self._disk.link(temporary, target)
        except FileExistsError:
            if self._disk.read(target, 0, len(raw) + 1) != raw:
                raise IntegrityError(
                    "store.exists", f"{self.label}: {target.name} exists with other bytes"
                ) from None
        finally:
            self._disk.unlink(temporary)

    def _unreadable(self, name: str, error: OSError) -> KeepError:
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return MissingError(
                "store.missing", f"{self.label}: no object {name}", store=self.label, object=name
            )
        return self._unavailable("store.read", name, error)

    def _unavailable(self, code: str, name: str, error: OSError) -> UnavailableError:
        hint = "free some space and run the same command again"
        if error.errno != errno.ENOSPC:
            hint = f"check that {self.path} is mounted and writable, then run it again"
        return UnavailableError(
            code, f"{self.label}: {name}: {error.strerror or error}", hint=hint, store=self.label
        )
