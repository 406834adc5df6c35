"""Make a keep: its root, its keyring, its first log and its first head, in every store.

Write order, each step durable before the next:
    the mark that an initialisation is under way -> format, root, keyring, log, config in every
    store -> head 0 in every store -> modelkeep.toml -> the mark is removed
A keep exists when its modelkeep.toml does. A run that was cut short before that is begun anew by
the next one, which removes what stores hold under the marked, never acknowledged, keep id.
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
    UsageError,
)
from modelkeep.core.names import series_number
from modelkeep.core.record import Record, from_msgpack, to_msgpack
from modelkeep.crypto.aead import opened_blob, sealed_blob
from modelkeep.crypto.certificates import Authority
from modelkeep.crypto.hierarchy import DomainKeys, KeepKeys, domain_keys, keep_keys
from modelkeep.crypto.kdf import KEY_BYTES, SALT_BYTES
from modelkeep.crypto.secret import Secret
from modelkeep.flows.keep import LogEpoch, latest_of
from modelkeep.ports.entropy import Entropy
from modelkeep.ports.keysource import KeySource
from modelkeep.ports.store import Store
from modelkeep.vault.objects import (
    Numbered,
    member_names,
    opened_member,
    series_member,
    unverified_member,
)
from modelkeep.vault.snapshot import Head

FORMAT = "modelkeep-store-v0"
DEFAULT_DOMAIN = "default"
KEEP_ID_BYTES = 8


class StoreFormat(Numbered, frozen=True):
    """The object `format/000000000000` of every store: what a reader must know first.

    Attributes:
        minimum_reader: oldest modelkeep that may read the store.
        required: names of features that a reader must have.
    """

    format: str
    keep_id: str
    minimum_reader: str
    required: tuple[str, ...] = ()


class Root(Numbered, frozen=True):
    """The wrapped root key.

    Attributes:
        kind: of the KeySource that wrapped it.
        wrapped: what that KeySource's `unwrap` takes.
    """

    keep_id: str
    kind: str
    wrapped: bytes


class Keyring(Numbered, frozen=True):
    """The keep's random keys, sealed under the root: a MessagePack `KeyringBody` inside."""

    sealed: bytes


class KeyringBody(Record, frozen=True):
    """Plaintext of a keyring; exists only between opening it and making Secrets of it.

    Attributes:
        domains: domain name -> 32-byte key.
        ca_key: PKCS#8 DER of the keep's certificate authority.
        ca_pem: its certificate, PEM; public.
    """

    domains: dict[str, bytes]
    ca_key: bytes
    ca_pem: bytes

    def __repr__(self) -> str:
        """Names only: keys never print."""
        return f"KeyringBody(domains={sorted(self.domains)})"


class ConfigCopy(Numbered, frozen=True):
    """modelkeep.toml as it was, sealed under the root."""

    sealed: bytes


@dataclass(frozen=True, slots=True)
class Unlocked:
    """What the stores give once the root is unwrapped."""

    keep_id: str
    keys: KeepKeys
    domain: DomainKeys
    authority: Authority
    epochs: tuple[LogEpoch, ...]


def created(
    stores: Sequence[Store],
    *,
    keep_id: str,
    source: KeySource,
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
    root = Secret(entropy.random_bytes(KEY_BYTES))
    keys = keep_keys(root)
    domain_key = entropy.random_bytes(KEY_BYTES)
    epoch = LogEpoch(number=0, origin=origin_of(keep_id, 0), base=0, resumed="")
    members = [
        series_member(kind, member, signer=keys.signer)
        for kind, member in (
            (
                "format",
                StoreFormat(number=0, format=FORMAT, keep_id=keep_id, minimum_reader="0.1.0"),
            ),
            (
                "root",
                Root(number=0, keep_id=keep_id, kind=source.kind, wrapped=source.wrap(root)),
            ),
            ("keyring", _keyring(keys, domain_key, authority, entropy)),
            ("log", epoch),
            ("config", config_copy(keys, 0, config, entropy)),
            ("head", Head(number=0, keep_id=keep_id, snapshot="")),
        )
    ]
    for name, raw in members:
        for store in stores:
            store.put(name, raw)
    return Unlocked(
        keep_id=keep_id,
        keys=keys,
        domain=domain_keys(DEFAULT_DOMAIN, Secret(domain_key)),
        authority=authority,
        epochs=(epoch,),
    )


def unlocked(stores: Sequence[Store], source: KeySource) -> Unlocked:
    """Unwrap the root from the first store that lets us, then verify everything under it.

    1. A root is unwrapped. 2. The root's own member verifies under the key it gave. 3. Format,
    keyring and logs verify. Stores that are damaged or missing are passed over.

    Raises:
        RefusedError: `keys.passphrase`.
        MissingError: `keep.none`, when no store holds a keep.
    """
    keep_id, keys = _root(stores, source)
    public = keys.signer.public
    form = latest_of(StoreFormat, stores, "format", public=public)
    if form.format != FORMAT or form.keep_id != keep_id or form.required:
        raise IntegrityError(
            "keep.format",
            f"this store has format {form.format} and needs {form.required or 'nothing'}",
            hint=f"use modelkeep {form.minimum_reader} or newer",
        )
    ring = latest_of(Keyring, stores, "keyring", public=public)
    body = from_msgpack(
        KeyringBody, opened_blob(keys.keyring, ring.sealed, purpose="keyring"), what="the keyring"
    )
    return Unlocked(
        keep_id=keep_id,
        keys=keys,
        domain=domain_keys(DEFAULT_DOMAIN, Secret(body.domains[DEFAULT_DOMAIN])),
        authority=Authority(key=Secret(body.ca_key), certificate=body.ca_pem),
        epochs=_epochs(stores, public),
    )


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


def _keyring(keys: KeepKeys, domain_key: bytes, authority: Authority, entropy: Entropy) -> Keyring:
    body = KeyringBody(
        domains={DEFAULT_DOMAIN: domain_key},
        ca_key=authority.key.reveal(),
        ca_pem=authority.certificate,
    )
    salt = entropy.random_bytes(SALT_BYTES)
    return Keyring(
        number=0,
        sealed=sealed_blob(keys.keyring, to_msgpack(body), purpose="keyring", salt=salt),
    )


def _root(stores: Sequence[Store], source: KeySource) -> tuple[str, KeepKeys]:
    failure: KeepError | None = None
    for store in stores:
        for name in _members(store, "root"):
            try:
                raw = store.get(name)
                root = unverified_member(Root, name, raw)
                keys = keep_keys(source.unwrap(root.wrapped))  # 1
                opened_member(Root, name, raw, kind="root", public=keys.signer.public)  # 2
            except (IntegrityError, MissingError, RefusedError, UnavailableError) as error:
                failure = failure or error
                continue
            return root.keep_id, keys
    if failure is not None:
        raise failure
    labels = ", ".join(store.label for store in stores)
    raise MissingError(
        "keep.none", f"no keep in {labels}", hint="name a store's folder that holds a keep"
    )


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
