"""Saving: files that are no model, kept as they are, as the next version of a name.

what changed since the version before -> chunks -> recipe -> sign -> seal -> ledger. Nothing is
scanned. A file with the size, times and inode that it had then is not read again, if the store
still holds its chunks. Where nothing is new, nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field

from modelkeep.core.artifact import FileEntry, Manifest, checked_model_name
from modelkeep.core.errors import IntegrityError, KeepError, UsageError
from modelkeep.core.record import replaced
from modelkeep.crypto.hierarchy import DomainKeys
from modelkeep.flows.deposit import (
    Also,
    Deposited,
    Turn,
    bases_of,
    domain_for,
    entered,
    lent,
    retried,
    written,
)
from modelkeep.flows.keep import OpenKeep, current_snapshot, record_damages
from modelkeep.flows.permission import demand_base
from modelkeep.flows.registry import HeldVersion, held_version, reference_to
from modelkeep.kernels.externals import external_tensors
from modelkeep.kernels.formats import identify
from modelkeep.kernels.tensors import TensorPlace, onnx_layout, places_of, tensor_places
from modelkeep.vault.commit import Deposit, Stream, Writer
from modelkeep.vault.load import Reader
from modelkeep.vault.settings import VaultSettings
from modelkeep.vault.snapshot import Recipe, RecipeFile, Snapshot, latest_version
from modelkeep.vault.streams import Plain, streamed

KIND = "files"
_ONNX = ".onnx"
Places = Mapping[str, Sequence[TensorPlace]]


@dataclass(frozen=True, slots=True)
class FileMark:
    """What is known of a file before it is read.

    Attributes:
        mode: its permission bits; -1 where there are none.
        changed: (mtime, ctime, inode), times in ns; (mtime,) where it may change again without
            another time; empty where nothing is known.
    """

    path: str
    size_bytes: int
    mode: int = -1
    changed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Tree:
    """Files that are to be kept together, in the order of their paths.

    Attributes:
        open: opens one of them by its path; each is opened when it is its turn, and at most those
            of one ONNX model together.
        folders: path and permission bits, parents first; the folder itself is `.`. Empty for a
            single file.
        links: path and what it says.
    """

    files: tuple[FileMark, ...]
    open: Callable[[str], AbstractContextManager[Plain]]
    folders: tuple[tuple[str, int], ...] = ()
    links: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Saved:
    """What came of it.

    Attributes:
        is_new: whether there was anything to keep.
        unread: how many files are as they were, by their times.
    """

    name: str
    version: int
    digest: str
    is_new: bool
    files: int
    size_bytes: int
    unread: int


@dataclass(frozen=True, slots=True)
class _Start:
    """What there was when a save began."""

    keep: OpenKeep
    snapshot: Snapshot
    domain: DomainKeys
    bases: Sequence[tuple[str, int]]
    taken: dict[str, tuple[FileEntry, RecipeFile]] = field(default_factory=dict)


def saved(
    turn: Turn,
    tree: Tree,
    *,
    name: str,
    domain: str = "",
    base: str = "",
    note: str = "",
    vault: VaultSettings,
    also: Sequence[Also] = (),
    progress: Callable[[int], None] = lambda _: None,
) -> Saved:
    """Keep files as the next version of a name, unless they are what its latest version holds.

    Args:
        base: reference of a version to store it as a delta to, where that pays.
        also: each gives one more entry of the new version, in one write with the commit.

    Raises:
        UsageError: `model.name`, `save.text`, `save.kind`; or what reading a file raises.
        MissingError: `keys.domain`.
        UnavailableError: from the store, or `vault.pruned`: a prune or a rekey took what was
            written, again and again; nothing refers to it, so retry is safe.
    """
    checked_model_name(name)
    demand_base(turn.opened, base)
    demand_text(note)
    wanted = Manifest(
        name=name,
        version=0,
        kind=KIND,
        domain=domain,
        admitted_ns=0,
        files=(),
        base=base,
        note=note,
    )
    return retried(lambda: _saved(turn, tree, wanted, vault=vault, also=also, progress=progress))


def _saved(
    turn: Turn,
    tree: Tree,
    wanted: Manifest,
    *,
    vault: VaultSettings,
    also: Sequence[Also],
    progress: Callable[[int], None],
) -> Saved:
    start = _started(turn.opened, tree, wanted)
    fresh = [each for each in tree.files if each.path not in start.taken]
    progress(sum(each.size_bytes for each in tree.files if each.path in start.taken))
    with lent(turn, sum(each.size_bytes for each in fresh)):
        writer = start.keep.writer_to(start.keep.store, start.domain, vault)
        done = written(
            start.keep,
            _streams(tree, fresh, writer),
            domain=start.domain,
            snapshot=start.snapshot,
            first=start.bases,
            vault=vault,
            progress=progress,
        )
    keep = turn.opened
    record_damages(keep, done.damages)
    files, recipe = _joined(tree, start, done)
    size_bytes = sum(each.size_bytes for each in files)
    latest = _latest(keep, keep.reader(), current_snapshot(keep), wanted.name)
    if latest is not None and _is_same(latest, files, recipe):
        held, digest, is_new = latest.proof.manifest, str(latest.proof.digest), False
    else:
        manifest = replaced(
            wanted, domain=start.domain.name, admitted_ns=keep.clock.now_ns(), files=files
        )
        held, digest = entered(
            keep,
            manifest,
            recipe,
            domain=start.domain,
            kind="files.saved",
            vault=vault,
            also=also,
        )
        is_new = True
    return Saved(
        name=held.name,
        version=held.version,
        digest=digest,
        is_new=is_new,
        files=len(files),
        size_bytes=size_bytes,
        unread=len(start.taken),
    )


def demand_text(note: str) -> None:
    """A manifest is UTF-8; what a shell hands over need not be.

    Raises:
        UsageError: `save.text`.
    """
    try:
        note.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            "save.text", "the note is not valid UTF-8", hint="write it anew"
        ) from error


def _started(keep: OpenKeep, tree: Tree, wanted: Manifest) -> _Start:
    """What there is now, and which files need not be read."""
    reader = keep.reader()
    snapshot = current_snapshot(keep, reader)
    domain = domain_for(keep, snapshot, wanted.name, wanted.domain)
    before = _latest(keep, reader, snapshot, wanted.name)
    if before is not None and before.proof.manifest.kind != KIND:
        raise UsageError(
            "save.kind",
            f"{wanted.name} is a model: what is saved is not scanned, and has another name",
            hint="`modelkeep admit` lets a model in",
        )
    taken: dict[str, tuple[FileEntry, RecipeFile]] = {}
    if before is not None and before.key_id == domain.key_id:
        taken = dict(_unchanged(keep, reader, tree, before))
    record_damages(keep, reader.damages)
    bases = bases_of(keep, snapshot, wanted.name, wanted.base)
    return _Start(keep, snapshot, domain, bases, taken)


def _latest(keep: OpenKeep, reader: Reader, snapshot: Snapshot, name: str) -> HeldVersion | None:
    """The latest version, if there is one that can be read."""
    version = latest_version(snapshot, name)
    if version < 1:
        return None
    try:
        return held_version(keep, reader, snapshot, reference_to(name, version))
    except KeepError:
        return None


def _unchanged(
    keep: OpenKeep, reader: Reader, tree: Tree, before: HeldVersion
) -> Iterator[tuple[str, tuple[FileEntry, RecipeFile]]]:
    """Files that are as they were, and whose chunks the store still holds."""
    entries = {each.path: each for each in before.proof.manifest.files}
    recipes = {each.path: each for each in before.recipe.files}
    index = reader.index_of(keep.store, before.key_id)
    held = Deposit(
        keep.writer_to(
            keep.store, keep.domains.named(before.proof.manifest.domain), VaultSettings()
        ),
        index,
    )

    for mark in tree.files:
        was = recipes.get(mark.path)
        if was is None or len(mark.changed) < 3:
            continue
        if (was.size_bytes, was.changed) == (mark.size_bytes, mark.changed) and all(
            held.holds(chunk_id) for chunk_id, _ in was.chunks
        ):
            yield mark.path, (entries[mark.path], was)


def _streams(tree: Tree, fresh: Sequence[FileMark], writer: Writer) -> Iterator[Stream]:
    """Open, look for tensors, cut: one file after the other."""
    outside = _outside(tree, {each.path for each in fresh})
    for mark in fresh:
        with tree.open(mark.path) as plain:
            tensors = outside.get(mark.path) or _tensors(plain)
            plain.forget()
            yield streamed(plain, tensors, writer=writer)


def _tensors(plain: Plain) -> Sequence[TensorPlace]:
    """A layout that does not hold makes a file general bytes."""
    try:
        return tensor_places(plain.path, plain.raw, identify(plain.raw))
    except IntegrityError:
        return ()


def _outside(tree: Tree, paths: Collection[str]) -> Places:
    """Where the tensors lie that ONNX models keep in files beside them."""
    found: dict[str, Sequence[TensorPlace]] = {}
    for path in sorted(each for each in paths if each.endswith(_ONNX)):
        with ExitStack() as stack:
            views = {path: stack.enter_context(tree.open(path)).raw}
            kinds = {path: identify(views[path])}
            for each in _externals(path, views[path], kinds[path]) & (set(paths) - {path}):
                views[each] = stack.enter_context(tree.open(each)).raw
                kinds[each] = identify(views[each])
            places = places_of(views, kinds)
            found.update({each: places.get(each, ()) for each in views if each != path})
    return found


def _externals(path: str, view: memoryview, kind: str) -> set[str]:
    try:
        if kind != "onnx":
            return set()
        return {each.path for each in external_tensors(path, onnx_layout(view))}
    except IntegrityError:
        return set()


def _joined(tree: Tree, start: _Start, done: Deposited) -> tuple[tuple[FileEntry, ...], Recipe]:
    """What was stored now and what was taken over, in the order of the tree."""
    stored = {each.entry.path: (each.entry, each.recipe) for each in done.wrote.files}
    both = [(mark, *(start.taken.get(mark.path) or stored[mark.path])) for mark in tree.files]
    recipe = Recipe(
        files=tuple(replaced(file, mode=mark.mode, changed=mark.changed) for mark, _, file in both),
        folders=tree.folders,
        links=tree.links,
    )
    return tuple(entry for _, entry, _ in both), recipe


def _is_same(latest: HeldVersion, files: Sequence[FileEntry], recipe: Recipe) -> bool:
    """Whether there is nothing new: times alone are not."""
    was = latest.recipe
    return (
        latest.proof.manifest.kind == KIND
        and latest.proof.manifest.files == tuple(files)
        and (was.folders, was.links) == (recipe.folders, recipe.links)
        and [each.mode for each in was.files] == [each.mode for each in recipe.files]
    )
