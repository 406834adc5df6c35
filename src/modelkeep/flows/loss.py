"""Loss: which versions, files and tensors chunks that no store has any more belong to."""

from __future__ import annotations

from collections.abc import Mapping

from modelkeep.core.artifact import FileEntry
from modelkeep.core.errors import KeepError
from modelkeep.core.names import key_id_of
from modelkeep.core.record import Record
from modelkeep.flows.keep import OpenKeep, current_head
from modelkeep.flows.registry import proof_of
from modelkeep.seal.trust import file_of, tensors_at
from modelkeep.vault.check import snapshots
from modelkeep.vault.load import Reader
from modelkeep.vault.snapshot import ArtifactEntry, RecipeFile, Snapshot

TENSORS_SHOWN_MAX = 20


class LostFile(Record, frozen=True):
    """A file of which bytes are gone.

    Attributes:
        size_bytes: how many.
        tensors: that are hit, in the order of the manifest; none where it is the structure.
    """

    path: str
    size_bytes: int
    tensors: tuple[str, ...]


class Loss(Record, frozen=True):
    """A version of which something is in no store any more.

    Attributes:
        version: as `name:version`.
    """

    version: str
    files: tuple[LostFile, ...]

    @property
    def text(self) -> str:
        """What is gone, for people."""
        parts = []
        for each in self.files:
            shown = ", ".join(each.tensors[:TENSORS_SHOWN_MAX])
            more = len(each.tensors) - TENSORS_SHOWN_MAX
            what = f"tensors {shown}" if each.tensors else "structure"
            tail = f" and {more} more" if more > 0 else ""
            parts.append(f"{each.path}: {what}{tail} ({each.size_bytes} bytes)")
        return "; ".join(parts)


def losses(
    keep: OpenKeep, lost: Mapping[str, set[bytes]]
) -> tuple[tuple[Loss, ...], tuple[str, ...]]:
    """Which versions of all kept snapshots are hit, and which are whole.

    Args:
        lost: chunks that are in no store, by the id of their key.
    """
    reader = keep.reader(may_heal=False)
    seen: set[str] = set()
    hit: list[Loss] = []
    whole: list[str] = []
    for _, snapshot in snapshots(reader, current_head(keep).snapshot):
        for entry in snapshot.artifacts:
            if entry.recipe in seen or not reader.holds(entry.recipe):
                continue
            seen.add(entry.recipe)
            found = _of(keep, reader, snapshot, entry, lost.get(key_id_of(entry.recipe), set()))
            version = f"{entry.name}:{entry.version}"
            if found:
                hit.append(Loss(version=version, files=found))
            else:
                whole.append(version)
    return tuple(hit), tuple(whole)


def _of(
    keep: OpenKeep,
    reader: Reader,
    snapshot: Snapshot,
    entry: ArtifactEntry,
    lost: set[bytes],
) -> tuple[LostFile, ...]:
    if not lost:
        return ()
    files = reader.recipe(entry.recipe).files
    hit = [(file, places) for file in files if (places := _places(file, lost))]
    if not hit:
        return ()
    try:
        proof = proof_of(keep, reader, snapshot, name=entry.name, version=entry.version)
        entries = {file.path: file_of(proof.manifest, file.path) for file, _ in hit}
    except KeepError:
        entries = {}
    return tuple(
        LostFile(
            path=file.path,
            size_bytes=sum(length for _, length in places),
            tensors=_tensors(entries.get(file.path), places),
        )
        for file, places in hit
    )


def _places(file: RecipeFile, lost: set[bytes]) -> list[tuple[int, int]]:
    at, found = 0, []
    for chunk_id, length in file.chunks:
        if chunk_id in lost:
            found.append((at, length))
        at += length
    return found


def _tensors(file: FileEntry | None, places: list[tuple[int, int]]) -> tuple[str, ...]:
    if file is None:
        return ()
    names = (each.name for offset, length in places for each in tensors_at(file, offset, length))
    return tuple(dict.fromkeys(names))
