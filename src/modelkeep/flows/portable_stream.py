"""An exported model that comes as a stream, such as from a pipe, all of it proven.

front proven -> segments as they come, each proven -> each file hashed -> nothing follows

What format v0 wrote is read too; its signature comes last.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from modelkeep.core.artifact import Manifest
from modelkeep.core.errors import IntegrityError
from modelkeep.core.record import from_json
from modelkeep.crypto.locks import Key
from modelkeep.crypto.sealed_file import FIRST_LINE as SEALED_LINE
from modelkeep.crypto.sealed_file import opened_file
from modelkeep.crypto.stream import Read, exactly
from modelkeep.flows.portable_paths import demand_portable_paths
from modelkeep.ports.workers import SERIAL, Workers
from modelkeep.seal import portable_v0
from modelkeep.seal.portable import Portable, opened_portable
from modelkeep.seal.trust import VerifiedManifest, demand_file, verified

Allocate = Callable[[int], memoryview]


@dataclass(frozen=True, slots=True)
class Received:
    """A model that came in a file, all of it proven.

    Attributes:
        files: path and bytes, in the order of the manifest.
        modes: of a folder, permission bits by path; None for a single file.
    """

    proof: VerifiedManifest
    files: tuple[tuple[str, memoryview], ...]
    modes: Mapping[str, int] | None = None
    folders: tuple[tuple[str, int], ...] = ()
    links: tuple[tuple[str, str], ...] = ()


def received(
    read: Read,
    *,
    keys: Iterable[Key],
    trusted: Collection[bytes],
    allocate: Allocate,
    workers: Workers = SERIAL,
) -> Received:
    """Read a file that a keep exported; nothing of it is given out before all of it is proven.

    1. One of the keys opens it, and its sender, who signed the manifest too, is trusted: before
    that nothing is allocated. 2. Every segment is the one that the sender signed. 3. Every file has
    the digest that the manifest says. 4. Nothing follows.

    Args:
        trusted: public keys, one of whom signed.
        allocate: gives a writable view of exactly that many bytes.

    Raises:
        RefusedError: `sealed.key`, `sealed.signer`, `seal.signer`, `portable.paths`.
        IntegrityError: `sealed.*`, `portable.*`, `signature.bad`, `seal.digest`, `codec.*`.
    """
    first = exactly(read, len(SEALED_LINE))
    held = io.BytesIO(first)

    def whole(size_bytes: int) -> bytes:
        return held.read(size_bytes) or read(size_bytes)

    if first == SEALED_LINE:
        return _received_v0(whole, keys=keys, trusted=trusted, allocate=allocate)
    portable = opened_portable(whole, keys=keys, signers=trusted)  # 1
    table, manifest = portable.table, portable.proof.manifest
    modes = [each.mode for each in table.parts]
    demand_portable_paths(manifest, modes, table.folders, table.links)
    files = {each.path: allocate(each.size_bytes) for each in manifest.files}
    _fill(portable, whole, list(files.values()), workers)  # 2
    for path, raw in files.items():
        demand_file(portable.proof, path, raw)  # 3
    if exactly(whole, 1):  # 4
        raise IntegrityError("portable.end", "something follows the last file of an exported model")
    return Received(
        proof=portable.proof,
        files=tuple(files.items()),
        modes=dict(zip(files, modes, strict=True)) if table.folders else None,
        folders=table.folders,
        links=table.links,
    )


def _fill(portable: Portable, read: Read, targets: Sequence[memoryview], workers: Workers) -> None:
    """Read every segment and prove it in the workers.

    Raises:
        IntegrityError: `portable.cut`, `portable.segment` or `codec.*`.
    """

    def arriving() -> Iterator[tuple[int, bytes, memoryview]]:
        for file, target in enumerate(targets):
            for number in range(portable.firsts[file], portable.firsts[file + 1]):
                segment = portable.segment(number)
                sealed = exactly(read, segment.stored)
                if len(sealed) < segment.stored:
                    raise IntegrityError("portable.cut", "an exported model is cut short")
                yield number, sealed, target[segment.start : segment.start + segment.length]

    def proven(item: tuple[int, bytes, memoryview]) -> None:
        number, sealed, target = item
        portable.open_into(portable.segment(number), memoryview(sealed), target)

    for _ in workers.map(proven, arriving()):
        pass


def _received_v0(
    read: Read,
    *,
    keys: Iterable[Key],
    trusted: Collection[bytes],
    allocate: Allocate,
) -> Received:
    """As `received`, of format v0: the sender's signature is over the whole and comes last."""
    stream = reading(opened_file(read, keys=keys, signers=trusted).chunks)
    envelope = portable_v0.read_head(stream)
    said = from_json(Manifest, envelope.manifest, what="the manifest of an exported model")
    proof = verified(envelope, name=said.name, version=said.version, trusted=trusted)
    demand_portable_paths(proof.manifest, (), (), ())
    files = []
    for entry in proof.manifest.files:
        target = allocate(entry.size_bytes)
        at = 0
        while at < entry.size_bytes:
            frame = portable_v0.read_frame(stream, length_max=entry.size_bytes - at)
            frame.decode_into(target[at : at + frame.length])
            at += frame.length
        demand_file(proof, entry.path, target)
        files.append((entry.path, target))
    portable_v0.demand_end(stream)
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
