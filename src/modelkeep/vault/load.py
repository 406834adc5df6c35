"""The read side: every byte proven before it is believed, from whichever store has it whole.

Read order: head -> snapshot -> envelope, recipe -> the stores' indexes -> segments. An object or
chunk that one store has lost or damaged is read from the next store; where that one holds the very
same object, the damaged copy is replaced (delete + put). Every segment is authenticated on each
read, and its plaintext is hashed again against its id. A chunk that is a delta costs two reads, its
own and its base's; a base is never a delta.

A reader keeps the indexes that it has read. When a pack is gone, a prune may have moved its chunks:
the store's indexes are then read once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from modelkeep.core.errors import IntegrityError, KeepError, MissingError, UnavailableError
from modelkeep.core.names import key_id_of
from modelkeep.core.record import Record, from_msgpack
from modelkeep.crypto.aead import TAG_BYTES
from modelkeep.crypto.hierarchy import Domains
from modelkeep.kernels.digest import keyed_id
from modelkeep.kernels.encoding import Encoding, decode_into
from modelkeep.ports.range_store import read_into
from modelkeep.ports.store import Store
from modelkeep.ports.workers import SERIAL, Workers
from modelkeep.vault.index import ChunkIndex, Index, Pack
from modelkeep.vault.objects import demand_digest, opened_object
from modelkeep.vault.pack import Segment, bound_to, pack_cipher
from modelkeep.vault.snapshot import Recipe, RecipeFile, Snapshot

T = TypeVar("T")


class Damage(Record, frozen=True):
    """One damaged or missing object that a read came across.

    Attributes:
        store: label of the store that had it.
        code: of the error that showed it, such as `vault.digest`.
        healed: whether it was replaced from another store.
    """

    store: str
    object: str
    code: str
    healed: bool


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of a chunk on its way into a part of a target."""

    chunk_id: bytes
    length: int
    offset: int
    target: memoryview
    skip: int = 0


@dataclass(slots=True)
class Reader:
    """Reads from several stores, in order of preference; collects the damage it met.

    Attributes:
        may_heal: whether this reader has the repair right.
    """

    stores: Sequence[Store]
    domains: Domains
    public: bytes
    workers: Workers = SERIAL
    may_heal: bool = True
    damages: list[Damage] = field(default_factory=list)
    _indexes: dict[tuple[str, str], ChunkIndex] = field(default_factory=dict)
    _again: set[tuple[str, str]] = field(default_factory=set)
    _tended: set[tuple[str, str]] = field(default_factory=set)
    # Fresh memory costs more than what is done in it: each thread gives back what it took.
    _buffers: list[bytearray] = field(default_factory=list)

    def holds(self, name: str) -> bool:
        """Whether the key of an object was not destroyed."""
        return self.domains.holds(name)

    def body(self, kind: str, name: str) -> bytes:
        """Read, check and decrypt one sealed object."""

        def check(raw: bytes) -> bytes:
            return opened_object(name, raw, kind=kind, domain=domain, public=self.public)

        domain = self.domains.of(name)
        return self.first_good(name, lambda store: check(store.get(name)))

    def snapshot(self, name: str) -> Snapshot:
        """Read a snapshot; the empty name is the empty snapshot before the first commit."""
        if not name:
            return Snapshot(taken_ns=0, parent="", artifacts=())
        return from_msgpack(Snapshot, self.body("snapshot", name), what=name)

    def recipe(self, name: str) -> Recipe:
        """Read a recipe."""
        return from_msgpack(Recipe, self.body("recipe", name), what=name)

    def index_of(self, store: Store, key_id: str) -> ChunkIndex:
        """The merged indexes of one store under one key; what is damaged is noted, left out.

        Raises:
            UnavailableError: when the store does not answer.
        """
        found = self._indexes.get((store.label, key_id))
        if found is None:
            names = [each.name for each in store.list(f"index/{key_id}/")]
            found = ChunkIndex(self._read_indexes(store, names))
            self._indexes[store.label, key_id] = found
        return found

    def file_into(self, target: memoryview, file: RecipeFile, *, key_id: str) -> None:
        """Decrypt a whole file in place; `target` is exactly as long as the file.

        Args:
            key_id: of the domain key that the recipe's chunks are under.

        Raises:
            IntegrityError: `vault.chunk`, with offset and length in the file, when no store has a
                good copy of a chunk; `vault.recipe`, when lengths disagree.
        """
        demand_sum(file)
        if len(target) != file.size_bytes:
            raise IntegrityError("vault.recipe", f"{file.path} has another size")
        self._fill(file, _pieces(file, target, start=0), key_id)

    def range_into(self, target: memoryview, file: RecipeFile, *, start: int, key_id: str) -> None:
        """Decrypt `len(target)` bytes of a file from `start` on.

        Raises:
            IntegrityError: as `file_into`.
        """
        demand_sum(file)
        if start < 0 or start + len(target) > file.size_bytes:
            raise IntegrityError("vault.recipe", f"{file.path} has no bytes from {start} on")
        self._fill(file, _pieces(file, target, start=start), key_id)

    def blocks(self, file: RecipeFile, *, key_id: str) -> Iterator[memoryview]:
        """The plaintext of a file, chunk by chunk; each is valid until the next is asked for.

        Raises:
            IntegrityError: as `file_into`.
        """
        for _, _, plain in self.blocks_of((file,), key_id=key_id):
            yield plain

    def blocks_of(
        self,
        files: Iterable[RecipeFile],
        *,
        key_id: str,
        taken: Callable[[RecipeFile, int, memoryview], None] = lambda *_: None,
    ) -> Iterator[tuple[RecipeFile, int, memoryview]]:
        """The plaintext of files, chunk by chunk, as (file, offset, bytes), in order.

        Args:
            files: asked for the next one a few chunks ahead; one without chunks gives nothing.
            taken: called by the worker that read a chunk, in no order, before the caller has it.

        Yields:
            What is valid until the next is asked for.

        Raises:
            IntegrityError: as `file_into`.
        """

        def places() -> Iterator[tuple[RecipeFile, int, bytes, int]]:
            for file in files:
                demand_sum(file)
                yield from ((file, *place) for place in _placed(file))

        return self._streamed(places(), key_id, taken)

    def range_blocks(
        self, file: RecipeFile, *, start: int, length: int, key_id: str
    ) -> Iterator[memoryview]:
        """A range of a file, piece by piece; each is valid until the next is asked for.

        Raises:
            IntegrityError: as `file_into`.
        """
        demand_sum(file)
        end = start + length
        places = (
            (file, offset, chunk_id, size_bytes)
            for offset, chunk_id, size_bytes in _placed(file)
            if max(offset, start) < min(offset + size_bytes, end)
        )
        for _, offset, plain in self._streamed(places, key_id, lambda *_: None):
            yield plain[max(start - offset, 0) : end - offset]

    def _streamed(
        self,
        places: Iterable[tuple[RecipeFile, int, bytes, int]],
        key_id: str,
        taken: Callable[[RecipeFile, int, memoryview], None],
    ) -> Iterator[tuple[RecipeFile, int, memoryview]]:
        free: list[bytearray] = []

        def read(
            place: tuple[RecipeFile, int, bytes, int],
        ) -> tuple[RecipeFile, int, bytearray, int]:
            file, offset, chunk_id, length = place
            buffer = free_buffer(free, length)
            target = memoryview(buffer)[:length]
            self._piece(file, _Piece(chunk_id, length, offset, target), key_id)
            taken(file, offset, target)
            return file, offset, buffer, length

        for file, offset, buffer, length in self.workers.map(read, places):
            yield file, offset, memoryview(buffer)[:length]
            free.append(buffer)

    def chunk(self, chunk_id: bytes, *, key_id: str) -> memoryview | None:
        """The plaintext of one chunk from the first store that has it whole, or None."""
        for store in self.stores:
            try:
                places = self.index_of(store, key_id).find_all(chunk_id)
            except KeepError:
                continue
            for pack, segment in places:
                target = memoryview(bytearray(segment.length))
                try:
                    self.segment_into(store, pack, segment, target)
                except KeepError:
                    continue
                return target
        return None

    def chunk_into(self, target: memoryview, chunk_id: bytes, *, key_id: str) -> None:
        """Read one chunk from the first store that has it whole, and heal the ones before it.

        Raises:
            KeepError: of the first store that should have had it, when none has.
        """
        failures: list[tuple[Store, str, KeepError]] = []
        for store in self.stores:
            for name, error in self._tried(store, chunk_id, target, key_id):
                if error is None:
                    for bad, bad_name, failure in failures:
                        self._heal(bad_name, bad=bad, good=store, error=failure)
                    return
                failures.append((store, name, error))
        for bad, name, failure in failures:
            if name:
                self._note(name, bad, failure, healed=False)
        named = [failure for _, name, failure in failures if name] or [
            failure for _, _, failure in failures
        ]
        raise named[0]

    def segment_into(self, store: Store, pack: Pack, segment: Segment, target: memoryview) -> None:
        """Read one segment of one store, prove it, decode it.

        Raises:
            KeepError: the first thing that is wrong; the target is then zeroed.
        """
        domain = self.domains.of(pack.name)
        payload_bytes = segment.payload_bytes
        cipher = pack_cipher(domain, pack.salt)
        bound = bound_to(domain.name, segment)
        with self.borrowed(payload_bytes + TAG_BYTES) as sealed:
            if read_into(store, pack.name, segment.offset, sealed) != len(sealed):
                raise IntegrityError("vault.short", f"{pack.name} is cut short", object=pack.name)
            if segment.encoding == Encoding.RAW and payload_bytes == len(target):
                cipher.open_into(segment.number, sealed, target, bound=bound)
            else:
                with self.borrowed(payload_bytes) as payload:
                    cipher.open_into(segment.number, sealed, payload, bound=bound)
                    self._decode(store, pack, segment, payload, target)
        if keyed_id(domain.chunk_ids.reveal(), target) != segment.chunk_id:
            target[:] = bytes(len(target))
            raise IntegrityError("vault.id", f"{pack.name}: a chunk is not what its id says")

    def _decode(
        self, store: Store, pack: Pack, segment: Segment, payload: memoryview, target: memoryview
    ) -> None:
        encoding = Encoding(segment.encoding)
        if not segment.base:
            decode_into(encoding, payload, target)
            return
        with self.borrowed(segment.length) as held:
            base = self._base_into(held, store, pack, segment)
            decode_into(encoding, payload, target, base=base)

    @contextmanager
    def borrowed(self, size_bytes: int) -> Iterator[memoryview]:
        """Memory for a moment; what stands in it is what somebody left there."""
        buffer = free_buffer(self._buffers, size_bytes)
        try:
            yield memoryview(buffer)[:size_bytes]
        finally:
            self._buffers.append(buffer)

    def first_good(self, name: str, read: Callable[[Store], T]) -> T:
        """Read from the first store that has a good copy, and heal the ones before it.

        Raises:
            KeepError: of the first store, when no store has one.
        """
        failures: list[tuple[Store, KeepError]] = []
        for store in self.stores:
            try:
                good = read(store)
            except (IntegrityError, MissingError, UnavailableError) as error:
                failures.append((store, error))
                continue
            for bad, failure in failures:
                self._heal(name, bad=bad, good=store, error=failure)
            return good
        for bad, failure in failures:
            self._note(name, bad, failure, healed=False)
        raise failures[0][1]

    def _read_indexes(self, store: Store, names: Iterable[str]) -> Iterator[Index]:
        for name in names:
            try:
                domain = self.domains.of(name)
                raw = store.get(name)
                body = opened_object(name, raw, kind="index", domain=domain, public=self.public)
                yield from_msgpack(Index, body, what=name)
            except MissingError:
                continue  # pruned since it was listed: what it said stands in a newer one
            except IntegrityError as error:
                self._note(name, store, error, healed=False)  # `mended` makes it again

    def _fill(self, file: RecipeFile, pieces: Iterable[_Piece], key_id: str) -> None:
        for _ in self.workers.map(lambda piece: self._piece(file, piece, key_id), pieces):
            pass

    def _piece(self, file: RecipeFile, piece: _Piece, key_id: str) -> None:
        try:
            if len(piece.target) == piece.length:
                self.chunk_into(piece.target, piece.chunk_id, key_id=key_id)
                return
            with self.borrowed(piece.length) as whole:
                self.chunk_into(whole, piece.chunk_id, key_id=key_id)
                piece.target[:] = whole[piece.skip : piece.skip + len(piece.target)]
        except (IntegrityError, MissingError) as error:
            end = piece.offset + piece.length
            raise IntegrityError(
                "vault.chunk",
                f"{file.path}: bytes {piece.offset} to {end} are damaged in every store",
                hint="restore the keep from another copy; what else is hit: `modelkeep check`",
                path=file.path,
                offset=piece.offset,
                length=piece.length,
                cause=error.code,
            ) from error

    def _tried(
        self, store: Store, chunk_id: bytes, target: memoryview, key_id: str
    ) -> Iterator[tuple[str, KeepError | None]]:
        """Try a store: the pack's name and what was wrong with it, None for a good read."""
        unknown = IntegrityError("vault.index", f"{store.label}: no index knows a chunk")
        for is_last in (False, True):
            try:
                index = self.index_of(store, key_id)
                places = index.find_all(chunk_id)
            except (MissingError, UnavailableError) as error:
                yield "", error
                return
            failed: list[tuple[str, KeepError]] = []
            for pack, segment in places:
                try:
                    if segment.length != len(target):
                        raise IntegrityError("vault.index", "a chunk has another length")
                    self.segment_into(store, pack, segment, target)
                except (IntegrityError, MissingError, UnavailableError) as error:
                    failed.append((pack.name, error))
                    continue
                yield "", None
                return
            is_gone = all(isinstance(error, MissingError) for _, error in failed)
            if is_last or not (is_gone and self._forgotten(store, key_id, index)):
                yield from failed or [("", unknown)]
                return

    def _forgotten(self, store: Store, key_id: str, used: ChunkIndex) -> bool:
        """Whether the indexes of a store will be read again: once, for a prune may have run."""
        key = (store.label, key_id)
        if self._indexes.get(key) is not used:
            return True  # another thread reads them, or has
        if key in self._again:
            return False
        self._again.add(key)
        self._indexes.pop(key, None)
        return True

    def _base_into(
        self, target: memoryview, store: Store, pack: Pack, segment: Segment
    ) -> memoryview:
        """The base of a delta, in `target` or elsewhere: another store's copy does as well.

        Raises:
            MissingError: when its pack is gone: a prune may have moved it.
            IntegrityError: `vault.base`, when no store has it whole.
        """
        key_id = key_id_of(pack.name)
        place = self.index_of(store, key_id).find(segment.base)
        gone: MissingError | None = None
        if place is not None and not place[1].base and place[1].length == segment.length:
            try:
                self.segment_into(store, place[0], place[1], target)
            except MissingError as error:
                gone = error
            except (IntegrityError, UnavailableError) as error:
                self._note(place[0].name, store, error, healed=False)
            else:
                return target
        found = self.chunk(segment.base, key_id=key_id)
        if found is None:
            lost = IntegrityError("vault.base", f"{pack.name}: the base of a delta is gone")
            raise gone or lost
        return found

    def _heal(self, name: str, *, bad: Store, good: Store, error: KeepError) -> None:
        if not name or (bad.label, name) in self._tended:
            return
        self._tended.add((bad.label, name))  # of several threads that meet it the first one heals
        healed = False
        if self.may_heal and not isinstance(error, UnavailableError):
            try:
                raw = good.get(name)
                demand_digest(name, raw)
                bad.delete(name)
                bad.put(name, raw)
                healed = True
            except (IntegrityError, MissingError, UnavailableError):
                healed = False  # what was asked for is good; the damage is reported as it stands
        self._note(name, bad, error, healed=healed)

    def _note(self, name: str, store: Store, error: KeepError, *, healed: bool) -> None:
        damage = Damage(store=store.label, object=name, code=error.code, healed=healed)
        if damage not in self.damages:
            self.damages.append(damage)


def free_buffer(free: list[bytearray], size_bytes: int) -> bytearray:
    """One that was given back, if it is long enough; threads may take at once."""
    try:
        buffer = free.pop()
    except IndexError:
        buffer = bytearray()
    return buffer if len(buffer) >= size_bytes else bytearray(size_bytes)


def demand_sum(file: RecipeFile) -> None:
    """Check that a file's chunks add up to it.

    Raises:
        IntegrityError: `vault.recipe`.
    """
    if any(length < 0 for _, length in file.chunks) or (
        sum(length for _, length in file.chunks) != file.size_bytes
    ):
        raise IntegrityError("vault.recipe", f"the chunks of {file.path} do not add up")


def places_in(file: RecipeFile) -> Iterator[tuple[int, int]]:
    """Every chunk of a file as (offset, length)."""
    return ((offset, length) for offset, _, length in _placed(file))


def _placed(file: RecipeFile) -> Iterator[tuple[int, bytes, int]]:
    """Every chunk of a file as (offset, id, length)."""
    offset = 0
    for chunk_id, length in file.chunks:
        yield offset, chunk_id, length
        offset += length


def _pieces(file: RecipeFile, target: memoryview, *, start: int) -> Iterator[_Piece]:
    """The chunks of a file that a range from `start` on is made of."""
    end = start + len(target)
    for offset, chunk_id, length in _placed(file):
        left, right = max(offset, start), min(offset + length, end)
        if left < right:
            yield _Piece(
                chunk_id=chunk_id,
                length=length,
                offset=offset,
                target=target[left - start : right - start],
                skip=left - offset,
            )
