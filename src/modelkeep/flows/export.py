"""One version of an artifact as one file for somebody else, and such a file on its way in.

out: manifest verified -> chunks proven, encoded alone -> sealed to recipients, signed -> ledger
in:  header and signer -> manifest verified -> chunks -> each file hashed -> signature of the file

What is handed over is under a key that was made for this file; no key of the keep leaves it. Both
ways a few chunks are in memory at a time; what comes in goes where the caller says.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from modelkeep.core.artifact import FileEntry, Manifest, ModelReference
from modelkeep.core.errors import IntegrityError, RefusedError
from modelkeep.core.names import key_id_of
from modelkeep.core.record import Record, from_json, from_msgpack
from modelkeep.crypto.locks import Key, Lock
from modelkeep.crypto.sealed_file import opened_file, sealed_file
from modelkeep.crypto.stream import Read
from modelkeep.flows.keep import OpenKeep, current_snapshot, record, record_damages
from modelkeep.flows.registry import naming_tensors, resolved
from modelkeep.kernels.digest import Digester
from modelkeep.kernels.encoding import CHUNK_BYTES_MAX, Encoding, decode_into, encoded
from modelkeep.ports.workers import Workers
from modelkeep.seal.envelope import Envelope
from modelkeep.seal.portable import (
    demand_end,
    frame_head,
    head_bytes,
    read_frame,
    read_head,
)
from modelkeep.seal.trust import VerifiedManifest, demand_file, verified
from modelkeep.vault.commit import Job, jobs_of
from modelkeep.vault.inbox import path_problem
from modelkeep.vault.load import Reader, places_in
from modelkeep.vault.pieces import pieces_of
from modelkeep.vault.snapshot import RecipeFile, entry_of

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


@dataclass(frozen=True, slots=True)
class Received:
    """A model that came in a file, all of it proven.

    Attributes:
        files: path and bytes, in the order of the manifest.
    """

    proof: VerifiedManifest
    files: tuple[tuple[str, memoryview], ...]


def exported(
    keep: OpenKeep,
    reference: ModelReference,
    write: Callable[[bytes], object],
    *,
    locks: Sequence[Lock],
    progress: Progress = lambda _: None,
) -> Exported:
    """Write one version as a sealed file that its recipients can open; it is in the ledger then.

    Args:
        write: takes the file's bytes, in parts; after an error they are not the whole file.

    Raises:
        UsageError: `sealed.recipients`.
        MissingError: `model.unknown`.
        IntegrityError: `model.damaged`.
    """
    reader = keep.reader()
    snapshot = current_snapshot(keep, reader)
    version = resolved(reference, snapshot, keep.state)
    entry = entry_of(snapshot, reference.name, version)
    size_bytes = 0
    try:
        body = reader.body("envelope", entry.envelope)
        envelope = from_msgpack(Envelope, body, what=entry.envelope)
        proof = verified(envelope, name=entry.name, version=entry.version, trusted=(keep.public,))
        going = _Outgoing(keep.workers, reader, proof, key_id_of(entry.recipe), progress)
        parts = sealed_file(
            reading(going.plain(envelope, reader.recipe(entry.recipe).files)),
            locks=locks,
            signer=keep.keys.signer,
            random_bytes=keep.entropy.random_bytes,
        )
        with naming_tensors(proof.manifest):
            for part in parts:
                write(part)
                size_bytes += len(part)
    finally:
        record_damages(keep, reader.damages)
    record(
        keep,
        "model.exported",
        {
            "model": entry.name,
            "version": entry.version,
            "manifest": proof.digest,
            "recipients": len(locks),
            "size_bytes": size_bytes,
        },
    )
    return Exported(
        name=entry.name,
        version=entry.version,
        manifest=proof.digest,
        signer=keep.public,
        recipients=len(locks),
        raw_bytes=sum(each.size_bytes for each in proof.manifest.files),
        size_bytes=size_bytes,
    )


def received(
    read: Read,
    *,
    keys: Iterable[Key],
    trusted: Collection[bytes],
    allocate: Callable[[int], memoryview],
) -> Received:
    """Read a file that `exported` made; nothing of it is given out before all of it is proven.

    1. The header: one of the keys opens it, and its signer is trusted. 2. The manifest's own signer
    is trusted, and its signature verifies: before that nothing is allocated. 3. Every file has the
    digest that the manifest says. 4. Nothing follows, and the file's signature verifies.

    Args:
        trusted: public keys, one of whom signed the manifest, and one the file.
        allocate: gives a writable view of exactly that many bytes.

    Raises:
        RefusedError: `sealed.key`, `sealed.signer`, `seal.signer`, `portable.paths`.
        IntegrityError: `sealed.*`, `portable.*`, `signature.bad`, `seal.digest`, `codec.*`.
    """
    opened = opened_file(read, keys=keys, signers=trusted)  # 1
    stream = reading(opened.chunks)
    envelope = read_head(stream)
    said = from_json(Manifest, envelope.manifest, what="the manifest of an exported model")
    proof = verified(envelope, name=said.name, version=said.version, trusted=trusted)  # 2
    problem = path_problem([each.path for each in proof.manifest.files])
    if problem:
        raise RefusedError("portable.paths", f"{said.name}:{said.version}: {problem}")
    files = []
    for entry in proof.manifest.files:
        target = allocate(entry.size_bytes)
        at = 0
        while at < entry.size_bytes:
            frame = read_frame(stream, length_max=entry.size_bytes - at)
            frame.decode_into(target[at : at + frame.length])
            at += frame.length
        demand_file(proof, entry.path, target)  # 3
        files.append((entry.path, target))
    demand_end(stream)  # 4: the sealed file's own signature comes with its end
    return Received(proof=proof, files=tuple(files))


def reading(blocks: Iterator[bytes | memoryview]) -> Read:
    """Read what comes in blocks as if it were a file; a read ends where a block does."""
    rest = memoryview(b"")

    def read(size_bytes: int) -> bytes:
        nonlocal rest
        while not rest:
            block = next(blocks, None)
            if block is None:
                return b""
            rest = memoryview(block)
        got, rest = bytes(rest[:size_bytes]), rest[size_bytes:]
        return got

    return read


@dataclass(frozen=True, slots=True)
class _Outgoing:
    """A version on its way out.

    Attributes:
        key_id: of the domain key that its chunks are under.
    """

    workers: Workers
    reader: Reader
    proof: VerifiedManifest
    key_id: str
    progress: Progress

    def plain(
        self, envelope: Envelope, files: Sequence[RecipeFile]
    ) -> Iterator[bytes | memoryview]:
        """The bytes that are sealed: envelope, then every file's chunks in the manifest's order.

        Raises:
            IntegrityError: `portable.recipe`, `seal.digest`, `vault.chunk`.
        """
        yield head_bytes(envelope)
        recipes = {each.path: each for each in files}
        for entry in self.proof.manifest.files:
            file = recipes.get(entry.path)
            if file is None or file.size_bytes != entry.size_bytes:
                raise IntegrityError(
                    "portable.recipe", f"the recipe of {entry.path} is not that of its manifest"
                )
            yield from self._frames(file, entry)

    def _frames(self, file: RecipeFile, entry: FileEntry) -> Iterator[bytes | memoryview]:
        """The chunks of one file, encoded alone; its digest is compared when they have ended."""
        pieces = pieces_of(file, self.key_id)
        whole = Digester()
        free: list[bytearray] = []

        def made(numbered: tuple[int, Job]) -> tuple[bytearray, Job, Encoding, bytes | memoryview]:
            number, job = numbered
            buffer = free.pop() if free else bytearray()
            if len(buffer) < job.length:
                buffer = bytearray(job.length)
            plain = memoryview(buffer)[: job.length]
            pieces.read_into(plain, number, self.reader)
            return (buffer, job, *_encoded(plain, job.dtype))

        jobs = enumerate(jobs_of(places_in(file), entry.tensors, {}))
        for buffer, job, encoding, payload in self.workers.map(made, jobs):
            whole.update(memoryview(buffer)[: job.length])
            if job.length:
                yield frame_head(encoding, length=job.length, stored=len(payload))
                yield payload
            self.progress(job.length)
            free.append(buffer)
        if whole.digest() != entry.digest:
            name = f"{self.proof.manifest.name}:{self.proof.manifest.version}"
            raise IntegrityError(
                "seal.digest", f"{name}: {file.path} is not the file that was signed"
            )


def _encoded(plain: memoryview, dtype: str) -> tuple[Encoding, bytes | memoryview]:
    """The smallest encoding that needs no other chunk, decoded again before it counts."""
    if len(plain) > CHUNK_BYTES_MAX:
        return Encoding.RAW, plain
    encoding, payload = encoded(plain, dtype=dtype)
    if encoding is not Encoding.RAW:
        again = memoryview(bytearray(len(plain)))
        decode_into(encoding, memoryview(payload), again)
        if again != plain:
            raise AssertionError(f"the encoding {encoding.name} does not give a chunk back")
    return encoding, payload
