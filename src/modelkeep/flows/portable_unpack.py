"""An exported model written to a file or a folder: all of it, a part, or one tensor.

segments, each proven, written where they belong -> each file hashed, compared with the manifest ->
only then the target gets its name
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from modelkeep.core.artifact import FileEntry
from modelkeep.flows.portable import OpenModel, Progress, tensor_into
from modelkeep.flows.portable_paths import links_below
from modelkeep.flows.restore import NPY, SAFETENSORS, Opener, Restored, Target
from modelkeep.kernels.digest import Digester
from modelkeep.kernels.tensorfiles import npy_header, safetensors_header
from modelkeep.seal.portable import Segment
from modelkeep.seal.trust import demand_entry

T = TypeVar("T")


def unpacked_tensor(
    model: OpenModel,
    open_target: Opener,
    room: Callable[[int], memoryview],
    *,
    path: str,
    name: str,
    form: str = "",
) -> int:
    """Write one tensor to a file: its raw bytes, or as a file of NumPy or safetensors; its length.

    Args:
        room: gives a writable view of exactly that many bytes.

    Raises:
        MissingError: `restore.path` or `tensor.unknown`.
        UsageError: `tensor.ambiguous` or `tensor.dtype`.
        IntegrityError: as `tensor_into`.
    """
    _, tensor = model.tensor(path, name)
    head = b""
    if form == NPY:
        head = npy_header(tensor.dtype, tensor.shape)
    elif form == SAFETENSORS:
        head = safetensors_header(name, tensor.dtype, tensor.shape, tensor.length)
    raw = tensor_into(model, room, path=path, name=name)
    with open_target(False) as target:  # noqa: FBT003 - no folder
        target.begin(".", len(head) + len(raw))
        target.write(".", 0, memoryview(head))
        target.write(".", len(head), raw)
        target.end(".", mode=-1, mtime_ns=-1)
        target.frame((), ())
    return len(head) + len(raw)


def unpacked(
    model: OpenModel,
    open_target: Opener,
    *,
    path: str = "",
    progress: Progress = lambda _: None,
) -> Restored:
    """Write all of it, one file, or what is below a path, to a file or a folder.

    Raises:
        MissingError: `restore.path`.
        RefusedError: `restore.link`, before anything is written.
        IntegrityError: as `range_into`; `seal.digest`; the target is then not there.
    """
    path, table, files = path.strip("/"), model.portable.table, model.manifest.files
    paths = {number: each.path for number, each in enumerate(files)}
    is_single = len(files) == 1 and not table.folders and "/" not in files[0].path
    if is_single or path in paths.values():
        names, folders, links, is_folder = {model.file(path): "."}, [], [], False
    else:
        inside = _below(((each, number) for number, each in paths.items()), path)
        names = {number: name for name, number in inside}
        folders, links = _below(table.folders, path), links_below(table.links, path)
        is_folder = True
        if not (names or folders or links):
            model.file(path)  # which says that it is not there
    with open_target(is_folder) as target:
        _write_files(model, names, target, progress)
        target.frame(folders, links)
    return Restored(
        name=model.manifest.name,
        version=model.manifest.version,
        files=len(names),
        size_bytes=sum(files[number].size_bytes for number in names),
    )


def _below(items: Iterable[tuple[str, T]], path: str) -> list[tuple[str, T]]:
    """What is below a path, under the names that it gets there; everything for the empty path."""
    if not path:
        return list(items)
    return [
        ("." if name == path else name.removeprefix(f"{path}/"), each)
        for name, each in items
        if f"{name}/".startswith(f"{path}/")
    ]


def _write_files(
    model: OpenModel, names: Mapping[int, str], target: Target, progress: Progress
) -> None:
    """Write files of a model by the names that they get, each compared with the manifest."""
    free: list[bytearray] = []

    def read(item: tuple[int, Segment]) -> tuple[int, Segment, memoryview]:
        file, segment = item
        buffer = free.pop() if free else bytearray()
        if len(buffer) < segment.length:
            buffer = bytearray(segment.length)
        plain = memoryview(buffer)[: segment.length]
        model.segment_into(segment, plain)
        if not target.is_ordered:
            target.write(names[file], segment.start, plain)
        return file, segment, plain

    digest = Digester()
    for file, segment, plain in model.workers.map(read, _begun(model, names, target)):
        if target.is_ordered:
            target.write(names[file], segment.start, plain)
        digest.update(plain)
        progress(len(plain))
        if segment.start + segment.length == model.manifest.files[file].size_bytes:
            _finish(model, file, names[file], target, digest)
            digest = Digester()
        assert isinstance(plain.obj, bytearray)
        free.append(plain.obj)


def _begun(
    model: OpenModel, names: Mapping[int, str], target: Target
) -> Iterator[tuple[int, Segment]]:
    """Begin files as their segments are asked for; those that have none are done at once."""
    for file, name in names.items():
        size_bytes = model.manifest.files[file].size_bytes
        target.begin(name, size_bytes)
        if not size_bytes:
            _finish(model, file, name, target, Digester())
        for number in model.portable.numbers(file, 0, size_bytes):
            yield file, model.portable.segment(number)


def _finish(model: OpenModel, file: int, name: str, target: Target, digest: Digester) -> None:
    """End a file that is the one that was signed.

    Raises:
        IntegrityError: `seal.digest`.
    """
    entry = model.manifest.files[file]
    demand_entry(
        model.portable.proof,
        FileEntry(path=entry.path, size_bytes=entry.size_bytes, digest=digest.digest()),
    )
    target.end(name, mode=model.portable.table.parts[file].mode, mtime_ns=-1)
