"""Make what one store has lost good again from what can still be read anywhere.

A pack: its chunks are read from wherever they are whole, stored anew, and the damaged pack leaves
the indexes. An index: made again from the tables of the packs that no index names. A chunk that no
index of the store knows: stored anew. A chunk keeps the base that it was a delta to, if the store
still holds that; what it is made of is guessed from its bytes.

Write order: new packs -> new indexes -> old indexes go -> the damaged object goes. A crash between
any two leaves every chunk that could be found before findable.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from modelkeep.core.errors import IntegrityError, KeepError, MissingError, UnavailableError
from modelkeep.core.record import from_msgpack, to_msgpack
from modelkeep.crypto.aead import TAG_BYTES
from modelkeep.crypto.hierarchy import DomainKeys
from modelkeep.kernels.encoding import Encoding, sampled_cost
from modelkeep.ports.store import Store
from modelkeep.vault.commit import Deposit, Job, Writer, encoded_chunks, put_sealed
from modelkeep.vault.index import Index, parted, without_packs
from modelkeep.vault.load import Reader
from modelkeep.vault.objects import demand_digest, opened_object
from modelkeep.vault.pack import Encoded, PackEntry, bound_to, pack_cipher, read_pack

# What a chunk may be made of when nobody says: the one that costs least is taken.
_DTYPES = ("", "BF16", "FP16", "FP32", "FP64", "INT8")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A chunk that a store shall hold again."""

    chunk_id: bytes
    length: int
    base: bytes = b""


@dataclass(frozen=True, slots=True)
class Mended:
    """What came of it.

    Attributes:
        chunks: how many were stored anew.
        lost: ids of chunks that no store has whole; a pack that held one stays listed.
    """

    chunks: int
    lost: tuple[bytes, ...]


def mended_packs(writer: Writer, reader: Reader, names: Collection[str]) -> Mended:
    """Store the chunks of damaged or missing packs of `writer.store` anew.

    Args:
        reader: over all stores; it need not have the right to heal.

    Raises:
        UnavailableError: from the store; retry is safe.
    """
    listed = reader.index_of(writer.store, writer.domain.key_id)
    wanted = [
        Wanted(each.chunk_id, each.length, each.base)
        for pack, each in listed.segments()
        if pack.name in names
    ]
    done = refilled(writer, reader, wanted, without=names)
    if not done.lost:
        drop_packs(writer, reader, names)
        for name in names:
            writer.store.delete(name)
    return done


def refilled(
    writer: Writer, reader: Reader, wanted: Iterable[Wanted], *, without: Collection[str] = ()
) -> Mended:
    """Store chunks that a store lacks, as far as any store has them.

    Args:
        without: packs that do not count although the store's indexes name them.

    Raises:
        UnavailableError: from the store; retry is safe.
    """
    key_id = writer.domain.key_id
    deposit = Deposit(writer, reader.index_of(writer.store, key_id))
    deposit.distrust(without)
    lost: list[bytes] = []
    done = 0
    for each in wanted:
        if deposit.holds(each.chunk_id):
            continue
        plain = memoryview(bytearray(each.length))
        try:
            reader.chunk_into(plain, each.chunk_id, key_id=key_id)
        except (IntegrityError, MissingError, UnavailableError):
            lost.append(each.chunk_id)
            continue
        _put(deposit, reader, each, plain)
        done += 1
    deposit.finished()
    return Mended(chunks=done, lost=tuple(lost))


def drop_packs(writer: Writer, reader: Reader, names: Collection[str]) -> None:
    """Take packs out of the indexes of a store: new indexes first, then the old ones go."""
    store = writer.store
    for stat in list(store.list(f"index/{writer.domain.key_id}/")):
        try:
            index = _opened(store, stat.name, domain=writer.domain, public=reader.public)
        except (IntegrityError, MissingError):
            continue  # it is damaged: `mended_index` makes it again
        kept = without_packs(index, names)
        if len(kept.packs) != len(index.packs):
            if kept.packs:
                put_sealed(writer, "index", to_msgpack(kept))
            store.delete(stat.name)


def mended_index(writer: Writer, reader: Reader, name: str) -> bool:
    """Make up for a damaged index: list again what lies in packs that no index names.

    Returns:
        Whether every pack of the store that is under this key is listed again.
    """
    is_whole = relisted(writer, reader)
    writer.store.delete(name)
    return is_whole


def relisted(writer: Writer, reader: Reader) -> bool:
    """List what lies in packs that no index of the store names; whether all of them are whole."""
    store, key_id = writer.store, writer.domain.key_id
    listed = {pack.name for pack in reader.index_of(store, key_id).packs()}
    strays = [stat.name for stat in store.list(f"pack/{key_id}/") if stat.name not in listed]
    found: list[PackEntry] = []
    is_whole = True
    for name in strays:
        try:
            raw = store.get(name)
            demand_digest(name, raw)
            found.append(read_pack(name, raw, domain=writer.domain, public=reader.public))
        except (IntegrityError, MissingError):
            is_whole = False
    for index in parted(found):
        put_sealed(writer, "index", to_msgpack(index))
    return is_whole


def opened_indexes(
    store: Store, *, domain: DomainKeys, public: bytes
) -> Iterator[tuple[str, Index]]:
    """Every index of a store under one key, one after the other.

    Raises:
        IntegrityError: at the first that cannot be read.
    """
    for name in [stat.name for stat in store.list(f"index/{domain.key_id}/")]:
        yield name, _opened(store, name, domain=domain, public=public)


def picked(
    store: Store, entry: PackEntry, numbers: Collection[int], *, domain: DomainKeys
) -> list[Encoded]:
    """Some chunks of a pack as they are encoded, to be put into another pack.

    Raises:
        KeepError: when the pack is not whole.
    """
    raw = memoryview(store.get(entry.name))
    demand_digest(entry.name, raw)
    cipher = pack_cipher(domain, entry.salt)
    found = []
    for each in entry.segments:
        if each.number not in numbers:
            continue
        sealed = raw[each.offset : each.offset + each.payload_bytes + TAG_BYTES]
        bound = bound_to(domain.name, each)
        payload = cipher.open(each.number, sealed, bound=bound)
        found.append(
            Encoded(each.chunk_id, each.length, Encoding(each.encoding), payload, each.base)
        )
    return found


def _put(deposit: Deposit, reader: Reader, wanted: Wanted, plain: memoryview) -> None:
    """Encode one chunk as what it looks like, and add it."""
    key_id = deposit.writer.domain.key_id
    dtype = min(_DTYPES, key=lambda each: sampled_cost(plain, dtype=each))
    job = Job(start=0, length=wanted.length, dtype=dtype, base=wanted.base)

    def read_into(_: int, target: memoryview) -> None:
        target[:] = plain

    def fetch(chunk_id: bytes) -> memoryview | None:
        try:
            return reader.chunk(chunk_id, key_id=key_id)
        except KeepError:
            return None

    for _ in encoded_chunks([job], read_into, deposit=deposit, fetch=fetch):
        pass


def _opened(store: Store, name: str, *, domain: DomainKeys, public: bytes) -> Index:
    body = opened_object(name, store.get(name), kind="index", domain=domain, public=public)
    return from_msgpack(Index, body, what=name)
