"""Make a keep: its keyring under a new root, its first log and its first head, in every store.

Write order, each step durable before the next:
    the mark that an initialisation is under way -> format, keyring, log, config in every
    store -> head 0 in every store -> modelkeep.toml -> the mark is removed
A keep exists when its modelkeep.toml does. A run that was cut short before that is begun anew by
the next one, which removes what stores hold under the marked, never acknowledged, keep id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modelkeep.core.errors import IntegrityError, MissingError, UnavailableError, UsageError
from modelkeep.core.names import series_number
from modelkeep.core.rows import DEFAULT_DOMAIN
from modelkeep.crypto.aead import opened_blob, sealed_blob
from modelkeep.crypto.certificates import Authority
from modelkeep.crypto.hierarchy import KEY_ID_BYTES, Domains, KeepKeys
from modelkeep.crypto.kdf import KEY_BYTES, SALT_BYTES
from modelkeep.crypto.keyring import DomainKey, RingBody
from modelkeep.crypto.secret import Secret
from modelkeep.flows.keep import LogEpoch, latest_of
from modelkeep.flows.keyring import OpenRing, new_ring, opened_ring
from modelkeep.flows.store_format import FEATURES, FORMAT, StoreFormat
from modelkeep.ports.entropy import Entropy
from modelkeep.ports.keyholder import Holders, Keyholder
from modelkeep.ports.store import Store
from modelkeep.ports.workers import SERIAL, Workers
from modelkeep.vault.load import Reader
from modelkeep.vault.objects import (
    Numbered,
    member_names,
    opened_member,
    series_member,
    unverified_member,
)
from modelkeep.vault.snapshot import Head

KEEP_ID_BYTES = 8


class ConfigCopy(Numbered, frozen=True):
    """modelkeep.toml as it was, sealed under the root."""

    sealed: bytes


@dataclass(frozen=True, slots=True)
class Unlocked:
    """What the stores give once the keyring is open."""

    ring: OpenRing
    keys: KeepKeys
    domains: Domains
    authority: Authority
    epochs: tuple[LogEpoch, ...]

    @property
    def keep_id(self) -> str:
        """16 hex digits that name the keep."""
        return self.ring.keep_id

    def reader_of(self, stores: Sequence[Store], *, workers: Workers = SERIAL) -> Reader:
        """A reader over some stores; it changes nothing."""
        return Reader(
            stores=stores,
            domains=self.domains,
            public=self.keys.signer.public,
            workers=workers,
            may_heal=False,
        )


def created(
    stores: Sequence[Store],
    *,
    keep_id: str,
    keyholder: Keyholder,
    authority: Authority,
    config: bytes,
    entropy: Entropy,
) -> Unlocked:
    """Write a new keep's first objects into every store, the head last.

    Raises:
        UsageError: `keep.store_taken`, when a store holds another keep.
    """
    for store in stores:
        _demand_free(store, keep_id)
    body = RingBody(
        identity=entropy.random_bytes(KEY_BYTES),
        domains=(new_domain_key(DEFAULT_DOMAIN, entropy),),
        ca_key=authority.key.reveal(),
        ca_pem=authority.certificate,
    )
    ring, keyring = new_ring(keyholder, keep_id=keep_id, body=body, holders=Holders())
    keys = ring.keys
    epoch = LogEpoch(number=0, origin=origin_of(keep_id, 0), base=0, resumed="")
    form = StoreFormat(
        number=0, format=FORMAT, keep_id=keep_id, minimum_reader="0.1.0", required=FEATURES
    )
    members = [
        series_member("format", form, signer=keys.signer),
        keyring,
        series_member("log", epoch, signer=keys.signer),
        series_member("config", config_copy(keys, 0, config, entropy), signer=keys.signer),
        series_member("head", Head(number=0, keep_id=keep_id, snapshot=""), signer=keys.signer),
    ]
    for name, raw in members:
        for store in stores:
            store.put(name, raw)
    return Unlocked(
        ring=ring, keys=keys, domains=ring.domains, authority=authority, epochs=(epoch,)
    )


def unlocked(stores: Sequence[Store], keyholder: Keyholder, *, keep_id: str = "") -> Unlocked:
    """Have the keyring opened, then verify format and logs under it.

    Stores that are damaged or missing are passed over.

    Args:
        keep_id: whose keyring it must be, where that is known.

    Raises:
        RefusedError: `keys.passphrase`, `keys.no_holder` or `keys.superseded`.
        MissingError: `keep.none`, when no store holds a keep.
    """
    ring = opened_ring(stores, keyholder, keep_id=keep_id)
    keys = ring.keys
    public = keys.signer.public
    form = latest_of(StoreFormat, stores, "format", public=public)
    unknown = sorted(set(form.required) - set(FEATURES))
    if form.format != FORMAT or form.keep_id != ring.keep_id or unknown:
        raise IntegrityError(
            "keep.format",
            f"this store has format {form.format} and needs {unknown or 'nothing'}",
            hint=f"use modelkeep {form.minimum_reader} or newer",
        )
    return Unlocked(
        ring=ring,
        keys=keys,
        domains=ring.domains,
        authority=Authority(key=Secret(ring.body.ca_key), certificate=ring.body.ca_pem),
        epochs=_epochs(stores, public),
    )


def new_domain_key(name: str, entropy: Entropy) -> DomainKey:
    """A random key for a domain, under an id of its own."""
    key_id = entropy.random_bytes(KEY_ID_BYTES).hex()
    return DomainKey(name=name, key_id=key_id, key=entropy.random_bytes(KEY_BYTES))


def abandoned(store: Store, keep_id: str) -> None:
    """Remove what an initialisation that was cut short left in a store; another keep stays."""
    if keep_id and _holder(store) == keep_id:
        if any(series_number(name) > 0 for name in member_names(store, "head")):
            raise UsageError(
                "keep.store_taken",
                f"{store.label} holds commits of the keep {keep_id}: it is not begun anew",
                hint="`modelkeep recover` brings it back",
            )
        for stat in list(store.list("")):
            store.delete(stat.name)


def config_copy(keys: KeepKeys, number: int, config: bytes, entropy: Entropy) -> ConfigCopy:
    """Seal a copy of modelkeep.toml for the stores."""
    salt = entropy.random_bytes(SALT_BYTES)
    return ConfigCopy(
        number=number, sealed=sealed_blob(keys.config, config, purpose="config", salt=salt)
    )


def config_of(stores: Sequence[Store], keys: KeepKeys) -> tuple[int, bytes]:
    """The newest verified copy of modelkeep.toml in the stores, with its number."""
    copy = latest_of(ConfigCopy, stores, "config", public=keys.signer.public)
    return copy.number, opened_blob(keys.config, copy.sealed, purpose="config")


def origin_of(keep_id: str, number: int) -> str:
    """The origin of a keep's log: unique per keep and per recovery."""
    return f"modelkeep.invalid/{keep_id}/{number}"


def _epochs(stores: Sequence[Store], public: bytes) -> tuple[LogEpoch, ...]:
    """All logs in order; each is taken from the first store that has it whole."""
    newest = latest_of(LogEpoch, stores, "log", public=public)
    found: dict[int, LogEpoch] = {newest.number: newest}
    for store in stores:
        for name in _members(store, "log"):
            try:
                epoch = opened_member(LogEpoch, name, store.get(name), kind="log", public=public)
            except (IntegrityError, MissingError, UnavailableError):
                continue
            found.setdefault(epoch.number, epoch)
    if sorted(found) != list(range(newest.number + 1)):
        raise IntegrityError("keep.logs", "an earlier log of this keep is missing in every store")
    return tuple(found[number] for number in sorted(found))


def _members(store: Store, kind: str) -> list[str]:
    """Names of a series' members; none of a store that does not answer."""
    try:
        return member_names(store, kind)
    except UnavailableError:
        return []


def _demand_free(store: Store, keep_id: str) -> None:
    holder = _holder(store)
    if holder not in ("", keep_id):
        raise UsageError(
            "keep.store_taken",
            f"{store.label} already holds the keep {holder}",
            hint="name an empty folder, or `modelkeep recover` from this one",
            store=store.label,
        )


def _holder(store: Store) -> str:
    names = member_names(store, "format")
    if not names:
        return "" if next(iter(store.list("")), None) is None else "unknown"
    try:
        return unverified_member(StoreFormat, names[-1], store.get(names[-1])).keep_id
    except IntegrityError:
        return "unknown"
