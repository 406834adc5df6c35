"""What differs between two versions, or between two snapshots: files and tensors, by digest.

Nothing but signed manifests is read: what is equal by digest is equal, whatever it is stored as.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from modelkeep.core.artifact import FileEntry, Manifest, TensorEntry, parsed_reference
from modelkeep.core.errors import UsageError
from modelkeep.core.record import Record
from modelkeep.flows.keep import OpenKeep, current_snapshot, record_damages
from modelkeep.flows.registry import proof_of, resolved
from modelkeep.flows.snapshots import Kept, snapshot_at, versions_in
from modelkeep.vault.load import Reader
from modelkeep.vault.snapshot import Snapshot

ADDED, REMOVED, CHANGED = "added", "removed", "changed"


class Tally(Record, frozen=True):
    """How many of them, and their bytes: as they are now, of what was removed as it was."""

    equal: int = 0
    equal_bytes: int = 0
    added: int = 0
    added_bytes: int = 0
    changed: int = 0
    changed_bytes: int = 0
    removed: int = 0
    removed_bytes: int = 0


class TensorChange(Record, frozen=True):
    """One tensor that is not as it was.

    Attributes:
        change: `added`, `removed` or `changed`.
        size_bytes: as it is now; of one that was removed, as it was.
    """

    name: str
    change: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int


class FileChange(Record, frozen=True):
    """One file that is not as it was.

    Attributes:
        before_path: as it was called; empty for one that was added.
        change: `added`, `removed` or `changed`, which may be no more than its path.
        before_bytes: -1 for one that was added.
        after_bytes: -1 for one that was removed.
        tensors: how many of them are not as they were.
    """

    path: str
    before_path: str
    change: str
    before_bytes: int
    after_bytes: int
    tensors: Tally
    changes: tuple[TensorChange, ...]


class VersionDiff(Record, frozen=True):
    """What differs between two versions, one of which may be none.

    Attributes:
        before: such as `fraud:1`; empty for none.
        after: likewise.
        changes: files that are not as they were.
        files: how many of them are.
        tensors: of all files.
    """

    before: str
    after: str
    changes: tuple[FileChange, ...]
    files: Tally
    tensors: Tally


class SnapshotDiff(Record, frozen=True):
    """What differs between two snapshots.

    Attributes:
        before: number of the head.
        after: likewise.
        added: versions that only the later one holds.
        removed: versions that only the earlier one holds.
        models: for every name whose latest version is another one: what differs between the two.
    """

    before: int
    after: int
    added: tuple[str, ...]
    removed: tuple[str, ...]
    models: tuple[VersionDiff, ...]


def compared(keep: OpenKeep, before: str, after: str) -> VersionDiff | SnapshotDiff:
    """Compare what two texts name: `NAME:VERSION` twice, or two snapshots.

    Raises:
        UsageError: `diff.mixed`, `model.*` or `snapshot.*`.
        MissingError: `model.unknown` or `snapshot.unknown`.
    """
    reader = keep.reader()
    try:
        if _is_version(before) or _is_version(after):
            if not (_is_version(before) and _is_version(after)):
                raise UsageError(
                    "diff.mixed",
                    "a version is compared with a version, a snapshot with a snapshot",
                    hint="`modelkeep diff fraud:1 fraud:2` or `modelkeep diff 3 head`",
                )
            snapshot = current_snapshot(keep, reader)
            sides = [_manifest(keep, reader, snapshot, text) for text in (before, after)]
            return version_diff(*sides)
        return _snapshot_diff(
            keep, reader, snapshot_at(keep, before, reader), snapshot_at(keep, after, reader)
        )
    finally:
        record_damages(keep, reader.damages)


def version_diff(before: Manifest | None, after: Manifest | None) -> VersionDiff:
    """Compare two manifests; None stands for a version that is not there."""
    pairs = list(_paired(_files(before), _files(after)))
    changes = [_file_change(*pair) for pair in pairs if not _is_same(*pair)]
    equal = [now for then, now in pairs if now is not None and _is_same(then, now)]
    whole = [tensor for file in equal for tensor in file.tensors]
    same = Tally(equal=len(whole), equal_bytes=sum(each.length for each in whole))
    return VersionDiff(
        before=_named(before),
        after=_named(after),
        changes=tuple(changes),
        files=_tally(
            (
                (each.change, each.before_bytes if each.change == REMOVED else each.after_bytes)
                for each in changes
            ),
            equal=[each.size_bytes for each in equal],
        ),
        tensors=_sum([same, *(each.tensors for each in changes)]),
    )


def _is_version(text: str) -> bool:
    """Whether a text is NAME:SELECTOR; a time has colons too, but is no such name."""
    if ":" not in text:
        return False
    try:
        parsed_reference(text)
    except UsageError:
        return False
    return True


def _manifest(keep: OpenKeep, reader: Reader, snapshot: Snapshot, text: str) -> Manifest:
    reference = parsed_reference(text)
    version = resolved(reference, snapshot, keep.state)
    return proof_of(keep, reader, snapshot, name=reference.name, version=version).manifest


def _snapshot_diff(keep: OpenKeep, reader: Reader, before: Kept, after: Kept) -> SnapshotDiff:
    then, now = versions_in(before.snapshot), versions_in(after.snapshot)
    newest = [dict(then.keys()), dict(now.keys())]  # they are sorted: of a name the last one counts
    models = []
    for name in sorted(newest[0].keys() | newest[1].keys()):
        if newest[0].get(name) != newest[1].get(name):
            sides = [
                _latest(keep, reader, kept.snapshot, name, versions.get(name, 0))
                for kept, versions in zip((before, after), newest, strict=True)
            ]
            models.append(version_diff(*sides))
    return SnapshotDiff(
        before=before.number,
        after=after.number,
        added=tuple(f"{name}:{version}" for name, version in now if (name, version) not in then),
        removed=tuple(f"{name}:{version}" for name, version in then if (name, version) not in now),
        models=tuple(models),
    )


def _latest(
    keep: OpenKeep, reader: Reader, snapshot: Snapshot, name: str, version: int
) -> Manifest | None:
    """A version's manifest; None where there is none, or its domain's key was destroyed."""
    if not version:
        return None
    entry = versions_in(snapshot)[name, version]
    if not reader.holds(entry.envelope):
        return None
    return proof_of(keep, reader, snapshot, name=name, version=version).manifest


def _files(manifest: Manifest | None) -> dict[str, FileEntry]:
    return {} if manifest is None else {each.path: each for each in manifest.files}


def _paired(
    before: dict[str, FileEntry], after: dict[str, FileEntry]
) -> Iterator[tuple[FileEntry | None, FileEntry | None]]:
    """Which file was which: by path, then by content, then the only ones that are left."""
    yield from ((before[path], after[path]) for path in sorted(before.keys() & after.keys()))
    left = [before[path] for path in sorted(before.keys() - after.keys())]
    new = [after[path] for path in sorted(after.keys() - before.keys())]
    same = {each.digest: each for each in left}
    moved = [(same.pop(each.digest), each) for each in new if each.digest in same]
    yield from moved
    told = {each.path for pair in moved for each in pair}
    gone = [each for each in left if each.path not in told]
    come = [each for each in new if each.path not in told]
    if len(gone) == len(come) == 1:
        yield gone[0], come[0]
        return
    yield from ((each, None) for each in gone)
    yield from ((None, each) for each in come)


def _is_same(before: FileEntry | None, after: FileEntry | None) -> bool:
    """Whether neither content nor path is another one."""
    if before is None or after is None:
        return False
    return (before.path, before.digest) == (after.path, after.digest)


def _named(manifest: Manifest | None) -> str:
    return "" if manifest is None else f"{manifest.name}:{manifest.version}"


def _file_change(before: FileEntry | None, after: FileEntry | None) -> FileChange:
    either = after or before
    assert either is not None  # its path came from one of them
    then, now = _tensors(before), _tensors(after)
    changes = [
        _tensor_change(then.get(key), now.get(key))
        for key in dict.fromkeys([*now, *then])
        if not _is_equal(then.get(key), now.get(key))
    ]
    equal = [now[key].length for key in now if _is_equal(then.get(key), now[key])]
    return FileChange(
        path=either.path,
        before_path="" if before is None else before.path,
        change=ADDED if before is None else REMOVED if after is None else CHANGED,
        before_bytes=-1 if before is None else before.size_bytes,
        after_bytes=-1 if after is None else after.size_bytes,
        tensors=_tally(((each.change, each.size_bytes) for each in changes), equal=equal),
        changes=tuple(changes),
    )


def _tensors(file: FileEntry | None) -> dict[tuple[str, int], TensorEntry]:
    """A file's tensors by name; of those that share one, each by its turn."""
    turns: Counter[str] = Counter()
    found: dict[tuple[str, int], TensorEntry] = {}
    for each in () if file is None else file.tensors:
        found[each.name, turns[each.name]] = each
        turns[each.name] += 1
    return found


def _is_equal(before: TensorEntry | None, after: TensorEntry | None) -> bool:
    if before is None or after is None:
        return False
    sides = [(each.dtype, each.shape, each.digest) for each in (before, after)]
    return sides[0] == sides[1]


def _tensor_change(before: TensorEntry | None, after: TensorEntry | None) -> TensorChange:
    either = after or before
    assert either is not None  # its key came from one of them
    return TensorChange(
        name=either.name,
        change=ADDED if before is None else REMOVED if after is None else CHANGED,
        dtype=either.dtype,
        shape=either.shape,
        size_bytes=either.length,
    )


def _tally(changes: Iterable[tuple[str, int]], *, equal: list[int]) -> Tally:
    counts = {"equal": len(equal), "equal_bytes": sum(equal)}
    for change, size_bytes in changes:
        counts[change] = counts.get(change, 0) + 1
        counts[f"{change}_bytes"] = counts.get(f"{change}_bytes", 0) + size_bytes
    return Tally(**counts)


def _sum(tallies: Iterable[Tally]) -> Tally:
    total: Counter[str] = Counter()
    for each in tallies:
        total.update(dict(_pairs(each)))
    return Tally(**total)


def _pairs(tally: Tally) -> Iterator[tuple[str, int]]:
    for name in (ADDED, REMOVED, CHANGED, "equal"):
        yield name, getattr(tally, name)
        yield f"{name}_bytes", getattr(tally, f"{name}_bytes")
