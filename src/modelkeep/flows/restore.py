"""Restoring: whole versions, a subtree, one file or one tensor, streamed and proven on the way.

envelope verified -> policy asked -> recipe -> chunks, decoded by the workers, written where they
belong -> each file's digest compared with the signed manifest -> durable -> ledger -> only then the
target gets its name. In memory at any time: a few chunks. What was damaged on the way and healed is
recorded in the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from modelkeep.core.artifact import FileEntry, ModelReference, TensorEntry
from modelkeep.core.digest import Digest
from modelkeep.core.entry import Fact
from modelkeep.core.errors import IntegrityError, MissingError, UsageError
from modelkeep.core.policy import Use
from modelkeep.core.record import Record
from modelkeep.flows.keep import OpenKeep, current_snapshot, record, record_damages
from modelkeep.flows.permission import demand_use
from modelkeep.flows.portable_paths import links_below
from modelkeep.flows.registry import HeldVersion, held_version, naming_tensors
from modelkeep.kernels.digest import Digester, digest_of
from modelkeep.kernels.tensorfiles import npy_header, safetensors_header
from modelkeep.seal.trust import demand_entry, file_of
from modelkeep.vault.load import Reader
from modelkeep.vault.snapshot import RecipeFile

RAW, NPY, SAFETENSORS = "", ".npy", ".safetensors"


class Target(Protocol):
    """A file or a folder that is not there until all of it is; paths are below it, `.` itself."""

    @property
    def is_ordered(self) -> bool:
        """Whether blocks of a file must come in order, one at a time."""
        ...

    def begin(self, path: str, size_bytes: int) -> None:
        """Make a file; several may be under way."""
        ...

    def write(self, path: str, start: int, block: memoryview) -> None:
        """Write some bytes of a file; from any thread, unless `is_ordered`."""
        ...

    def end(self, path: str, *, mode: int, mtime_ns: int) -> None:
        """A file is whole; -1 for a mode and a time that are not known."""
        ...

    def frame(self, folders: Iterable[tuple[str, int]], links: Iterable[tuple[str, str]]) -> None:
        """Make folders, with their permission bits, and links, after all files are there."""
        ...


# Makes the target, told whether it is a folder; it gets its name when the block ends well.
Opener = Callable[[bool], AbstractContextManager[Target]]


class Restored(Record, frozen=True):
    """What was written."""

    name: str
    version: int
    files: int
    size_bytes: int


class FileFacts(Record, frozen=True):
    """One entry of a version, for people and programs.

    Attributes:
        kind: `file`, `folder` or `link`.
        size_bytes: -1 for what is no file.
        mode: permission bits; -1 where they were not kept.
        modified_ns: -1 where it was not kept.
        leads_to: what a link says.
    """

    path: str
    kind: str
    size_bytes: int = -1
    mode: int = -1
    modified_ns: int = -1
    digest: str = ""
    leads_to: str = ""
    tensors: tuple[TensorEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a version: its files by the paths that they get."""

    files: dict[str, RecipeFile]
    folders: tuple[tuple[str, int], ...]
    links: tuple[tuple[str, str], ...]
    is_folder: bool


def restored(
    keep: OpenKeep,
    reference: ModelReference,
    open_target: Opener,
    *,
    path: str = "",
    progress: Callable[[int], None] = lambda _: None,
) -> Restored:
    """Write a version, or what is below a path of it, to a target.

    Raises:
        RefusedError: `policy.*`; `restore.link`, before anything is written.
        MissingError: `model.unknown`, `model.alias` or `restore.path`.
        IntegrityError: `model.damaged` or `seal.digest`; the target is then not there.
    """
    with reading(keep) as reader:
        found = _restorable(keep, reader, reference)
        part = _part(found, path)
        with open_target(part.is_folder) as target:
            _write_files(reader, found, part, target, progress)
            target.frame(part.folders, part.links)
            record_restored(keep, found, path)
    manifest = found.proof.manifest
    return Restored(
        name=manifest.name,
        version=manifest.version,
        files=len(part.files),
        size_bytes=sum(each.size_bytes for each in part.files.values()),
    )


def streamed_file(
    keep: OpenKeep,
    reference: ModelReference,
    path: str,
    write: Callable[[memoryview], object],
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Write one file to something that cannot be taken back; its size in bytes.

    Every block is proven before it is written; that all of them are the signed file, at the end.

    Raises:
        RefusedError: `policy.*`.
        MissingError: `restore.path`.
        IntegrityError: `model.damaged` or `seal.digest`.
    """
    with reading(keep) as reader:
        found = _restorable(keep, reader, reference)
        file = file_in(found, path)
        record_restored(keep, found, file.path)  # before the first byte leaves
        digest = Digester()
        with naming_tensors(found.proof.manifest):
            for plain in reader.blocks(file, key_id=found.key_id):
                digest.update(plain)
                write(plain)
                progress(len(plain))
        got = FileEntry(path=file.path, size_bytes=file.size_bytes, digest=digest.digest())
        demand_entry(found.proof, got)
    return file.size_bytes


def restored_tensor(
    keep: OpenKeep,
    reference: ModelReference,
    name: str,
    open_target: Opener,
    *,
    path: str = "",
    form: str = RAW,
    progress: Callable[[int], None] = lambda _: None,
) -> Restored:
    """Write one tensor to a file: its raw bytes, or as a file of NumPy or safetensors.

    Raises:
        RefusedError: `policy.*`.
        MissingError: `restore.path` or `tensor.unknown`.
        UsageError: `tensor.ambiguous` or `tensor.dtype`.
        IntegrityError: `model.damaged` or `tensor.digest`; the target is then not there.
    """
    with reading(keep) as reader:
        found = _restorable(keep, reader, reference)
        file, tensor = tensor_in(found, path, name)
        head = _head_of(tensor, form)
        digest, done = Digester(), len(head)
        with open_target(False) as target:  # noqa: FBT003 - no folder
            target.begin(".", len(head) + tensor.length)
            target.write(".", 0, memoryview(head))
            with naming_tensors(found.proof.manifest):
                blocks = reader.range_blocks(
                    file, start=tensor.offset, length=tensor.length, key_id=found.key_id
                )
                for plain in blocks:
                    digest.update(plain)
                    target.write(".", done, plain)
                    done += len(plain)
                    progress(len(plain))
            _demand_tensor(found, tensor, digest.digest())
            target.end(".", mode=-1, mtime_ns=-1)
            target.frame((), ())
            record_restored(keep, found, f"{file.path}#{name}")
    manifest = found.proof.manifest
    return Restored(name=manifest.name, version=manifest.version, files=1, size_bytes=done)


def tensor_into(
    reader: Reader,
    found: HeldVersion,
    allocate: Callable[[int], memoryview],
    *,
    path: str,
    name: str,
) -> memoryview:
    """Read one tensor into memory, proven against the signed manifest.

    Raises:
        MissingError: `restore.path` or `tensor.unknown`.
        UsageError: `tensor.ambiguous`.
        IntegrityError: `model.damaged` or `tensor.digest`.
    """
    file, tensor = tensor_in(found, path, name)
    target = allocate(tensor.length)
    with naming_tensors(found.proof.manifest):
        reader.range_into(target, file, start=tensor.offset, key_id=found.key_id)
    _demand_tensor(found, tensor, digest_of(target))
    return target


def listed(found: HeldVersion) -> tuple[FileFacts, ...]:
    """Everything in a version, sorted by path."""
    signed = {each.path: each for each in found.proof.manifest.files}
    files = [
        FileFacts(
            path=each.path,
            kind="file",
            size_bytes=each.size_bytes,
            mode=each.mode,
            modified_ns=each.changed[0] if each.changed else -1,
            digest=signed[each.path].digest,
            tensors=signed[each.path].tensors,
        )
        for each in found.recipe.files
    ]
    folders = [
        FileFacts(path=path, kind="folder", mode=mode) for path, mode in found.recipe.folders
    ]
    links = [FileFacts(path=path, kind="link", leads_to=says) for path, says in found.recipe.links]
    return tuple(sorted([*files, *folders, *links], key=lambda each: each.path))


def file_in(found: HeldVersion, path: str) -> RecipeFile:
    """A file of a version; its path may be left out where there is only one.

    Raises:
        MissingError: `restore.path`.
    """
    for each in found.recipe.files:
        if each.path == path or (not path and len(found.recipe.files) == 1):
            return each
    raise _missing(found, path)


def tensor_in(found: HeldVersion, path: str, name: str) -> tuple[RecipeFile, TensorEntry]:
    """A tensor of a version; the path of its file may be left out where only one has such a tensor.

    Raises:
        MissingError: `restore.path` or `tensor.unknown`.
        UsageError: `tensor.ambiguous`.
    """
    manifest = found.proof.manifest
    files = [file_of(manifest, file_in(found, path).path)] if path else manifest.files
    hits = [(file, each) for file in files for each in file.tensors if each.name == name]
    if not hits:
        raise MissingError(
            "tensor.unknown",
            f"{manifest.name}:{manifest.version} has no tensor {name[:200]!r}",
            hint=f"`modelkeep ls {manifest.name}:{manifest.version} --tensors` lists them",
        )
    if len(hits) > 1:
        raise UsageError(
            "tensor.ambiguous",
            f"{len(hits)} tensors of {manifest.name}:{manifest.version} are called {name[:200]!r}",
            hint=f"name the file with --path, such as {hits[0][0].path}",
        )
    file, tensor = hits[0]
    return file_in(found, file.path), tensor


def _restorable(keep: OpenKeep, reader: Reader, reference: ModelReference) -> HeldVersion:
    """A version whose plaintext may be written out, by its own policy."""
    found = held_version(keep, reader, current_snapshot(keep, reader), reference)
    demand_use(keep, found.proof.manifest, Use.RESTORE)
    return found


@contextmanager
def reading(keep: OpenKeep) -> Iterator[Reader]:
    """A reader; what it came across is recorded in the end."""
    reader = keep.reader()
    try:
        yield reader
    finally:
        record_damages(keep, reader.damages)


def _write_files(
    reader: Reader,
    found: HeldVersion,
    part: _Part,
    target: Target,
    progress: Callable[[int], None],
) -> None:
    signed = {each.path: each for each in found.proof.manifest.files}
    names = {file.path: name for name, file in part.files.items()}
    write = _writer(target, names)

    def begun() -> Iterator[RecipeFile]:
        """Files as they are asked for; those without chunks are done at once."""
        for name, file in part.files.items():
            target.begin(name, file.size_bytes)
            if file.chunks:
                yield file
            else:
                finish(file, Digester())

    def finish(file: RecipeFile, digest: Digester) -> None:
        entry = signed[file.path]
        got = FileEntry(path=file.path, size_bytes=file.size_bytes, digest=digest.digest())
        if (got.size_bytes, got.digest) != (entry.size_bytes, entry.digest):
            demand_entry(found.proof, got)
        mtime_ns = file.changed[0] if file.changed else -1
        target.end(names[file.path], mode=file.mode, mtime_ns=mtime_ns)

    in_workers = (lambda *_: None) if target.is_ordered else write
    digest = Digester()
    with naming_tensors(found.proof.manifest):
        for file, offset, plain in reader.blocks_of(begun(), key_id=found.key_id, taken=in_workers):
            if target.is_ordered:
                write(file, offset, plain)
            digest.update(plain)
            progress(len(plain))
            if offset + len(plain) == file.size_bytes:
                finish(file, digest)
                digest = Digester()


def _writer(target: Target, names: dict[str, str]) -> Callable[[RecipeFile, int, memoryview], None]:
    return lambda file, offset, plain: target.write(names[file.path], offset, plain)


def _part(found: HeldVersion, path: str) -> _Part:
    """What is below a path, under the names that it gets.

    Raises:
        MissingError: `restore.path`.
        RefusedError: `restore.link`.
        IntegrityError: `restore.name`, for a path that leads out of its folder.
    """
    recipe = found.recipe
    path = path.strip("/")
    _demand_inside([each.path for each in recipe.files])
    _demand_inside([each for each, _ in (*recipe.folders, *recipe.links)])
    if not path:
        is_folder = bool(recipe.folders) or len(recipe.files) != 1 or "/" in recipe.files[0].path
        files = {each.path if is_folder else ".": each for each in recipe.files}
        return _Part(files, recipe.folders, recipe.links, is_folder)
    for each in recipe.files:
        if each.path == path:
            return _Part({".": each}, (), (), is_folder=False)
    below = f"{path}/"

    def inside(name: str) -> str:
        return "." if name == path else name.removeprefix(below)

    part = _Part(
        files={inside(each.path): each for each in recipe.files if each.path.startswith(below)},
        folders=tuple(
            (inside(each), mode) for each, mode in recipe.folders if f"{each}/".startswith(below)
        ),
        links=tuple(links_below(recipe.links, path)),
        is_folder=True,
    )
    if not (part.files or part.folders or part.links):
        raise _missing(found, path)
    return part


def _demand_inside(paths: Iterable[str]) -> None:
    """Check that no path leads out of its folder: what a client handed in has its names."""
    for path in paths:
        parts = path.split("/")
        if path != "." and ("\0" in path or any(part in ("", ".", "..") for part in parts)):
            raise IntegrityError("restore.name", f"{path[:200]!r} is no path below a folder")


def _head_of(tensor: TensorEntry, form: str) -> bytes:
    if form == NPY:
        return npy_header(tensor.dtype, tensor.shape)
    if form == SAFETENSORS:
        return safetensors_header(tensor.name, tensor.dtype, tensor.shape, tensor.length)
    return b""


def _demand_tensor(found: HeldVersion, tensor: TensorEntry, got: Digest) -> None:
    if got != tensor.digest:
        manifest = found.proof.manifest
        raise IntegrityError(
            "tensor.digest",
            f"{manifest.name}:{manifest.version}: {tensor.name} is not the tensor that was signed",
        )


def _missing(found: HeldVersion, path: str) -> MissingError:
    manifest = found.proof.manifest
    reference = f"{manifest.name}:{manifest.version}"
    if not path:
        return MissingError(
            "restore.path",
            f"{reference} has {len(manifest.files)} files: one must be named",
            hint=f"`modelkeep ls {reference}` lists them",
        )
    return MissingError(
        "restore.path",
        f"{reference} has nothing at {path[:200]!r}",
        hint=f"`modelkeep ls {reference}` lists what it has",
    )


def record_restored(keep: OpenKeep, found: HeldVersion, path: str) -> None:
    """Say in the ledger that plaintext of a version leaves; `path` where it is a part of it."""
    manifest = found.proof.manifest
    facts: dict[str, Fact] = {
        "model": manifest.name,
        "version": manifest.version,
        "manifest": found.proof.digest,
    }
    record(keep, "model.restored", facts | {"path": path} if path else facts)
