"""The keep as a tree of folders: /models as it is now, /snapshots as it was.

    /models/NAME/VERSION/FILES…         /models/NAME/ALIAS -> VERSION
    /snapshots/NUMBER/NAME/VERSION/…    /snapshots/head -> NUMBER

What stood there when the tree was made stands there until it ends. A version's manifest is verified
before its files show; their bytes are proven chunk by chunk as they are read, against the ids in
the sealed recipe, and not against the digest of the whole file, which would need all of it. Names,
sizes and times show whatever the policies say; whether a file may be read is asked when it is
opened, and again for every chunk of it.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from modelkeep.core.artifact import Manifest
from modelkeep.core.errors import IntegrityError, MissingError
from modelkeep.core.names import key_id_of
from modelkeep.core.record import from_msgpack
from modelkeep.core.rows import Alias
from modelkeep.flows.snapshots import versions_in
from modelkeep.ports.file_tree import Node, NodeKind, Piece
from modelkeep.seal.envelope import Envelope
from modelkeep.seal.trust import verified
from modelkeep.vault.check import snapshots
from modelkeep.vault.load import Reader
from modelkeep.vault.pieces import Pieces, pieces_of
from modelkeep.vault.snapshot import ArtifactEntry, Head, RecipeFile, Snapshot

MODELS, SNAPSHOTS, HEAD = "models", "snapshots", "head"
_FOLDER_MODE, _FILE_MODE = 0o500, 0o400
# What is kept of versions and snapshots that were looked at, most recently first.
_VERSIONS_MAX = 64
_SNAPSHOTS_MAX = 8

K = TypeVar("K")
V = TypeVar("V")


@dataclass(slots=True)
class _Recent(Generic[K, V]):
    """The last few things that were made, by key. Two threads may make one twice: both are it."""

    most: int
    make: Callable[[K], V]
    _held: dict[K, V] = field(default_factory=dict)

    def get(self, key: K) -> V:
        found = self._held.pop(key, None)
        if found is None:
            found = self.make(key)
        self._held[key] = found
        for oldest in list(self._held)[: -self.most]:
            self._held.pop(oldest, None)
        return found


@dataclass(frozen=True, slots=True)
class _Version:
    """The files of one version by path, and what stands in each of its folders."""

    manifest: Manifest
    key_id: str
    files: Mapping[str, RecipeFile]
    links: Mapping[str, str]
    names: Mapping[str, Sequence[str]]


class KeepTree:
    """A FileTree over what a keep held at one moment; it needs no lock and changes nothing.

    Args:
        new_reader: makes a reader over the keep's stores.
        head: that counted then.
        aliases: that were set then.
        demand: refuses a version whose policy does not permit that its plaintext is shown, now.
    """

    def __init__(
        self,
        new_reader: Callable[[], Reader],
        head: Head,
        aliases: Sequence[Alias],
        *,
        demand: Callable[[Manifest], None],
    ) -> None:
        self.demand = demand
        self._new_reader = new_reader
        self._reader = new_reader()
        self._head = head
        self._aliases = tuple(aliases)
        self._chain: dict[int, tuple[str, int]] = {}
        self._snapshots = _Recent(_SNAPSHOTS_MAX, self._snapshot)
        self._versions = _Recent(_VERSIONS_MAX, self._version)

    def node(self, path: str) -> Node:
        """What stands under a path."""
        parts = _parts(path)
        if parts in ([], [MODELS], [SNAPSHOTS]):
            return _folder(self._snapshots.get(self._head.number).taken_ns)
        if parts == [SNAPSHOTS, HEAD] and self._numbers():
            return _link(str(self._head.number), self._snapshots.get(self._head.number).taken_ns)
        kept, below = self._below(parts, path)
        snapshot = self._snapshots.get(kept)
        if len(below) < 2:
            if below and all(each.name != below[0] for each in snapshot.artifacts):
                raise _missing(path)
            return _folder(snapshot.taken_ns)
        if parts[0] == MODELS and len(below) == 2 and below[1] in self._aliases_of(below[0]):
            return _link(str(self._aliases_of(below[0])[below[1]]), snapshot.taken_ns)
        return self._node_within(kept, below, path)

    def names(self, path: str) -> list[str]:
        """The names in a folder."""
        parts = _parts(path)
        if not parts:
            return [MODELS, SNAPSHOTS]
        if parts == [SNAPSHOTS]:
            numbers = [str(each) for each in self._numbers()]
            return [*numbers, HEAD] if numbers else []
        kept, below = self._below(parts, path)
        if len(below) < 2:
            keys = versions_in(self._snapshots.get(kept))
            if not below:
                return list(dict.fromkeys(name for name, _ in keys))
            aliases = self._aliases_of(below[0]) if parts[0] == MODELS else {}
            found = [*(str(version) for name, version in keys if name == below[0]), *aliases]
        else:
            version, rest = self._within(kept, below, path)
            found = list(version.names.get(rest, ()))
            if rest in version.names:
                return found
        if not found:
            raise _missing(path)
        return found

    def opened(self, path: str) -> TreeFile:
        """A file, to be read."""
        kept, below = self._below(_parts(path), path)
        if len(below) > 2:
            found, rest = self._within(kept, below, path)
            if rest in found.files:
                self.demand(found.manifest)
                return TreeFile(self, found.manifest, pieces_of(found.files[rest], found.key_id))
        raise _missing(path)

    def read_into(self, target: memoryview, pieces: Pieces, number: int) -> None:
        """Read a chunk; when it seems to be gone, a prune may have moved it: look once more."""
        try:
            pieces.read_into(target, number, self._reader)
        except IntegrityError:
            self._reader = self._new_reader()
            pieces.read_into(target, number, self._reader)

    def _below(self, parts: list[str], path: str) -> tuple[int, list[str]]:
        """Which head's snapshot a path leads into, and what it says below that."""
        if parts[:1] == [MODELS]:
            return self._head.number, parts[1:]
        if parts[:1] == [SNAPSHOTS] and len(parts) > 1:
            return _number(parts[1], path), parts[2:]
        raise _missing(path)

    def _within(self, kept: int, below: list[str], path: str) -> tuple[_Version, str]:
        """The version that a path leads into, and the path within it."""
        key = (below[0], _number(below[1], path))
        if key not in versions_in(self._snapshots.get(kept)):
            raise _missing(path)
        return self._versions.get((kept, *key)), "/".join(below[2:])

    def _node_within(self, kept: int, below: list[str], path: str) -> Node:
        """What stands in a version's folder."""
        found, rest = self._within(kept, below, path)
        if rest in found.files:
            return _file(found.files[rest], found.manifest.admitted_ns)
        if rest in found.links:
            return _link(found.links[rest], found.manifest.admitted_ns)
        if rest in found.names:
            return _folder(found.manifest.admitted_ns)
        raise _missing(path)

    def _aliases_of(self, name: str) -> dict[str, int]:
        """The aliases of a model that name a version which is there."""
        there = versions_in(self._snapshots.get(self._head.number))
        return {
            each.alias: each.version
            for each in self._aliases
            if each.model == name and (name, each.version) in there
        }

    def _numbers(self) -> list[int]:
        """Numbers of all heads whose snapshots are kept, oldest first."""
        if not self._chain:
            chain = enumerate(snapshots(self._reader, self._head.snapshot))
            self._chain = {
                self._head.number - distance: (name, snapshot.taken_ns)
                for distance, (name, snapshot) in chain
            }
        return sorted(self._chain)

    def _snapshot(self, number: int) -> Snapshot:
        if number == self._head.number:
            return self._reader.snapshot(self._head.snapshot)
        if number not in self._numbers():
            raise MissingError("tree.path", f"there is no snapshot {number}")
        return self._reader.snapshot(self._chain[number][0])

    def _version(self, key: tuple[int, str, int]) -> _Version:
        kept, name, number = key
        entry = versions_in(self._snapshots.get(kept))[name, number]
        return _version_of(self._reader, entry)


class TreeFile:
    """A PiecedFile: one file of a version."""

    def __init__(self, tree: KeepTree, manifest: Manifest, pieces: Pieces) -> None:
        self._tree = tree
        self._manifest = manifest
        self._pieces = pieces
        self.size_bytes = pieces.file.size_bytes

    def piece_at(self, offset: int) -> Piece | None:
        """The chunk that an offset lies in."""
        number = self._pieces.number_at(offset)
        if number < 0:
            return None
        chunk_id, length = self._pieces.file.chunks[number]
        return Piece(number, chunk_id, self._pieces.starts[number], length)

    def read(self, piece: Piece) -> bytearray:
        """The bytes of a chunk, proven."""
        self._tree.demand(self._manifest)
        found = bytearray(piece.length)
        self._tree.read_into(memoryview(found), self._pieces, piece.number)
        return found


def _version_of(reader: Reader, entry: ArtifactEntry) -> _Version:
    """Verify a version's manifest, and sort its files into folders.

    Raises:
        IntegrityError: `tree.recipe`, when the recipe is not that of the manifest.
    """
    envelope = from_msgpack(Envelope, reader.body("envelope", entry.envelope), what=entry.envelope)
    manifest = verified(
        envelope, name=entry.name, version=entry.version, trusted=(reader.public,)
    ).manifest
    recipe = reader.recipe(entry.recipe)
    signed = {(each.path, each.size_bytes) for each in manifest.files}
    if {(each.path, each.size_bytes) for each in recipe.files} != signed:
        raise IntegrityError(
            "tree.recipe", f"the recipe of {entry.name}:{entry.version} is of another manifest"
        )
    files = {each.path: each for each in recipe.files}
    links, folders = dict(recipe.links), [path for path, _ in recipe.folders if path != "."]
    names: dict[str, dict[str, None]] = {path: {} for path in ("", *folders)}
    for path in (*folders, *files, *links):
        above = path.split("/")
        for depth, name in enumerate(above):
            names.setdefault("/".join(above[:depth]), {})[name] = None
    return _Version(
        manifest=manifest,
        key_id=key_id_of(entry.recipe),
        files=files,
        links=links,
        names={path: tuple(each) for path, each in names.items()},
    )


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


def _number(text: str, path: str) -> int:
    if not (text.isascii() and text.isdecimal() and str(int(text)) == text):
        raise _missing(path)
    return int(text)


def _folder(modified_ns: int) -> Node:
    return Node(kind=NodeKind.FOLDER, mode=_FOLDER_MODE, modified_ns=modified_ns)


def _file(file: RecipeFile, admitted_ns: int) -> Node:
    """As it was when it was saved; nobody may write."""
    return Node(
        kind=NodeKind.FILE,
        mode=_FILE_MODE | (file.mode & stat.S_IXUSR if file.mode >= 0 else 0),
        modified_ns=file.changed[0] if file.changed else admitted_ns,
        size_bytes=file.size_bytes,
    )


def _link(target: str, modified_ns: int) -> Node:
    return Node(
        kind=NodeKind.LINK,
        mode=0o777,
        modified_ns=modified_ns,
        size_bytes=len(target.encode("utf-8", "surrogateescape")),
        target=target,
    )


def _missing(path: str) -> MissingError:
    return MissingError("tree.path", f"there is nothing under {path[:200]!r}")
