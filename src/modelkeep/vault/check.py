"""Is what a store holds what it must hold: one object at a time, and everything a head needs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from modelkeep.core.errors import IntegrityError, MissingError
from modelkeep.core.names import key_id_of
from modelkeep.crypto.aead import TAG_BYTES, Cipher
from modelkeep.crypto.hierarchy import DomainKeys
from modelkeep.kernels.digest import keyed_id
from modelkeep.kernels.encoding import Encoding, decode_into
from modelkeep.kernels.pack_rows import IdSet
from modelkeep.ports.store import Store
from modelkeep.vault.index import ChunkIndex
from modelkeep.vault.load import Reader
from modelkeep.vault.objects import demand_digest, opened_object
from modelkeep.vault.pack import PackEntry, Segment, bound_to, pack_cipher, read_pack
from modelkeep.vault.replicate import kind_of
from modelkeep.vault.snapshot import Recipe, Snapshot

# Plaintexts of bases that are kept while packs are read: what some 25 MB of deltas refer to.
BASES_BYTES_MAX = 128 * 1024 * 1024
# A segment decodes to no more than this many bytes beyond what its pack has.
_PLAIN_BYTES_OVER = 64 * 1024 * 1024


class Bases:
    """Plaintexts that deltas are taken to, the last ones that were proven; safe in threads.

    Packs that are read in the order of `in_order` find almost every base here.
    """

    def __init__(self, wanted: IdSet | None = None, size_bytes_max: int = BASES_BYTES_MAX) -> None:
        self._wanted = wanted or IdSet()
        self._wanted.keys()  # from here on it is only asked
        self._size_bytes_max = size_bytes_max
        self._held: dict[bytes, memoryview] = {}
        self._order: deque[bytes] = deque()

    def get(self, chunk_id: bytes) -> memoryview | None:
        """The plaintext of a chunk, if it is still here."""
        return self._held.get(chunk_id)

    def offer(self, chunk_id: bytes, plain: memoryview) -> None:
        """Keep a copy of what was proven, if deltas are taken to it."""
        if chunk_id in self._wanted:
            self.keep(chunk_id, memoryview(bytes(plain)))

    def keep(self, chunk_id: bytes, plain: memoryview) -> None:
        """Keep a base; the oldest ones go."""
        self._held[chunk_id] = plain
        self._order.append(chunk_id)
        while sum(map(len, list(self._held.values()))) > self._size_bytes_max and self._order:
            self._held.pop(self._order.popleft(), None)


def demand_content(
    name: str, raw: bytes | memoryview, *, reader: Reader, bases: Bases | None = None
) -> PackEntry | None:
    """Check an object that is named by its own digest: bytes, signature and tag.

    Of a pack, every segment is also decoded and its plaintext compared with its id.

    Args:
        reader: where the bases of deltas are read from.
        bases: those that were read before.

    Returns:
        What a pack holds; None for other objects.

    Raises:
        IntegrityError: the first thing that is wrong.
        MissingError: `keys.destroyed`, when nobody can read it any more.
    """
    demand_digest(name, raw)
    kind, domain = kind_of(name), reader.domains.of(name)
    if kind != "pack":
        opened_object(name, bytes(raw), kind=kind, domain=domain, public=reader.public)
        return None
    pack = read_pack(name, raw, domain=domain, public=reader.public)
    _Segments(pack, memoryview(raw), domain, reader, bases or Bases()).demand()
    return pack


def in_order(index: ChunkIndex) -> tuple[list[str], IdSet]:
    """The packs of an index in an order in which bases come just before what needs them.

    Returns:
        Names of packs, and the ids of all bases.
    """
    numbers = {pack.name: number for number, pack in enumerate(index.packs())}
    last = dict.fromkeys(numbers, -1)
    bases = IdSet()
    for pack, segment in index.segments():
        if not segment.base:
            continue
        bases.update((segment.base,))
        for holder, place in index.find_all(segment.base):
            if not place.base:
                last[pack.name] = max(last[pack.name], numbers[holder.name])
                break
    order = sorted(
        numbers,
        key=lambda name: (last[name], 1) if last[name] >= 0 else (numbers[name], 0),
    )
    return order, bases


def snapshots(
    reader: Reader, name: str, *, is_lenient: bool = False
) -> Iterator[tuple[str, Snapshot]]:
    """A snapshot and those before it, as far as they are kept, newest first.

    Args:
        is_lenient: whether it may end where one is missing: what an older snapshot does not know
            yet is that those before it were pruned since.

    Raises:
        KeepError: when one cannot be read anywhere.
    """
    oldest, first = "", name
    while name:
        try:
            snapshot = reader.snapshot(name)
        except MissingError:
            if is_lenient and name != first:
                return
            raise
        yield name, snapshot
        oldest = oldest or snapshot.oldest
        name = "" if name == oldest else snapshot.parent


def recipes(
    reader: Reader, snapshot_name: str, *, is_lenient: bool = False
) -> Iterator[tuple[str, Recipe]]:
    """Every recipe of a snapshot and of those before it, once, as (name, recipe).

    What earlier snapshots hold under a key that was destroyed since is gone for good and left out.
    """
    seen: set[str] = set()
    for _, snapshot in snapshots(reader, snapshot_name, is_lenient=is_lenient):
        for entry in snapshot.artifacts:
            if entry.recipe not in seen and reader.holds(entry.recipe):
                seen.add(entry.recipe)
                yield entry.recipe, reader.recipe(entry.recipe)


def needed(
    reader: Reader, store: Store, snapshot_name: str, *, is_lenient: bool = False
) -> Iterator[tuple[str, int]]:
    """Everything that a store must hold for a snapshot and the snapshots before it.

    Each snapshot and each recipe is read once, and each chunk looked up once for each recipe.

    Args:
        is_lenient: as in `snapshots`.

    Yields:
        (object name, size in bytes if an index tells it, else -1), each once. A chunk that none of
        the store's indexes knows comes as `chunk/<key id>/<id>`, a name that no object has.

    Raises:
        KeepError: when a snapshot or a recipe cannot be read anywhere.
    """
    seen: set[str] = set()
    key_ids: dict[str, ChunkIndex] = {}
    for name, snapshot in snapshots(reader, snapshot_name, is_lenient=is_lenient):
        yield name, -1
        for entry in snapshot.artifacts:
            for each in (entry.envelope, entry.recipe):
                if each in seen or not reader.holds(each):
                    continue
                seen.add(each)
                yield each, -1
                if each is not entry.recipe:
                    continue
                key_id = key_id_of(each)
                index = key_ids.setdefault(key_id, reader.index_of(store, key_id))
                for chunk_id in lacking(index, reader.recipe(each)):
                    yield f"chunk/{key_id}/{chunk_id.hex()}", -1
    for key_id in sorted(key_ids):
        yield from ((pack.name, pack.size_bytes) for pack in key_ids[key_id].packs())


def lacking(index: ChunkIndex, recipe: Recipe) -> Iterator[bytes]:
    """Chunks of a recipe that an index knows nowhere, or only as deltas to what it lacks."""
    for chunk_id in dict.fromkeys(each for file in recipe.files for each, _ in file.chunks):
        if not any(_is_complete(index, segment) for _, segment in index.find_all(chunk_id)):
            yield chunk_id


def _is_complete(index: ChunkIndex, segment: Segment) -> bool:
    """Whether a segment is no delta, or one to a chunk that is none."""
    return not segment.base or any(not each.base for _, each in index.find_all(segment.base))


class _Segments:
    """The segments of one pack whose bytes are at hand."""

    def __init__(
        self, pack: PackEntry, raw: memoryview, domain: DomainKeys, reader: Reader, bases: Bases
    ) -> None:
        self._pack, self._raw, self._domain, self._reader = pack, raw, domain, reader
        self._cipher: Cipher = pack_cipher(domain, pack.salt)
        self._own = {each.chunk_id: each for each in pack.segments if not each.base}
        self._bases = bases

    def demand(self) -> None:
        """Check every segment.

        Raises:
            IntegrityError: the first that is not what its id says.
        """
        size_bytes = max((each.length for each in self._pack.segments), default=0)
        scratch = memoryview(bytearray(min(size_bytes, 2 * len(self._raw) + _PLAIN_BYTES_OVER)))
        for each in self._pack.segments:
            plain = self._plain(each, scratch)
            if not each.base:
                self._bases.offer(each.chunk_id, plain)

    def _plain(self, segment: Segment, scratch: memoryview) -> memoryview:
        end = segment.offset + segment.payload_bytes + TAG_BYTES
        sealed = self._raw[segment.offset : end]
        if segment.length > len(scratch) or segment.offset < 0:
            raise IntegrityError("vault.pack", f"{self._pack.name}: a segment is out of bounds")
        plain, bound = scratch[: segment.length], bound_to(self._domain.name, segment)
        if segment.encoding == Encoding.RAW and len(sealed) == segment.length + TAG_BYTES:
            self._cipher.open_into(segment.number, sealed, plain, bound=bound)
        else:
            payload = memoryview(self._cipher.open(segment.number, sealed, bound=bound))
            base = self._base(segment)
            decode_into(Encoding(segment.encoding), payload, plain, base=base)
        if keyed_id(self._domain.chunk_ids.reveal(), plain) != segment.chunk_id:
            raise IntegrityError("vault.id", f"{self._pack.name}: a chunk is not what its id says")
        return plain

    def _base(self, segment: Segment) -> memoryview | None:
        if not segment.base:
            return None
        found = self._bases.get(segment.base)
        if found is not None:
            return found
        own = self._own.get(segment.base)
        if own is not None and own.length == segment.length:
            found = self._plain(own, memoryview(bytearray(own.length)))
        else:
            found = self._reader.chunk(segment.base, key_id=key_id_of(self._pack.name))
        if found is None:
            raise IntegrityError("vault.base", f"{self._pack.name}: the base of a delta is gone")
        self._bases.keep(segment.base, found)
        return found
