"""The keyring in the stores: found, opened by the keyholder, replaced, and older ones removed.

It is a numbered series of which a store should hold the newest member only: an older one is opened
by an older key-encryption key, and may hold the key of a domain that was destroyed since. A change
is written to every store before it is recorded, and older members go after that; each step can be
cut and repeated, and what a store lacks because it was away is made up for when it is back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modelkeep.core.errors import (
    IntegrityError,
    KeepError,
    MissingError,
    RefusedError,
    UnavailableError,
)
from modelkeep.core.names import series_number
from modelkeep.crypto.hierarchy import DomainKeys, Domains, KeepKeys, domain_keys, keep_keys
from modelkeep.crypto.keyring import DomainKey, LockedRing, RingBody, Wrap
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import Signer
from modelkeep.flows.store_format import StoreFormat
from modelkeep.ports.keyholder import Holders, Keyholder
from modelkeep.ports.store import Store
from modelkeep.vault.objects import (
    Numbered,
    latest,
    member_names,
    opened_member,
    series_member,
    unverified_member,
)

# A store holds one member, or two while it is replaced; a hostile one may list any number.
MEMBERS_READ_MAX = 4
RING_BYTES_MAX = 8 * 1024 * 1024  # of 50,000 domains


class Keyring(Numbered, frozen=True):
    """The root, wrapped for its holders, and the keep's random keys sealed under it."""

    keep_id: str
    wraps: tuple[Wrap, ...]
    sealed: bytes


@dataclass(frozen=True, slots=True)
class OpenRing:
    """A keyring that was opened, and who can seal another.

    Attributes:
        wraps: who can open it.
    """

    keep_id: str
    number: int
    wraps: tuple[Wrap, ...]
    body: RingBody
    keyholder: Keyholder

    @property
    def keys(self) -> KeepKeys:
        """What the identity gives."""
        return keep_keys(Secret(self.body.identity))

    @property
    def domains(self) -> Domains:
        """The keys of every domain, and the keep's own."""
        own = self.keys.own
        return Domains((own, *(_keys_of(each) for each in self.body.domains)))


def new_ring(
    keyholder: Keyholder, *, keep_id: str, body: RingBody, holders: Holders
) -> tuple[OpenRing, tuple[str, bytes]]:
    """The first keyring of a keep, and its object."""
    ring = keyholder.lock(body, keep_id=keep_id, number=0, holders=holders)
    opened = _opened(ring, body, keyholder)
    return opened, _object(ring, opened.keys.signer)


def opened_ring(stores: Sequence[Store], keyholder: Keyholder, *, keep_id: str = "") -> OpenRing:
    """Open the newest keyring in the stores.

    1. What the stores have is read, unverified, the authoritative store's first: what a hostile
    copy would have us stretch a passphrase for comes last. 2. The keyholder opens one: its tag
    proves it. 3. Its signature, which covers the wraps, verifies under the identity in it. 4. A
    valid ring with a higher number, in any store, counts instead: an older key-encryption key opens
    nothing any more.

    Args:
        keep_id: whose it must be, where that is known: another keep of the same owner may have the
            same passphrase.

    Raises:
        RefusedError: `keys.passphrase`, `keys.no_holder` or `keys.superseded`.
        MissingError: `keep.none`, when no store holds a keep.
        IntegrityError: `keep.identity`, when none is of this keep.
    """
    every = _found(stores)  # 1
    found = [each for each in every if keep_id in ("", each[0].keep_id)]
    if not found:
        raise IntegrityError(
            "keep.identity",
            f"modelkeep.toml is of keep {keep_id}, its stores are of {every[0][0].keep_id[:40]}",
        )
    failure: KeepError | None = None
    for each in found:
        try:
            ring = _verified(each, keyholder)
        except (RefusedError, IntegrityError) as error:
            failure = failure or error
            continue
        public = ring.keys.signer.public
        newer = [each for each in found if each[0].number > ring.number]
        valid = [each for each in newer if _is_valid(each[1], each[2], public)]  # 4
        if not valid:
            return ring
        try:
            return _verified(max(valid, key=lambda each: each[0].number), keyholder)
        except (RefusedError, IntegrityError):
            raise RefusedError(
                "keys.superseded",
                "this key source opened the keep once; the root was given to another since",
                hint="use the passphrase or key source that the last `modelkeep keys rotate` set",
            ) from None
    raise failure or IntegrityError("keys.no_ring", "no store holds a keyring of this keep")


def changed_ring(
    ring: OpenRing, stores: Sequence[Store], body: RingBody, *, holders: Holders | None = None
) -> OpenRing:
    """Seal a new body (or for other holders) as the next member, first in the authoritative store.

    A store that is away gets it when it is back: every opening settles the stores.

    Raises:
        UnavailableError: when the authoritative store cannot take it.
    """
    locked = ring.keyholder.lock(
        body, keep_id=ring.keep_id, number=ring.number + 1, holders=holders
    )
    name, raw = _object(locked, ring.keys.signer)
    for number, store in enumerate(stores):
        try:
            demand_ours(store, public=ring.keys.signer.public)
            _put(store, name, raw, public=ring.keys.signer.public)
        except (IntegrityError, MissingError, UnavailableError):
            if number == 0:
                raise
    return _opened(locked, body, ring.keyholder)


@dataclass(frozen=True, slots=True)
class Settled:
    """What came of it, as labels of stores: those that lacked the ring, and those that are away."""

    healed: tuple[str, ...]
    away: tuple[str, ...]


def settled(ring: OpenRing, stores: Sequence[Store]) -> Settled:
    """Bring every store to hold this ring and no older one."""
    source: tuple[str, bytes] | None = None
    healed: list[str] = []
    behind: list[str] = []
    for store in stores:
        try:
            demand_ours(store, public=ring.keys.signer.public)
            names = member_names(store, "keyring")
            older = [name for name in names if series_number(name) < ring.number]
            is_there = any(series_number(name) == ring.number for name in names)
            if older or not is_there:
                source = source or _newest(stores, ring)
                _put(store, *source, public=ring.keys.signer.public)
            if not is_there:
                healed.append(store.label)
            for name in older:
                store.delete(name)
        except (IntegrityError, MissingError, UnavailableError):
            behind.append(store.label)
    return Settled(healed=tuple(healed), away=tuple(behind))


def with_domain(body: RingBody, added: DomainKey) -> RingBody:
    """A body in which a domain has a (new) key; one that it had before retires."""
    kept = tuple(
        DomainKey(name=each.name, key_id=each.key_id, key=each.key, is_retiring=True)
        if each.name == added.name
        else each
        for each in body.domains
    )
    return _with_domains(body, (*kept, added))


def without_domain(body: RingBody, name: str, *, only_retiring: bool = False) -> RingBody:
    """A body in which a domain has no key, or none that retired."""
    return _with_domains(
        body,
        tuple(
            each
            for each in body.domains
            if each.name != name or (only_retiring and not each.is_retiring)
        ),
    )


def _with_domains(body: RingBody, domains: tuple[DomainKey, ...]) -> RingBody:
    return RingBody(identity=body.identity, domains=domains, ca_key=body.ca_key, ca_pem=body.ca_pem)


def _keys_of(each: DomainKey) -> DomainKeys:
    return domain_keys(each.name, each.key_id, Secret(each.key), is_retiring=each.is_retiring)


def _verified(found: tuple[Keyring, str, bytes], keyholder: Keyholder) -> OpenRing:
    ring, name, raw = found
    _, body = keyholder.unlock([_locked(ring)])  # 2
    public = keep_keys(Secret(body.identity)).signer.public
    opened_member(Keyring, name, raw, kind="keyring", public=public)  # 3
    return _opened(_locked(ring), body, keyholder)


def _found(stores: Sequence[Store]) -> list[tuple[Keyring, str, bytes]]:
    """Every ring that some store holds, each once; in the order of the stores, newest first."""
    found: dict[bytes, tuple[Keyring, str, bytes]] = {}
    failure: KeepError | None = None
    for store in stores:
        try:
            names = member_names(store, "keyring")
        except UnavailableError as error:
            failure = failure or error
            continue
        # Whoever may only add objects has the highest numbers, not the lowest: both are read.
        names = list(dict.fromkeys((*names[:MEMBERS_READ_MAX], *names[-MEMBERS_READ_MAX:])))
        for name in names:
            try:
                raw = store.get(name, length=RING_BYTES_MAX + 1)
                if len(raw) > RING_BYTES_MAX:
                    raise IntegrityError(
                        "keys.ring_size", f"{name} is longer than a keyring may be"
                    )
                found.setdefault(raw, (unverified_member(Keyring, name, raw), name, raw))
            except (IntegrityError, MissingError, UnavailableError) as error:
                failure = failure or error
    if not found:
        labels = ", ".join(store.label for store in stores)
        raise failure or MissingError(
            "keep.none", f"no keep in {labels}", hint="name a store's folder that holds a keep"
        )
    return list(found.values())


def _put(store: Store, name: str, raw: bytes, *, public: bytes) -> None:
    """Write a ring, over whatever else lies under its name but another ring of this keep."""
    try:
        store.put(name, raw)
    except IntegrityError:
        if _is_valid(name, store.get(name), public):
            raise
        store.delete(name)
        store.put(name, raw)


def demand_ours(store: Store, *, public: bytes) -> None:
    """Go on only with a store of this keep: not with an empty folder, nor with another keep's.

    Raises:
        MissingError: `series.none`.
        UnavailableError: when it does not answer.
    """
    latest(StoreFormat, store, "format", public=public)


def _newest(stores: Sequence[Store], ring: OpenRing) -> tuple[str, bytes]:
    """The object of a ring, from a store that has it whole."""
    public = ring.keys.signer.public
    for _, name, raw in _found(stores):
        if series_number(name) == ring.number and _is_valid(name, raw, public):
            return name, raw
    raise MissingError("keys.ring", f"no store holds keyring {ring.number} any more")


def _is_valid(name: str, raw: bytes, public: bytes) -> bool:
    try:
        opened_member(Keyring, name, raw, kind="keyring", public=public)
    except IntegrityError:
        return False
    return True


def _locked(ring: Keyring) -> LockedRing:
    return LockedRing(
        keep_id=ring.keep_id, number=ring.number, wraps=ring.wraps, sealed=ring.sealed
    )


def _opened(ring: LockedRing, body: RingBody, keyholder: Keyholder) -> OpenRing:
    return OpenRing(
        keep_id=ring.keep_id,
        number=ring.number,
        wraps=ring.wraps,
        body=body,
        keyholder=keyholder,
    )


def _object(ring: LockedRing, signer: Signer) -> tuple[str, bytes]:
    member = Keyring(number=ring.number, keep_id=ring.keep_id, wraps=ring.wraps, sealed=ring.sealed)
    return series_member("keyring", member, signer=signer)
