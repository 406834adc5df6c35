"""Files that a new one may be stored as a delta to: what the keep holds that looks like it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from modelkeep.core.errors import KeepError
from modelkeep.core.names import key_id_of
from modelkeep.core.record import from_msgpack
from modelkeep.seal.envelope import Envelope
from modelkeep.seal.trust import verified
from modelkeep.vault.bases import Known, Tensors, layout_id
from modelkeep.vault.load import Reader
from modelkeep.vault.snapshot import ArtifactEntry, Snapshot

# Artifacts that are opened to look for a base: each costs two small objects.
ARTIFACTS_MAX = 8


@dataclass(slots=True)
class Candidates:
    """The files of a snapshot under one domain key, opened as they are asked for.

    Attributes:
        layout_key: keys the digests of layouts.
        first: (name, version) of artifacts that are looked at before others: a base that was
            given, versions of the same name.
    """

    reader: Reader
    snapshot: Snapshot
    key_id: str
    layout_key: bytes
    first: Sequence[tuple[str, int]] = ()
    _opened: dict[str, tuple[Known, ...]] = field(default_factory=dict)

    def of(self, tensors: Tensors) -> list[Known]:
        """Files that may be a base for one with these tensors, the most likely first."""
        wanted = layout_id(self.layout_key, tensors)
        entries = [
            each for each in self.snapshot.artifacts if key_id_of(each.recipe) == self.key_id
        ]
        order = {pair: at for at, pair in enumerate(self.first)}
        given = sorted(
            (each for each in entries if (each.name, each.version) in order),
            key=lambda each: order[each.name, each.version],
        )
        alike = [each for each in reversed(entries) if wanted in each.layouts]
        chosen = list({each.recipe: each for each in [*given, *alike]}.values())[:ARTIFACTS_MAX]
        found = [known for each in chosen for known in self._files(each)]
        exact = [each for each in found if layout_id(self.layout_key, each.tensors) == wanted]
        return [*exact, *(each for each in found if each not in exact)]

    def _files(self, entry: ArtifactEntry) -> tuple[Known, ...]:
        if entry.recipe not in self._opened:
            self._opened[entry.recipe] = tuple(self._read(entry))
        return self._opened[entry.recipe]

    def _read(self, entry: ArtifactEntry) -> Iterator[Known]:
        """A file that cannot be read is no base; whoever reads it for itself reports it."""
        try:
            body = self.reader.body("envelope", entry.envelope)
            envelope = from_msgpack(Envelope, body, what=entry.envelope)
            proof = verified(
                envelope, name=entry.name, version=entry.version, trusted=(self.reader.public,)
            )
            chunks = {each.path: each.chunks for each in self.reader.recipe(entry.recipe).files}
        except KeepError:
            return
        for file in proof.manifest.files:
            if file.tensors and file.path in chunks:
                yield Known(tensors=file.tensors, chunks=chunks[file.path])
