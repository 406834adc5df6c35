"""The read side: every byte proven before it is believed, from whichever store has it whole.

Read order: head -> snapshot -> indexes -> envelope, recipe -> segments. An object or segment that
one store has lost or damaged is read from the next store, and the damaged copy is replaced
(delete + put) from the good one. Every segment is authenticated on each read, and its plaintext
is hashed again against its id.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from modelkeep.core.errors import IntegrityError, KeepError, MissingError, UnavailableError
from modelkeep.core.record import Record, from_msgpack
from modelkeep.crypto.aead import TAG_BYTES
from modelkeep.crypto.hierarchy import Domains
from modelkeep.kernels.digest import keyed_id
from modelkeep.ports.store import Store
from modelkeep.vault.index import ChunkIndex, Index
from modelkeep.vault.objects import demand_digest, opened_object
from modelkeep.vault.pack import PackEntry, Segment, bound_to, pack_cipher
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


@dataclass(slots=True)
class Reader:
    """Reads from several stores, in order of preference; collects the damage it met.

    Attributes:
        may_heal: whether this reader has the repair right.
    """

    stores: Sequence[Store]
    domains: Domains
    public: bytes
    may_heal: bool = True
    damages: list[Damage] = field(default_factory=list)

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
            return Snapshot(taken_ns=0, parent="", artifacts=(), indexes=())
        return from_msgpack(Snapshot, self.body("snapshot", name), what=name)

    def index(self, snapshot: Snapshot) -> ChunkIndex:
        """Read and merge all indexes of a snapshot."""
        return ChunkIndex(
            from_msgpack(Index, self.body("index", name), what=name) for name in snapshot.indexes
        )

    def recipe(self, name: str) -> Recipe:
        """Read a recipe."""
        return from_msgpack(Recipe, self.body("recipe", name), what=name)

    def file_into(self, target: memoryview, file: RecipeFile, index: ChunkIndex) -> None:
        """Decrypt a whole file in place; `target` is exactly as long as the file.

        Raises:
            IntegrityError: `vault.chunk`, with offset and length in the file, when no store has a
                good copy of a chunk; `vault.recipe`, when lengths disagree.
        """
        if not sum(length for _, length in file.chunks) == file.size_bytes == len(target):
            raise IntegrityError("vault.recipe", f"the chunks of {file.path} do not add up")
        offset = 0
        for chunk_id, length in file.chunks:
            try:
                self._chunk_into(target[offset : offset + length], chunk_id, index)
            except (IntegrityError, MissingError) as error:
                raise IntegrityError(
                    "vault.chunk",
                    f"{file.path}: bytes {offset} to {offset + length} are damaged in every store",
                    hint="restore the keep from another copy; what else is hit: `modelkeep check`",
                    path=file.path,
                    offset=offset,
                    length=length,
                    cause=error.code,
                ) from error
            offset += length

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

    def _chunk_into(self, target: memoryview, chunk_id: bytes, index: ChunkIndex) -> None:
        place = index.find(chunk_id)
        if place is None or place[1].length != len(target):
            raise IntegrityError("vault.index", "no index knows a chunk of this recipe")
        pack, segment = place
        self.first_good(pack.name, lambda store: self._segment(store, pack, segment, target))

    def _segment(self, store: Store, pack: PackEntry, segment: Segment, target: memoryview) -> None:
        sealed = store.get(pack.name, start=segment.offset, length=segment.length + TAG_BYTES)
        if len(sealed) != segment.length + TAG_BYTES:
            raise IntegrityError("vault.short", f"{pack.name} is cut short", object=pack.name)
        domain = self.domains.of(pack.name)
        pack_cipher(domain, pack.salt).open_into(
            segment.number, sealed, target, bound=bound_to(domain.name, segment.chunk_id)
        )
        if keyed_id(domain.chunk_ids.reveal(), target) != segment.chunk_id:
            target[:] = bytes(len(target))
            raise IntegrityError("vault.id", f"{pack.name}: a chunk is not what its id says")

    def _heal(self, name: str, *, bad: Store, good: Store, error: KeepError) -> None:
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
