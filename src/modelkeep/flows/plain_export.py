"""Writing the tensors of a version as safetensors, whatever its files are.

What is safetensors already comes out as it went in, bit for bit, with all that lies beside it.
Of other files the structure is read (everything but the bytes of the tensors that the manifest
lists), the tensors are laid out, and then each is streamed to its place. Its piece of the file is
hashed and compared with the signed manifest on the way; a tensor that sees a part of a piece, which
was proven before, is read by the same chunks again, and those are named by their content.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from modelkeep.core.artifact import Manifest, ModelReference, TensorEntry
from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.core.policy import Use
from modelkeep.core.record import Record
from modelkeep.flows.keep import OpenKeep, current_snapshot
from modelkeep.flows.permission import demand_use
from modelkeep.flows.registry import HeldVersion, held_version, naming_tensors, reference_to
from modelkeep.flows.restore import Opener, Target, file_in, reading, record_restored, restored
from modelkeep.kernels.digest import Digester
from modelkeep.kernels.formats import identify
from modelkeep.kernels.plain_tensors import Cut, cuts_of, layout_of, unpacked
from modelkeep.seal.trust import file_of
from modelkeep.vault.load import Reader
from modelkeep.vault.snapshot import RecipeFile

_SAFETENSORS = "safetensors"
# `identify` looks this far for what marks one.
_HEAD_BYTES = 512

# Gives zeroed memory, none of which is taken before it is written to.
Allocate = Callable[[int], memoryview]
Progress = Callable[[int], None]


class PlainTensors(Record, frozen=True):
    """What was written.

    Attributes:
        is_same: whether the files were safetensors already, and are the very same.
        passed: files in which no tensors are seen, and which were not written.
    """

    name: str
    version: int
    files: int
    tensors: int
    size_bytes: int
    is_same: bool
    passed: tuple[str, ...] = ()


def plain_tensors(
    keep: OpenKeep,
    reference: ModelReference,
    open_target: Opener,
    allocate: Allocate,
    *,
    path: str = "",
    progress: Progress = lambda _: None,
) -> PlainTensors:
    """Write a version's tensors as one safetensors file, or as the safetensors files that it has.

    Args:
        path: of the one file of it that is meant.

    Raises:
        RefusedError: `policy.*`.
        MissingError: `model.unknown`, `model.alias` or `restore.path`.
        UsageError: `tensors.none`, `tensors.form` or `tensors.twice`, before anything is written.
        IntegrityError: `model.damaged` or `tensor.digest`; the target is then not there.
    """
    with reading(keep) as reader:
        found = held_version(keep, reader, current_snapshot(keep, reader), reference)
        demand_use(keep, found.proof.manifest, Use.RESTORE)
        files = [file_in(found, path)] if path else list(found.recipe.files)
        holding = _holding(found, files)
        with naming_tensors(found.proof.manifest):
            if not all(_is_safetensors(reader, found, each) for each in holding):
                writing = _Writing(reader, found, progress)
                return _converted(
                    writing,
                    files,
                    open_target,
                    allocate,
                    record_it=lambda: record_restored(keep, found, path),
                )
    manifest = found.proof.manifest
    reference = reference_to(manifest.name, manifest.version)  # an alias may have moved meanwhile
    same = restored(keep, reference, open_target, path=path, progress=progress)
    signed = _Signed(found.proof.manifest)
    return PlainTensors(
        name=same.name,
        version=same.version,
        files=same.files,
        tensors=sum(signed.count(each.path) for each in files),
        size_bytes=same.size_bytes,
        is_same=True,
    )


def _holding(found: HeldVersion, files: list[RecipeFile]) -> list[RecipeFile]:
    """The files in which tensors are seen.

    Raises:
        UsageError: `tensors.none`.
    """
    manifest = found.proof.manifest
    signed = _Signed(manifest)
    holding = [each for each in files if signed.count(each.path)]
    if holding:
        return holding
    raise UsageError(
        "tensors.none",
        f"no tensors are seen in {manifest.name}:{manifest.version}",
        hint="`modelkeep restore` gives the files as they are",
    )


def _converted(
    writing: _Writing,
    files: list[RecipeFile],
    open_target: Opener,
    allocate: Allocate,
    *,
    record_it: Callable[[], None],
) -> PlainTensors:
    """Lay out the tensors of some files, then write them; they are in the ledger before a name."""
    manifest = writing.found.proof.manifest
    head, cuts = layout_of(_cuts(writing.reader, writing.found, files, allocate))
    for cut in cuts:
        if cut.length:
            writing.signed.around(cut)  # that nothing proves one is said before anything is written
    with open_target(False) as target:  # noqa: FBT003 - no folder
        size_bytes = writing.all_of(head, cuts, target)
        record_it()
    read = {cut.path for cut in cuts}
    return PlainTensors(
        name=manifest.name,
        version=manifest.version,
        files=1,
        tensors=len(cuts),
        size_bytes=size_bytes,
        is_same=False,
        passed=tuple(each.path for each in files if each.path not in read),
    )


def _is_safetensors(reader: Reader, found: HeldVersion, file: RecipeFile) -> bool:
    head = memoryview(bytearray(min(file.size_bytes, _HEAD_BYTES)))
    reader.range_into(head, file, start=0, key_id=found.key_id)
    return identify(head) == _SAFETENSORS


def _cuts(
    reader: Reader, found: HeldVersion, files: list[RecipeFile], allocate: Allocate
) -> list[Cut]:
    """The tensors of all files; an external file's are named by the model that they belong to."""
    manifest = found.proof.manifest
    direct: dict[str, list[Cut]] = {}
    for file in files:
        entries = file_of(manifest, file.path).tensors
        view = _structure(reader, found, file, entries, allocate)
        pieces = [
            Cut(each.name, each.dtype, each.shape, file.path, each.offset, each.length)
            for each in entries
        ]
        kind = identify(view)
        direct[file.path] = cuts_of(file.path, view, kind, pieces)
    named = {cut.path for path, cuts in direct.items() for cut in cuts if cut.path != path}
    chosen: list[Cut] = []
    for path, cuts in direct.items():
        chosen += [cut for cut in cuts if cut.path != path or path not in named]
    return list(dict.fromkeys(chosen))


def _structure(
    reader: Reader,
    found: HeldVersion,
    file: RecipeFile,
    entries: tuple[TensorEntry, ...],
    allocate: Allocate,
) -> memoryview:
    """A file with zeros where its tensors are."""
    view = allocate(file.size_bytes)
    at = 0
    for offset, length in sorted((each.offset, each.length) for each in entries):
        if offset > at:
            reader.range_into(view[at:offset], file, start=at, key_id=found.key_id)
        at = max(at, offset + length)
    if at < file.size_bytes:
        reader.range_into(view[at:], file, start=at, key_id=found.key_id)
    return view


@dataclass(slots=True)
class _Writing:
    """Tensors on their way into one safetensors file."""

    reader: Reader
    found: HeldVersion
    progress: Progress
    signed: _Signed = field(init=False)
    _proven: set[tuple[str, int, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.signed = _Signed(self.found.proof.manifest)

    def all_of(self, head: bytes, cuts: list[Cut], target: Target) -> int:
        """Write the header and the tensors in their order; how many bytes."""
        size_bytes = len(head) + sum(cut.size_bytes for cut in cuts)
        target.begin(".", size_bytes)
        target.write(".", 0, memoryview(head))
        done = len(head)
        for cut in cuts:
            for block in self._numbers(cut):
                target.write(".", done, block)
                done += len(block)
                self.progress(len(block))
        if done != size_bytes:
            raise AssertionError("a tensor is not as long as its shape says")
        target.end(".", mode=-1, mtime_ns=-1)
        target.frame((), ())
        return size_bytes

    def _numbers(self, cut: Cut) -> Iterator[memoryview]:
        """The bytes of one tensor; at their end they are proven."""
        if not cut.length:
            return
        if cut.is_packed:
            packed = b"".join(map(bytes, self._piece(cut)))
            yield memoryview(unpacked(cut, memoryview(packed)))
        else:
            yield from self._piece(cut)

    def _piece(self, cut: Cut) -> Iterator[memoryview]:
        """A part of what the manifest lists as a tensor, all of which is proven the first time."""
        file = file_in(self.found, cut.path)
        entry = self.signed.around(cut)
        key = (cut.path, entry.offset, entry.length)
        if key in self._proven:
            yield from self.reader.range_blocks(
                file, start=cut.offset, length=cut.length, key_id=self.found.key_id
            )
            return
        digest, at, end = Digester(), entry.offset, cut.offset + cut.length
        blocks = self.reader.range_blocks(
            file, start=entry.offset, length=entry.length, key_id=self.found.key_id
        )
        for block in blocks:
            digest.update(block)
            part = block[max(cut.offset - at, 0) : max(end - at, 0)]
            at += len(block)
            if len(part):
                yield part
        if digest.digest() != entry.digest:
            manifest = self.found.proof.manifest
            raise IntegrityError(
                "tensor.digest",
                f"{manifest.name}:{manifest.version}: {entry.name} is not the tensor that was "
                "signed",
            )
        self._proven.add(key)


class _Signed:
    """What the manifest lists as tensors, to be found by where it lies."""

    def __init__(self, manifest: Manifest) -> None:
        self._entries = {
            file.path: sorted(file.tensors, key=lambda each: (each.offset, each.length))
            for file in manifest.files
        }

    def count(self, path: str) -> int:
        """How many lie in a file."""
        return len(self._entries.get(path, ()))

    def around(self, cut: Cut) -> TensorEntry:
        """The one that a tensor lies in.

        Raises:
            UsageError: `tensors.form`.
        """
        entries = self._entries.get(cut.path, [])
        at = bisect_right(entries, cut.offset, key=lambda each: each.offset) - 1
        if at >= 0 and cut.offset + cut.length <= entries[at].offset + entries[at].length:
            return entries[at]
        raise UsageError(
            "tensors.form",
            f"{cut.path[:200]}: nothing that was signed proves tensor {cut.name[:200]!r} by itself",
            hint="`modelkeep restore` gives the files as they are",
        )
