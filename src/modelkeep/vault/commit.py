"""The write side: bytes of files become chunks, packs and one index, in that order.

Write order of a commit, each step durable before the next:
    packs -> index -> recipe -> envelope -> snapshot -> ledger entry -> head
A crash before the ledger entry leaves objects that nothing refers to; a crash after it leaves a
commit that the next opening of the keep finishes, because every object it needs is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from modelkeep.core.artifact import TensorEntry
from modelkeep.core.record import to_msgpack
from modelkeep.crypto.hierarchy import DomainKeys
from modelkeep.crypto.kdf import SALT_BYTES
from modelkeep.crypto.signatures import Signer
from modelkeep.kernels.digest import keyed_id
from modelkeep.ports.entropy import Entropy
from modelkeep.ports.store import Store
from modelkeep.vault.index import ChunkIndex, Index
from modelkeep.vault.objects import sealed_object
from modelkeep.vault.pack import PackEntry, PackWriter
from modelkeep.vault.settings import VaultSettings
from modelkeep.vault.snapshot import Recipe, RecipeFile

# Pieces below this are joined to the one before: a table entry costs about 60 bytes a segment.
PIECE_BYTES_MIN = 4096


@dataclass(frozen=True, slots=True)
class Source:
    """One file to be stored: its bytes (a memory map will do) and where its tensors lie."""

    path: str
    raw: memoryview
    tensors: tuple[TensorEntry, ...]


@dataclass(frozen=True, slots=True)
class Stored:
    """What `stored` wrote: the recipe, and the name of the index (empty if nothing was new)."""

    recipe: Recipe
    index: str
    packs: tuple[PackEntry, ...]


@dataclass(frozen=True, slots=True)
class Writer:
    """Where and how a commit writes."""

    store: Store
    domain: DomainKeys
    signer: Signer
    entropy: Entropy
    settings: VaultSettings


def stored(
    sources: Sequence[Source],
    *,
    writer: Writer,
    known: ChunkIndex,
    progress: Callable[[int], None] = lambda _: None,
) -> Stored:
    """Files -> chunks -> packs -> index. Chunks that are known already are not written again.

    Args:
        progress: called with the number of plaintext bytes done since the last call.

    Raises:
        UnavailableError: from the store; nothing refers to what was written, so retry is safe.
    """
    fresh = ChunkIndex()
    packs: list[PackEntry] = []
    pack = _new_pack(writer)
    files: list[RecipeFile] = []
    for source in sources:
        chunks: list[tuple[bytes, int]] = []
        for start, length in cuts(len(source.raw), source.tensors, writer.settings.segment_bytes):
            plaintext = source.raw[start : start + length]
            chunk_id = keyed_id(writer.domain.chunk_ids.reveal(), plaintext)
            chunks.append((chunk_id, length))
            if not (known.find(chunk_id) or fresh.find(chunk_id) or pack.holds(chunk_id)):
                pack.add(chunk_id, plaintext)
                if pack.size_bytes >= writer.settings.pack_bytes:
                    packs.append(_put_pack(writer, pack))
                    fresh.add(packs[-1])
                    pack = _new_pack(writer)
            progress(length)
        files.append(RecipeFile(path=source.path, size_bytes=len(source.raw), chunks=tuple(chunks)))
    if not pack.is_empty:
        packs.append(_put_pack(writer, pack))
    index = put_sealed(writer, "index", to_msgpack(Index(packs=tuple(packs)))) if packs else ""
    return Stored(recipe=Recipe(files=tuple(files)), index=index, packs=tuple(packs))


def put_sealed(writer: Writer, kind: str, body: bytes) -> str:
    """Encrypt, sign and store a small object; return its name."""
    name, raw = sealed_object(
        kind,
        body,
        domain=writer.domain,
        signer=writer.signer,
        salt=writer.entropy.random_bytes(SALT_BYTES),
    )
    writer.store.put(name, raw)
    return name


def cuts(
    size_bytes: int, tensors: Sequence[TensorEntry], segment_bytes: int
) -> list[tuple[int, int]]:
    """Where a file is cut into chunks, as (start, length): at tensor boundaries, then by size."""
    borders = {0, size_bytes}
    for tensor in tensors:
        borders.update((tensor.offset, tensor.offset + tensor.length))
    kept = [0]
    for border in sorted(borders)[1:]:
        if border == size_bytes or border - kept[-1] >= PIECE_BYTES_MIN:
            kept.append(border)
    return [
        (start, min(segment_bytes, end - start))
        for left, end in pairwise(kept)
        for start in range(left, end, segment_bytes)
    ]


def _new_pack(writer: Writer) -> PackWriter:
    return PackWriter(
        domain=writer.domain, signer=writer.signer, salt=writer.entropy.random_bytes(SALT_BYTES)
    )


def _put_pack(writer: Writer, pack: PackWriter) -> PackEntry:
    entry, raw = pack.finished()
    writer.store.put(entry.name, raw)
    return entry
