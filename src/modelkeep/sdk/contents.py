"""What goes in and comes out of a keep as files: trees to save, targets to restore to, tensors."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from modelkeep.adapters.appearing import appearing
from modelkeep.adapters.memory_file import no_memory
from modelkeep.core.artifact import parsed_reference
from modelkeep.core.digest import Digest
from modelkeep.core.errors import UsageError
from modelkeep.core.policy import Use
from modelkeep.flows.candidate import Candidate
from modelkeep.flows.keep import OpenKeep, current_snapshot, record, record_damages
from modelkeep.flows.permission import demand_use
from modelkeep.flows.registry import HeldVersion, held_version, reference_to, resolved
from modelkeep.flows.restore import (
    NPY,
    RAW,
    SAFETENSORS,
    Target,
    file_in,
    restored,
    restored_tensor,
    tensor_into,
)
from modelkeep.flows.save import Tree
from modelkeep.sdk.files import SteadyFile, Walked, steady, walked
from modelkeep.vault.load import Reader
from modelkeep.vault.snapshot import Snapshot
from modelkeep.vault.streams import Plain
from modelkeep.wiring import KeepFolder, Warn

# Of versions that were asked for, how many are remembered.
_VERSIONS_MAX = 8
# From here on memory is taken in huge pages: 8 MiB cost 0.2 ms, not 3 to 10.
_HUGE_BYTES_MIN = 2 * 1024 * 1024


@dataclass(slots=True)
class Warm:
    """A reader that goes on between calls, with its indexes, while the head stays where it is."""

    _keep: OpenKeep | None = None
    _name: str = ""
    _reader: Reader | None = None
    _snapshot: Snapshot | None = None
    _versions: dict[tuple[str, int], HeldVersion] = field(default_factory=dict)
    _recorded: set[Digest] = field(default_factory=set)

    def version(self, keep: OpenKeep, reference: str) -> tuple[Reader, HeldVersion]:
        """The version that a reference names, and the reader to read it with.

        Raises:
            MissingError: `model.unknown` or `model.alias`.
            UsageError: `model.reference` or `model.name`.
        """
        wanted = parsed_reference(reference)
        name = keep.state.applied().snapshot
        if (
            self._reader is None
            or self._snapshot is None
            or (keep, name)
            != (
                self._keep,
                self._name,
            )
        ):
            self._reader = keep.reader()
            self._snapshot = current_snapshot(keep, self._reader)
            self._keep, self._name, self._versions = keep, name, {}
        key = (wanted.name, resolved(wanted, self._snapshot, keep.state))
        found = self._versions.get(key)
        if found is None:
            found = held_version(keep, self._reader, self._snapshot, reference_to(*key))
            if len(self._versions) >= _VERSIONS_MAX:
                self._versions.pop(next(iter(self._versions)))
            self._versions[key] = found
        return self._reader, found

    @contextmanager
    def reading(self, keep: OpenKeep, reference: str) -> Iterator[tuple[Reader, HeldVersion]]:
        """As `version`; what is met on the way and damaged is recorded in the end."""
        try:
            yield self.version(keep, reference)
        finally:
            if self._reader is not None and self._reader.damages:
                damages, self._reader.damages = self._reader.damages, []
                record_damages(keep, damages)

    def tensor(self, keep: OpenKeep, reference: str, path: str, name: str) -> memoryview:
        """One tensor, proven, if the policy permits to load it."""
        with self.reading(keep, reference) as (reader, found):
            demand_use(keep, found.proof.manifest, Use.LOAD)

            def recorded_room(size_bytes: int) -> memoryview:
                self._record(keep, found)
                return room(size_bytes)

            return tensor_into(reader, found, recorded_room, path=path, name=name)

    def read(
        self, keep: OpenKeep, reference: str, path: str, *, start: int, length: int
    ) -> memoryview:
        """Some bytes of a file, each chunk proven, if the policy permits to load it."""
        with self.reading(keep, reference) as (reader, found):
            demand_use(keep, found.proof.manifest, Use.LOAD)
            file = file_in(found, path)
            if start < 0 or length < 0 or start + length > file.size_bytes:
                raise UsageError(
                    "restore.range",
                    f"{file.path} has {file.size_bytes} bytes, not {length} from {start} on",
                )
            self._record(keep, found)
            target = room(length)
            reader.range_into(target, file, start=start, key_id=found.key_id)
            return target

    def _record(self, keep: OpenKeep, found: HeldVersion) -> None:
        """The ledger knows that a version is read, once, before its first byte is given out."""
        proof = found.proof
        if proof.digest in self._recorded:
            return
        manifest = proof.manifest
        record(
            keep,
            "model.loaded",
            {"model": manifest.name, "version": manifest.version, "manifest": proof.digest},
        )
        self._recorded.add(proof.digest)


def room(size_bytes: int) -> memoryview:
    """Fresh memory, as cheap as it comes.

    Raises:
        UnavailableError: `memory.full`.
    """
    if size_bytes < _HUGE_BYTES_MIN:
        return memoryview(bytearray(size_bytes))
    # Private: what processes may share is never in huge pages.
    try:
        whole = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise no_memory("what was asked for", size_bytes, error) from error
    whole.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(whole)


def tree_of(path: Path, folder: KeepFolder, warn: Warn) -> Tree:
    """What is to be saved, as it lies there now.

    Raises:
        UsageError: `save.keep`, or as `walked`.
    """
    found = _walked(path, folder, warn)
    return Tree(
        files=found.files,
        open=lambda below: _plain_file(found, below),
        folders=found.folders,
        links=found.links,
    )


@contextmanager
def candidate_of(
    path: Path, folder: KeepFolder, warn: Warn, **facts: object
) -> Iterator[Candidate]:
    """What asks to be admitted: every file of it stays as it is until the block ends."""
    found = _walked(path, folder, warn)
    with ExitStack() as stack:
        opened = {
            each.path: stack.enter_context(
                steady(found.place_of(each.path), follow=not found.folders, is_checked=False)
            )
            for each in found.files
        }

        def demand_steady() -> None:
            for file in opened.values():
                file.demand_steady()

        yield Candidate(
            files=tuple(_plain(path, file) for path, file in opened.items()),
            modes={each.path: each.mode for each in found.files} if found.folders else None,
            folders=found.folders,
            links=found.links,
            demand_steady=demand_steady,
            **facts,  # type: ignore[arg-type] # the caller's own words
        )


def restored_to(
    keep: OpenKeep,
    folder: KeepFolder,
    reference: str,
    to: Path,
    *,
    path: str,
    tensor: str,
    force: bool,
    progress: Callable[[int], None],
) -> int:
    """Restore a version, a part of it or one tensor; how many bytes."""

    def opened(is_folder: bool) -> AbstractContextManager[Target]:  # noqa: FBT001 - one fact
        return appearing(folder.world.disk, to, is_folder=is_folder, force=force)

    wanted = parsed_reference(reference)
    if tensor:
        form = next((each for each in (NPY, SAFETENSORS) if to.suffix == each), RAW)
        done = restored_tensor(
            keep, wanted, tensor, opened, path=path, form=form, progress=progress
        )
    else:
        done = restored(keep, wanted, opened, path=path, progress=progress)
    return done.size_bytes


def size_of(path: Path) -> int | None:
    """How many bytes a save would read at most, for a progress bar; None where nothing is there."""
    try:
        return sum(each.size_bytes for each in walked(path).files)
    except UsageError:
        return None


def _walked(path: Path, folder: KeepFolder, warn: Warn) -> Walked:
    found = walked(path)
    own, root = folder.path.resolve(), path.resolve()
    if found.folders and (root in (own, *own.parents) or own in root.parents):
        raise UsageError(
            "save.keep",
            f"{path} holds this keep, or is a part of it",
            hint="keep what you save outside of the keep's folder",
        )
    for each in found.skipped:
        warn(f"{each} is neither a file nor a folder nor a link: it is left out")
    return found


@contextmanager
def _plain_file(found: Walked, path: str) -> Iterator[Plain]:
    is_below = bool(found.folders)
    with steady(found.place_of(path), may_stream=True, follow=not is_below) as file:
        yield _plain(path, file)


def _plain(path: str, file: SteadyFile) -> Plain:
    return Plain(
        path=path,
        size_bytes=file.size_bytes,
        read_into=file.read_into,
        raw=file.raw,
        forget=file.forget,
        fd=file.fd,
    )
