"""Snapshots: one point in time that can be restored; the head that says which one counts."""

from __future__ import annotations

from modelkeep.core.errors import MissingError
from modelkeep.core.record import Record
from modelkeep.vault.objects import Numbered


class RecipeFile(Record, frozen=True):
    """How one file is put together: its chunks in order, as (chunk id, length in bytes).

    Attributes:
        mode: its permission bits; -1 where they were not kept.
        changed: (mtime, ctime, inode) when it was read, times in ns: a file that still has them is
            not read again. Empty where they were not kept.
    """

    path: str
    size_bytes: int
    chunks: tuple[tuple[bytes, int], ...]
    mode: int = -1
    changed: tuple[int, ...] = ()


class Recipe(Record, frozen=True):
    """The map from an artifact's files to chunk ids; encrypted, never signed by the publisher.

    Attributes:
        folders: of a saved folder, as (path, permission bits), parents first; the folder itself is
            `.`. Empty for a single file.
        links: its symbolic links, as (path, what it says).
    """

    files: tuple[RecipeFile, ...]
    folders: tuple[tuple[str, int], ...] = ()
    links: tuple[tuple[str, str], ...] = ()


class ArtifactEntry(Record, frozen=True):
    """One artifact version in a snapshot.

    Attributes:
        envelope: name of its sealed envelope.
        recipe: name of its recipe.
        layouts: keyed digests of its files' tensor layouts: what a new file finds its base by.
    """

    name: str
    version: int
    domain: str
    envelope: str
    recipe: str
    layouts: tuple[bytes, ...] = ()


class Snapshot(Record, frozen=True):
    """Everything that the keep holds at one point in time.

    Attributes:
        parent: name of the snapshot before this one; empty for the first.
        indexes: names of the indexes at that time, in snapshots of the first releases; nothing
            reads them any more, because each store lists its own.
        retired: versions that are gone, as (name, version); their numbers are not used again.
        oldest: name of the earliest snapshot that is kept; those before it were pruned. Empty when
            none was.
    """

    taken_ns: int
    parent: str
    artifacts: tuple[ArtifactEntry, ...]
    indexes: tuple[str, ...] = ()
    retired: tuple[tuple[str, int], ...] = ()
    oldest: str = ""


class Head(Numbered, frozen=True):
    """Which snapshot counts: a numbered series, the highest valid member wins.

    It holds nothing but what the ledger's `vault.committed` entry holds too, so a head that was
    lost or damaged is made again, bit for bit, from the ledger.

    Attributes:
        snapshot: name of the snapshot; empty before the first commit.
    """

    keep_id: str
    snapshot: str


def next_version(snapshot: Snapshot, name: str) -> int:
    """The version that the next artifact of this name gets: never one that was in use."""
    used = [(each.name, each.version) for each in snapshot.artifacts]
    return 1 + max((version for of, version in (*used, *snapshot.retired) if of == name), default=0)


def latest_version(snapshot: Snapshot, name: str) -> int:
    """The latest version that is there; 0 when there is none."""
    return max((each.version for each in snapshot.artifacts if each.name == name), default=0)


def entry_of(snapshot: Snapshot, name: str, version: int) -> ArtifactEntry:
    """Find one artifact version.

    Raises:
        MissingError: `model.unknown`.
    """
    for entry in snapshot.artifacts:
        if entry.name == name and entry.version == version:
            return entry
    raise MissingError(
        "model.unknown",
        f"there is no model {name}:{version}",
        hint="`modelkeep models` lists what the keep holds",
        model=name,
        version=version,
    )
