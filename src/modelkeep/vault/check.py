"""Is what a store holds what it must hold: one object at a time, and everything a head needs."""

from __future__ import annotations

from collections.abc import Iterator

from modelkeep.core.errors import IntegrityError
from modelkeep.core.record import replaced
from modelkeep.crypto.aead import TAG_BYTES
from modelkeep.crypto.hierarchy import DomainKeys, Domains
from modelkeep.kernels.digest import keyed_id
from modelkeep.vault.load import Reader
from modelkeep.vault.objects import demand_digest, opened_object
from modelkeep.vault.pack import PackEntry, bound_to, pack_cipher, read_pack
from modelkeep.vault.replicate import kind_of
from modelkeep.vault.snapshot import Snapshot


def demand_content(name: str, raw: bytes, *, domains: Domains, public: bytes) -> None:
    """Check an object that is named by its own digest: bytes, signature and tag.

    Of a pack, every segment's plaintext is also compared with its id.

    Raises:
        IntegrityError: the first thing that is wrong.
        MissingError: `keys.destroyed`, when nobody can read it any more.
    """
    demand_digest(name, raw)
    kind, domain = kind_of(name), domains.of(name)
    if kind == "pack":
        _demand_segments(read_pack(name, raw, domain=domain, public=public), raw, domain)
        return
    opened_object(name, raw, kind=kind, domain=domain, public=public)


def needed(reader: Reader, snapshot_name: str) -> Iterator[tuple[str, int]]:
    """Everything that a snapshot and the snapshots before it need.

    What earlier snapshots hold under a key that was destroyed since is gone for good and left out.

    Yields:
        (object name, size in bytes if an index tells it, else -1).

    Raises:
        KeepError: when a snapshot or an index cannot be read anywhere.
    """
    seen: set[str] = set()
    name = snapshot_name
    while name:
        snapshot = reader.snapshot(name)
        for each in _of_one(reader, name, snapshot):
            if each[0] not in seen:
                seen.add(each[0])
                yield each
        name = snapshot.parent


def _of_one(reader: Reader, name: str, snapshot: Snapshot) -> Iterator[tuple[str, int]]:
    yield name, -1
    for entry in snapshot.artifacts:
        yield from ((each, -1) for each in (entry.envelope, entry.recipe) if reader.holds(each))
    indexes = tuple(filter(reader.holds, snapshot.indexes))
    for index in indexes:
        yield index, -1
    for pack in reader.index(replaced(snapshot, indexes=indexes)).packs():
        yield pack.name, pack.size_bytes


def _demand_segments(pack: PackEntry, raw: bytes, domain: DomainKeys) -> None:
    view = memoryview(raw)
    cipher = pack_cipher(domain, pack.salt)
    for segment in pack.segments:
        sealed = view[segment.offset : segment.offset + segment.length + TAG_BYTES]
        plain = cipher.open(segment.number, sealed, bound=bound_to(domain.name, segment.chunk_id))
        if keyed_id(domain.chunk_ids.reveal(), plain) != segment.chunk_id:
            raise IntegrityError("vault.id", f"{pack.name}: a chunk is not what its id says")
