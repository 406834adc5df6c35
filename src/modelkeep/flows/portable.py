"""An exported model that is read where one likes, without a keep: whole, by tensor, by byte range.

front proven -> size -> the segments that are asked for, each proven -> tensor or file hashed

Nothing is allocated before sender, recipient and table are proven, and no byte of a segment is
given out before that segment is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from modelkeep.core.artifact import FileEntry, Manifest, TensorEntry
from modelkeep.core.errors import IntegrityError, MissingError, UsageError
from modelkeep.crypto.locks import Key
from modelkeep.flows.portable_paths import demand_portable_paths
from modelkeep.kernels.digest import digest_of
from modelkeep.ports.workers import SERIAL, Workers
from modelkeep.seal.portable import Portable, Segment, opened_portable
from modelkeep.seal.trust import demand_file
from modelkeep.vault.load import free_buffer

Progress = Callable[[int], None]
# Fills a buffer from an offset of the file on and says how far; several threads may ask at once.
ReadAt = Callable[[int, memoryview], int]


@dataclass(frozen=True, slots=True)
class OpenModel:
    """An exported model that is read where one likes.

    Attributes:
        portable: its proven table.
        read_at: reads the file.
    """

    portable: Portable
    read_at: ReadAt
    workers: Workers = SERIAL
    _buffers: list[bytearray] = field(default_factory=list)

    @property
    def manifest(self) -> Manifest:
        """What its sender signed."""
        return self.portable.proof.manifest

    def file(self, path: str) -> int:
        """The place of a file in the manifest; the path may be left out where there is only one.

        Raises:
            MissingError: `restore.path`.
        """
        files = self.manifest.files
        for number, each in enumerate(files):
            if each.path == path or (not path and len(files) == 1):
                return number
        what = f"no file {path[:200]!r}" if path else f"{len(files)} files: one must be named"
        raise MissingError(
            "restore.path",
            f"{self.manifest.name}:{self.manifest.version} has {what}",
            hint="`modelkeep inspect` lists them",
        )

    def tensor(self, path: str, name: str) -> tuple[int, TensorEntry]:
        """A tensor and its file; the path may be left out where only one file has such a tensor.

        Raises:
            MissingError: `restore.path` or `tensor.unknown`.
            UsageError: `tensor.ambiguous`.
        """
        files = (self.file(path),) if path else range(len(self.manifest.files))
        hits = [
            (number, each)
            for number in files
            for each in self.manifest.files[number].tensors
            if each.name == name
        ]
        what = f"{self.manifest.name}:{self.manifest.version}"
        if not hits:
            raise MissingError(
                "tensor.unknown",
                f"{what} has no tensor {name[:200]!r}",
                hint="`modelkeep inspect` lists them",
            )
        if len(hits) > 1:
            raise UsageError(
                "tensor.ambiguous",
                f"{len(hits)} tensors of {what} are called {name[:200]!r}",
                hint=f"name the file, such as {self.manifest.files[hits[0][0]].path}",
            )
        return hits[0]

    def segment_into(self, segment: Segment, target: memoryview) -> None:
        """Read one segment and prove it; the target is exactly as long as its plaintext.

        Raises:
            IntegrityError: `portable.cut`, `portable.segment` or `codec.*`.
        """
        buffer = free_buffer(self._buffers, segment.stored)
        sealed = memoryview(buffer)[: segment.stored]
        if self.read_at(segment.place, sealed) != segment.stored:
            raise _cut()
        self.portable.open_into(segment, sealed, target)
        self._buffers.append(buffer)


def opened_model(
    read_at: ReadAt,
    size_bytes: int,
    *,
    keys: Iterable[Key],
    signers: Collection[bytes] | None,
    workers: Workers = SERIAL,
) -> OpenModel:
    """Open a file that can be read anywhere; of its segments nothing is read yet.

    Args:
        size_bytes: of the whole file.
        signers: verifiers, one of whom must have signed; None demands nobody in particular.

    Raises:
        IntegrityError: as `opened_portable`; `portable.cut`, `portable.end`.
        RefusedError: as `opened_portable`; `portable.paths`.
    """
    at = 0

    def read(wanted: int) -> bytes:
        nonlocal at
        room = bytearray(max(min(wanted, size_bytes - at), 0))
        got = read_at(at, memoryview(room))
        at += got
        return bytes(memoryview(room)[:got])

    portable = opened_portable(read, keys=keys, signers=signers)
    demand_portable_paths(
        portable.proof.manifest,
        [each.mode for each in portable.table.parts],
        portable.table.folders,
        portable.table.links,
    )
    if size_bytes < portable.size_bytes:
        raise _cut()
    if size_bytes > portable.size_bytes:
        raise IntegrityError("portable.end", "something follows the last file of an exported model")
    return OpenModel(portable, read_at, workers)


def range_into(
    model: OpenModel,
    file: int,
    target: memoryview,
    *,
    start: int = 0,
    progress: Progress = lambda _: None,
) -> None:
    """Decrypt `len(target)` bytes of a file from `start` on, each segment proven.

    Args:
        file: its place in the manifest.

    Raises:
        UsageError: `restore.range`.
        IntegrityError: `portable.segment`, `portable.cut`, `codec.*`.
    """
    _demand_inside(model.manifest.files[file], start, len(target))
    end = start + len(target)

    def filled(number: int) -> int:
        segment = model.portable.segment(number)
        left, right = max(segment.start, start), min(segment.start + segment.length, end)
        place = target[left - start : right - start]
        if len(place) == segment.length:
            model.segment_into(segment, place)
        else:
            whole = memoryview(bytearray(segment.length))
            model.segment_into(segment, whole)
            place[:] = whole[left - segment.start : right - segment.start]
        return len(place)

    for count in model.workers.map(filled, model.portable.numbers(file, start, len(target))):
        progress(count)


def range_of(
    model: OpenModel, file: int, allocate: Callable[[int], memoryview], *, start: int, length: int
) -> memoryview:
    """As `range_into`, in memory that is allocated when the range is known to be there.

    Raises:
        KeepError: as `range_into`.
    """
    _demand_inside(model.manifest.files[file], start, length)
    target = allocate(length)
    range_into(model, file, target, start=start)
    return target


def file_into(
    model: OpenModel, file: int, target: memoryview, *, progress: Progress = lambda _: None
) -> None:
    """Decrypt a whole file in place and compare it with the manifest.

    Raises:
        UsageError: `restore.range`, for a target of another length.
        IntegrityError: as `range_into`; `seal.digest`.
    """
    if len(target) != model.manifest.files[file].size_bytes:
        raise UsageError("restore.range", "the memory is not as long as the file")
    range_into(model, file, target, progress=progress)
    demand_file(model.portable.proof, model.manifest.files[file].path, target)


def tensor_into(
    model: OpenModel, allocate: Callable[[int], memoryview], *, path: str, name: str
) -> memoryview:
    """Decrypt one tensor and compare it with the manifest.

    Raises:
        MissingError: `restore.path` or `tensor.unknown`.
        UsageError: `tensor.ambiguous`.
        IntegrityError: as `range_into`; `portable.tensor`, `tensor.digest`.
    """
    file, tensor = model.tensor(path, name)
    if not 0 <= tensor.length <= model.manifest.files[file].size_bytes - tensor.offset:
        raise IntegrityError("portable.tensor", f"{name} does not lie in its file")
    target = allocate(tensor.length)
    range_into(model, file, target, start=tensor.offset)
    if digest_of(target) != tensor.digest:
        target[:] = bytes(len(target))
        raise IntegrityError(
            "tensor.digest",
            f"{model.manifest.name}:{model.manifest.version}: {name} is not the tensor that was "
            "signed",
        )
    return target


def _demand_inside(entry: FileEntry, start: int, length: int) -> None:
    """Check that a range lies in its file.

    Raises:
        UsageError: `restore.range`.
    """
    if start < 0 or length < 0 or start + length > entry.size_bytes:
        raise UsageError(
            "restore.range",
            f"{entry.path} has {entry.size_bytes} bytes, not {length} from {start} on",
        )


def _cut() -> IntegrityError:
    return IntegrityError("portable.cut", "an exported model is cut short")
