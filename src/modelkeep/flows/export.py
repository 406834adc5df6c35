"""One version of an artifact as one file for somebody else (docs/design/portable-model.md).

policy asked -> chunks proven, encoded alone, sealed -> written behind the room for the table ->
each file hashed -> the table, sealed to the recipients and signed, at the beginning -> durable ->
ledger

What is handed over is under keys that were made for this file; no key of the keep leaves it. A few
chunks are in memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from modelkeep.core.artifact import FileEntry, ModelReference
from modelkeep.core.limits import SEGMENT_BYTES_MAX
from modelkeep.core.policy import Use
from modelkeep.core.record import Record, from_msgpack
from modelkeep.crypto.locks import Lock
from modelkeep.flows.keep import OpenKeep, current_snapshot, record, record_damages
from modelkeep.flows.permission import demand_use
from modelkeep.flows.portable_paths import demand_portable_paths
from modelkeep.flows.registry import HeldVersion, held_version, naming_tensors
from modelkeep.kernels.digest import Digester
from modelkeep.kernels.encoding import Encoding, decode_into, encoded
from modelkeep.ports.workers import Workers
from modelkeep.seal.envelope import Envelope
from modelkeep.seal.portable import Draft, Part, SealedSegment, Table
from modelkeep.seal.trust import demand_entry
from modelkeep.vault.commit import Job, jobs_of
from modelkeep.vault.load import Reader, places_in
from modelkeep.vault.pieces import pieces_of
from modelkeep.vault.snapshot import RecipeFile, entry_of

Write = Callable[[int, bytes], object]
Progress = Callable[[int], None]


class Exported(Record, frozen=True):
    """What was handed over.

    Attributes:
        manifest: digest of the signed manifest.
        signer: the 32-byte public key that signed it and the file.
        raw_bytes: of the model's files.
        size_bytes: of the file that was written.
    """

    name: str
    version: int
    manifest: str
    signer: bytes
    recipients: int
    raw_bytes: int
    size_bytes: int


def exported(
    keep: OpenKeep,
    reference: ModelReference,
    write: Write,
    settle: Callable[[], None],
    *,
    locks: Sequence[Lock],
    progress: Progress = lambda _: None,
) -> Exported:
    """Write one version as a file that its recipients can open; it is in the ledger then.

    Args:
        settle: makes what was written durable, before the ledger is told.
        write: puts bytes at an offset of the file; what stands at its beginning comes last. After
            an error they are no file.

    Raises:
        UsageError: `sealed.recipients`.
        MissingError: `model.unknown`.
        RefusedError: `policy.*`, `portable.paths`, `portable.large`.
        IntegrityError: `model.damaged`.
    """
    reader = keep.reader()
    try:
        snapshot = current_snapshot(keep, reader)
        found = held_version(keep, reader, snapshot, reference)
        manifest = found.proof.manifest
        demand_use(keep, manifest, Use.EXPORT)
        entry = entry_of(snapshot, manifest.name, manifest.version)
        body = reader.body("envelope", entry.envelope)
        table = _table(from_msgpack(Envelope, body, what=entry.envelope), found)
        modes = [each.mode for each in table.parts]
        demand_portable_paths(manifest, modes, table.folders, table.links)
        draft = Draft(
            table,
            count=sum(each.segments for each in table.parts),
            locks=locks,
            signer=keep.keys.signer,
            random_bytes=keep.entropy.random_bytes,
        )
        going = _Outgoing(keep.workers, reader, found, draft, write, progress)
        with naming_tensors(manifest):
            size_bytes = going.write_all()
        settle()
    finally:
        record_damages(keep, reader.damages)
    record(
        keep,
        "model.exported",
        {
            "model": manifest.name,
            "version": manifest.version,
            "manifest": found.proof.digest,
            "recipients": len(locks),
            "size_bytes": size_bytes,
        },
    )
    return Exported(
        name=manifest.name,
        version=manifest.version,
        manifest=found.proof.digest,
        signer=keep.public,
        recipients=len(locks),
        raw_bytes=sum(each.size_bytes for each in manifest.files),
        size_bytes=size_bytes,
    )


@dataclass(frozen=True, slots=True)
class _Outgoing:
    """A version on its way out."""

    workers: Workers
    reader: Reader
    found: HeldVersion
    draft: Draft
    write: Write
    progress: Progress

    def write_all(self) -> int:
        """Write every segment in the manifest's order, then what stands before them; the size.

        Raises:
            IntegrityError: `seal.digest`, `vault.chunk`.
        """
        rows: list[bytes] = []
        end = self.draft.start
        recipes = {each.path: each for each in self.found.recipe.files}
        for entry in self.found.proof.manifest.files:
            for sealed in self._segments(recipes[entry.path], entry, len(rows)):
                self.write(end, sealed.raw)
                rows.append(sealed.row)
                end += len(sealed.raw)
        self.write(0, self.draft.front(rows))
        return end

    def _segments(self, file: RecipeFile, entry: FileEntry, first: int) -> Iterator[SealedSegment]:
        """The segments of one file, numbered from `first`; its digest is compared at the end."""
        pieces = pieces_of(file, self.found.key_id)
        whole = Digester()
        free: list[bytearray] = []

        def made(item: tuple[int, int, Job]) -> tuple[bytearray, Job, list[SealedSegment]]:
            number, place, job = item
            buffer = free.pop() if free else bytearray()
            if len(buffer) < job.length:
                buffer = bytearray(job.length)
            plain = memoryview(buffer)[: job.length]
            pieces.read_into(plain, place, self.reader)
            cut = enumerate(range(0, job.length, SEGMENT_BYTES_MAX), number)
            return (
                buffer,
                job,
                [
                    self._sealed(at, plain[start : start + SEGMENT_BYTES_MAX], job.dtype)
                    for at, start in cut
                ],
            )

        def numbered() -> Iterator[tuple[int, int, Job]]:
            number = first
            for place, job in enumerate(jobs_of(places_in(file), entry.tensors, {})):
                yield number, place, job
                number += segments_in(job.length)

        for buffer, job, sealed in self.workers.map(made, numbered()):
            whole.update(memoryview(buffer)[: job.length])
            free.append(buffer)
            yield from sealed
            self.progress(job.length)
        demand_entry(
            self.found.proof,
            FileEntry(path=file.path, size_bytes=file.size_bytes, digest=whole.digest()),
        )

    def _sealed(self, number: int, plain: memoryview, dtype: str) -> SealedSegment:
        encoding, payload = _encoded(plain, dtype)
        return self.draft.sealed(number, encoding, payload, length=len(plain))


def _table(envelope: Envelope, found: HeldVersion) -> Table:
    """What the sender says, but for the segments."""
    recipes = {each.path: each for each in found.recipe.files}
    return Table(
        envelope=envelope,
        parts=tuple(
            Part(
                segments=sum(segments_in(length) for _, length in recipes[each.path].chunks),
                mode=recipes[each.path].mode,
            )
            for each in found.proof.manifest.files
        ),
        folders=found.recipe.folders,
        links=found.recipe.links,
    )


def segments_in(length: int) -> int:
    """How many segments a chunk becomes."""
    return -(-length // SEGMENT_BYTES_MAX)


def _encoded(plain: memoryview, dtype: str) -> tuple[Encoding, bytes | memoryview]:
    """The smallest encoding that needs no other chunk, decoded again before it counts."""
    encoding, payload = encoded(plain, dtype=dtype)
    if encoding is not Encoding.RAW:
        again = memoryview(bytearray(len(plain)))
        decode_into(encoding, memoryview(payload), again)
        if again != plain:
            raise AssertionError(f"the encoding {encoding.name} does not give a chunk back")
    return encoding, payload
