"""The keys of a keep: what is derived from its identity, and what from each domain's key.

    KeySource (key-encryption key) -> root -> the keyring's key
    keyring: identity -> purposes of the keep
             domain keys, each random -> purposes of that domain

Nothing is derived from the root but the key that seals the keyring, so a new root costs one small
object. Domain keys are random, not derived, so that destroying one shreds its domain.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from modelkeep.core.errors import MissingError
from modelkeep.core.names import key_id_of
from modelkeep.crypto.kdf import derived_key
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import Signer

# What the keep itself seals (snapshots, which list every domain) stands under this key id.
KEY_ID_BYTES = 8
KEEP_KEY_ID = "0" * 2 * KEY_ID_BYTES


@dataclass(frozen=True, slots=True)
class DomainKeys:
    """What one domain key gives.

    Attributes:
        name: of the domain; empty for the keep's own key.
        key_id: 16 hex digits, new with every key; the prefix of all that is under it.
        chunk_ids: keys the BLAKE3 ids of chunks.
        packs: parent of the key of each pack.
        blobs: encrypts indexes, recipes, envelopes and snapshots.
        columns: parent of the keys of encrypted database columns.
        is_retiring: whether a newer key of the domain has taken over; this one still reads.
    """

    name: str
    key_id: str
    chunk_ids: Secret
    packs: Secret
    blobs: Secret
    columns: Secret
    is_retiring: bool = False


@dataclass(frozen=True, slots=True)
class KeepKeys:
    """What the identity gives.

    Attributes:
        signer: signs heads, packs, indexes, manifests and series.
        ledger_seed: 32-byte Ed25519 seed of the ledger's checkpoint key.
        ledger_body: encrypts the bodies of ledger entries.
        config: encrypts the copies of modelkeep.toml in the stores.
        commitments: keys the commitments in call records.
        oms: seed of the elliptic-curve key that signs models in the form of OMS.
        load_proofs: keys what a host remembers of the models that it has proven.
        own: seals what belongs to no domain.
    """

    signer: Signer
    ledger_seed: Secret
    ledger_body: Secret
    config: Secret
    commitments: Secret
    oms: Secret
    load_proofs: Secret
    own: DomainKeys


class Domains:
    """The keys of every domain that this keep can read; immutable."""

    __slots__ = ("_by_id",)

    def __init__(self, keys: Iterable[DomainKeys]) -> None:
        self._by_id = {each.key_id: each for each in keys}

    def holds(self, object_name: str) -> bool:
        """Whether the key of a content-named object is there."""
        return key_id_of(object_name) in self._by_id

    def of(self, object_name: str) -> DomainKeys:
        """The keys of a content-named object.

        Raises:
            MissingError: `keys.destroyed`.
        """
        found = self._by_id.get(key_id_of(object_name))
        if found is None:
            raise MissingError(
                "keys.destroyed",
                f"{object_name} is encrypted under a key that was destroyed",
                hint="nobody can read it; `modelkeep backup` removes what is left of it",
                object=object_name,
            )
        return found

    def named(self, name: str) -> DomainKeys:
        """The keys that a domain writes with.

        Raises:
            MissingError: `keys.domain`.
        """
        for each in self._by_id.values():
            if each.name == name and name and not each.is_retiring:
                return each
        raise MissingError(
            "keys.domain",
            f"there is no domain {name[:80]!r}",
            hint="`modelkeep keys list` shows them, `modelkeep keys new NAME` makes one",
        )

    def all_of(self, name: str) -> tuple[DomainKeys, ...]:
        """Every key of a domain: the one it writes with, and one that is retiring."""
        return tuple(each for each in self._by_id.values() if each.name == name and name)

    def names(self) -> tuple[str, ...]:
        """Names of all domains, sorted."""
        return tuple(sorted({each.name for each in self._by_id.values() if each.name}))


def keep_keys(identity: Secret) -> KeepKeys:
    """Derive everything that hangs on the keep's identity."""
    return KeepKeys(
        signer=Signer(derived_key(identity, "keep/sign")),
        ledger_seed=derived_key(identity, "keep/ledger-sign"),
        ledger_body=derived_key(identity, "keep/ledger-body"),
        config=derived_key(identity, "keep/config"),
        commitments=derived_key(identity, "keep/call-commitments"),
        oms=derived_key(identity, "keep/oms-sign"),
        load_proofs=derived_key(identity, "keep/load-proofs"),
        own=domain_keys("", KEEP_KEY_ID, derived_key(identity, "keep/own")),
    )


def domain_keys(name: str, key_id: str, key: Secret, *, is_retiring: bool = False) -> DomainKeys:
    """Derive everything that hangs on one domain key."""
    return DomainKeys(
        name=name,
        key_id=key_id,
        chunk_ids=derived_key(key, f"domain/{name}/chunk-ids"),
        packs=derived_key(key, f"domain/{name}/packs"),
        blobs=derived_key(key, f"domain/{name}/blobs"),
        columns=derived_key(key, f"domain/{name}/columns"),
        is_retiring=is_retiring,
    )
