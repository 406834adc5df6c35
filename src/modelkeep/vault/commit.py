"""The write side: bytes of files become chunks, packs and indexes, in that order.

Write order of a commit, each step durable before the next:
    packs -> indexes -> recipe -> envelope -> snapshot -> ledger entry -> head
A crash before the ledger entry leaves objects that nothing refers to; a crash after it leaves a
commit that the next opening of the keep finishes, because every object it needs is there.

Chunks are copied out of the source, identified and encoded by the workers; they are put into packs,
and digested for the manifest, in their order by the caller's thread, from the same copy: what is
signed is what was stored, even of a file that changes meanwhile. In hand at any time: a few chunks
and at most `_PUTS_MAX + 1` packs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from types import MappingProxyType

from modelkeep.core.artifact import FileEntry, TensorEntry
from modelkeep.core.record import to_msgpack
from modelkeep.crypto.hierarchy import DomainKeys
from modelkeep.crypto.kdf import SALT_BYTES
from modelkeep.crypto.signatures import Signer
from modelkeep.kernels.digest import Digester, keyed_id
from modelkeep.ports.entropy import Entropy
from modelkeep.ports.store import Store
from modelkeep.ports.workers import SERIAL, Workers
from modelkeep.vault.bases import Fetch, Known, Tensors, chosen
from modelkeep.vault.encode import Policy, encoded_chunk
from modelkeep.vault.index import ChunkIndex, Pack, parted
from modelkeep.vault.objects import sealed_object
from modelkeep.vault.pack import Encoded, PackEntry, PackWriter
from modelkeep.vault.settings import VaultSettings
from modelkeep.vault.snapshot import RecipeFile

# Pieces below this are joined to the one before: a table entry costs about 60 bytes a segment.
PIECE_BYTES_MIN = 4096
# Packs that are being written while the next one fills.
_PUTS_MAX = 2
# Packs that one index names: what a commit that is cut short has indexed is not written again.
_INDEX_PACKS = 128


@dataclass(frozen=True, slots=True)
class Stream:
    """One file to be stored that is cut already, and read piece by piece.

    Attributes:
        places: start and length of its chunks, in order; may be found as they are asked for.
        read: copies the chunk that begins at an offset.
    """

    path: str
    size_bytes: int
    places: Iterable[tuple[int, int]]
    read: Callable[[int, memoryview], None]
    tensors: Tensors = ()


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that is stored: what the manifest says of it, and its recipe."""

    entry: FileEntry
    recipe: RecipeFile


@dataclass(frozen=True, slots=True)
class Stored:
    """What `stored` wrote: the files, and names of the indexes (none if nothing was new)."""

    files: tuple[StoredFile, ...]
    indexes: tuple[str, ...]
    packs: tuple[PackEntry, ...]


@dataclass(frozen=True, slots=True)
class Writer:
    """Where and how a commit writes."""

    store: Store
    domain: DomainKeys
    signer: Signer
    entropy: Entropy
    settings: VaultSettings
    workers: Workers = SERIAL
    policy: Policy = Policy.FAST


@dataclass(slots=True)
class Deposit:
    """Chunks on their way into the packs and indexes of one store.

    Attributes:
        known: what the store holds; grows with every pack that is durable.
    """

    writer: Writer
    known: ChunkIndex
    packs: list[PackEntry] = field(default_factory=list)
    indexes: list[str] = field(default_factory=list)
    _open: PackWriter = field(init=False)
    _waiting: deque[tuple[Callable[[], None], PackEntry]] = field(default_factory=deque)
    _under_way: set[bytes] = field(default_factory=set)
    _whole: dict[str, bool] = field(default_factory=dict)
    _unindexed: list[PackEntry] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._open = _new_pack(self.writer)

    def holds(self, chunk_id: bytes) -> bool:
        """Whether the store has a chunk, or is about to; a delta only counts with its base."""
        if chunk_id in self._under_way or self._open.holds(chunk_id):
            return True
        return any(
            self._is_whole(pack) and (not each.base or self._has_base(each.base))
            for pack, each in self.known.find_all(chunk_id)
        )

    def distrust(self, packs: Iterable[str]) -> None:
        """Count what lies in some packs, which are damaged, as not there."""
        self._whole.update(dict.fromkeys(packs, False))

    def add(self, chunk: Encoded) -> None:
        """Put a chunk into the open pack, unless the store holds it.

        Raises:
            UnavailableError: from the store; nothing refers to what was written.
        """
        if self.holds(chunk.chunk_id):
            return
        self._open.add(chunk)
        if self._open.size_bytes >= self.writer.settings.pack_bytes:
            self._close_pack()

    def flush(self) -> None:
        """Make every chunk so far durable, and known."""
        if not self._open.is_empty:
            self._close_pack()
        while self._waiting:
            self._await_one()

    def finished(self) -> tuple[str, ...]:
        """Flush, then write the indexes; their names."""
        self.flush()
        self._put_indexes()
        return tuple(self.indexes)

    def _has_base(self, chunk_id: bytes) -> bool:
        places = self.known.find_all(chunk_id)
        return any(not each.base and self._is_whole(pack) for pack, each in places)

    def _is_whole(self, pack: Pack) -> bool:
        """Whether a pack is really there, in the size that the index says."""
        if pack.name not in self._whole:
            stat = self.writer.store.stat(pack.name)
            self._whole[pack.name] = stat is not None and stat.size_bytes == pack.size_bytes
        return self._whole[pack.name]

    def _close_pack(self) -> None:
        entry, raw = self._open.finished()
        self._under_way.update(each.chunk_id for each in entry.segments)
        put = partial(self.writer.store.put, entry.name, memoryview(raw))
        while len(self._waiting) >= _PUTS_MAX:
            self._await_one()
        self._waiting.append((self.writer.workers.submit(put), entry))
        self._open = _new_pack(self.writer)

    def _await_one(self) -> None:
        wait, entry = self._waiting.popleft()
        wait()
        self._whole[entry.name] = True
        self.known.add(entry)
        self._under_way.difference_update(each.chunk_id for each in entry.segments)
        self.packs.append(entry)
        self._unindexed.append(entry)
        if len(self._unindexed) >= _INDEX_PACKS:
            self._put_indexes()

    def _put_indexes(self) -> None:
        for index in parted(self._unindexed):
            self.indexes.append(put_sealed(self.writer, "index", to_msgpack(index)))
        self._unindexed = []


def stored(
    sources: Iterable[Stream],
    *,
    writer: Writer,
    known: ChunkIndex,
    candidates: Callable[[Tensors], Sequence[Known]] = lambda _: (),
    fetch: Fetch = lambda _: None,
    progress: Callable[[int], None] = lambda _: None,
) -> Stored:
    """Files -> chunks -> packs -> indexes. Chunks that are known already are not written again.

    Args:
        known: what the store holds; it is added to.
        candidates: files that one with such tensors may be stored as a delta to, the most likely
            first. Those of the same commit are considered too.
        fetch: the plaintext of a chunk that is stored, or None when it cannot be read.
        progress: called with the number of plaintext bytes done since the last call.

    Raises:
        UnavailableError: from the store; nothing refers to what was written, so retry is safe.
    """
    deposit = Deposit(writer, known)
    files: list[StoredFile] = []
    earlier: list[Known] = []
    for source in sources:
        places, read = source.places, source.read
        bases: dict[int, bytes] = {}
        if writer.policy is Policy.SMALL and source.tensors:
            options = [*reversed(earlier), *candidates(source.tensors)]
            if earlier:
                deposit.flush()
            solid = [rooted(each, known) for each in options]
            places = tuple(places)
            bases = chosen(read, places, source.tensors, solid, fetch=fetch)
        chunks = encoded_chunks(
            jobs_of(places, source.tensors, bases), read, deposit=deposit, fetch=fetch
        )
        done = _stored_file(source, chunks, progress)
        files.append(done)
        if source.tensors:
            earlier.append(Known(tensors=source.tensors, chunks=done.recipe.chunks))
    indexes = deposit.finished()
    return Stored(files=tuple(files), indexes=indexes, packs=tuple(deposit.packs))


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


def cuts(size_bytes: int, tensors: Tensors, segment_bytes: int) -> list[tuple[int, int]]:
    """Where a file is cut into chunks, as (start, length): at tensor boundaries, then by size.

    A tensor that is no small piece starts a chunk wherever it lies: only so has the chunk one type
    and its counterpart in another version. What is between two such tensors (a header, small
    tensors) is joined.
    """
    borders = {0, size_bytes}
    for tensor in tensors:
        borders.update((tensor.offset, tensor.offset + tensor.length))
    large = {each.offset for each in tensors if each.length >= PIECE_BYTES_MIN}
    kept = [0]
    for border in sorted(borders)[1:]:
        is_near = border - kept[-1] < PIECE_BYTES_MIN
        if is_near and border in large and kept[-1] and kept[-1] not in large:
            kept[-1] = border  # the gap before a tensor belongs to what comes before it
        elif not is_near or border in large or border == size_bytes:
            kept.append(border)
    return [
        (start, min(segment_bytes, end - start))
        for left, end in pairwise(kept)
        for start in range(left, end, segment_bytes)
    ]


@dataclass(frozen=True, slots=True)
class Job:
    """A chunk to be identified and encoded.

    Attributes:
        base: id of the chunk that it may become a delta to; empty for none.
        chunk_id: where it is known already: a chunk that the store holds is then not even read.
    """

    start: int
    length: int
    dtype: str = ""
    base: bytes = b""
    chunk_id: bytes = b""


def jobs_of(
    places: Iterable[tuple[int, int]],
    tensors: Tensors,
    bases: Mapping[int, bytes],
    chunk_ids: Mapping[int, bytes] = MappingProxyType({}),
) -> Iterator[Job]:
    """What is to be done for a file, chunk by chunk.

    Args:
        places: start and length of the chunks, in order.
        bases: start of a chunk -> id of its base.
        chunk_ids: start of a chunk -> its id, where that is known.
    """
    filled = sorted((each for each in tensors if each.length), key=lambda each: each.offset)
    at = 0
    for start, length in places:
        while at < len(filled) and filled[at].offset + filled[at].length <= start:
            at += 1
        is_inside = at < len(filled) and filled[at].offset <= start
        yield Job(
            start=start,
            length=length,
            dtype=filled[at].dtype if is_inside else "",
            base=bases.get(start, b""),
            chunk_id=chunk_ids.get(start, b""),
        )


def encoded_chunks(
    jobs: Iterable[Job],
    read_into: Callable[[int, memoryview], None],
    *,
    deposit: Deposit,
    fetch: Fetch,
) -> Iterator[tuple[Job, memoryview, Encoded]]:
    """Read, identify and encode chunks in the workers, and add them to the deposit in order.

    Yields:
        (job, plaintext, chunk); the plaintext is valid until the next one is asked for, and empty
        for a chunk whose id was known and that the store holds.
    """
    writer = deposit.writer
    key = writer.domain.chunk_ids.reveal()
    free: list[bytearray] = []
    scratches: list[bytearray] = []

    def made(job: Job) -> tuple[Job, bytearray, int, Encoded]:
        buffer = free.pop() if free else bytearray()
        if job.chunk_id and _is_held(deposit, job.chunk_id):
            return job, buffer, 0, Encoded(job.chunk_id, job.length)
        if len(buffer) < job.length:
            buffer = bytearray(job.length)
        plain = memoryview(buffer)[: job.length]
        read_into(job.start, plain)
        chunk_id = keyed_id(key, plain)
        if _is_held(deposit, chunk_id):
            return job, buffer, job.length, Encoded(chunk_id, job.length)
        found = fetch(job.base) if _is_base(deposit, job.base) else None
        base = (job.base, found) if found is not None and len(found) == job.length else None
        scratch = scratches.pop() if scratches else bytearray()
        if writer.policy is Policy.SMALL and len(scratch) < job.length:
            scratch = bytearray(job.length)
        chunk = encoded_chunk(
            plain,
            chunk_id=chunk_id,
            key=key,
            policy=writer.policy,
            dtype=job.dtype,
            base=base,
            scratch=memoryview(scratch),
        )
        scratches.append(scratch)
        return job, buffer, job.length, chunk

    for job, buffer, length, chunk in writer.workers.map(made, jobs):
        if chunk.payload is not None:
            deposit.add(chunk)
        yield job, memoryview(buffer)[:length], chunk
        free.append(buffer)


def _is_base(deposit: Deposit, chunk_id: bytes) -> bool:
    """Whether the store holds a chunk that is no delta itself: deltas have depth 1."""
    place = deposit.known.find(chunk_id) if chunk_id else None
    return place is not None and not place[1].base and deposit.holds(chunk_id)


def _is_held(deposit: Deposit, chunk_id: bytes) -> bool:
    """Whether a chunk is durable in the store: what is under way is the main thread's to know."""
    return chunk_id in deposit.known and deposit.holds(chunk_id)


def _stored_file(
    source: Stream,
    found: Iterable[tuple[Job, memoryview, Encoded]],
    progress: Callable[[int], None],
) -> StoredFile:
    whole, pieces = Digester(), _TensorDigests(source.tensors)
    chunks: list[tuple[bytes, int]] = []
    size_bytes = 0
    for job, plain, chunk in found:
        whole.update(plain)
        pieces.update(job.start, plain)
        chunks.append((chunk.chunk_id, job.length))
        size_bytes += job.length
        progress(job.length)
    return StoredFile(
        entry=FileEntry(
            path=source.path,
            size_bytes=size_bytes,
            digest=whole.digest(),
            tensors=pieces.entries(),
        ),
        recipe=RecipeFile(path=source.path, size_bytes=size_bytes, chunks=tuple(chunks)),
    )


def rooted(known: Known, index: ChunkIndex) -> Known:
    """The same file with each delta's own base in its place: deltas have depth 1."""
    chunks = []
    for chunk_id, length in known.chunks:
        place = index.find(chunk_id)
        is_delta = place is not None and place[1].base
        chunks.append((place[1].base if place and is_delta else chunk_id, length))
    return Known(tensors=known.tensors, chunks=chunks)


class _TensorDigests:
    """Digests of tensors from the bytes of their file, as these come along in order."""

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors
        self._order = sorted(range(len(tensors)), key=lambda at: tensors[at].offset)
        self._next = 0
        self._active: dict[int, Digester] = {}
        self._digests = [Digester().digest()] * len(tensors)  # of what is empty

    def update(self, start: int, plain: memoryview) -> None:
        end = start + len(plain)
        order, tensors = self._order, self._tensors
        while self._next < len(order) and tensors[order[self._next]].offset < end:
            self._active[order[self._next]] = Digester()
            self._next += 1
        for at, digester in list(self._active.items()):
            tensor_end = tensors[at].offset + tensors[at].length
            left, right = max(tensors[at].offset, start), min(tensor_end, end)
            if left < right:
                digester.update(plain[left - start : right - start])
            if tensor_end <= end:
                self._digests[at] = self._active.pop(at).digest()

    def entries(self) -> tuple[TensorEntry, ...]:
        return tuple(
            TensorEntry(
                name=each.name,
                dtype=each.dtype,
                shape=each.shape,
                offset=each.offset,
                length=each.length,
                digest=digest,
            )
            for each, digest in zip(self._tensors, self._digests, strict=True)
        )


def _new_pack(writer: Writer) -> PackWriter:
    return PackWriter(
        domain=writer.domain, signer=writer.signer, salt=writer.entropy.random_bytes(SALT_BYTES)
    )
