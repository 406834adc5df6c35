"""The keys of a keep: what is derived from its root, and what from a domain's key.

    KeySource (key-encryption key) -> root -> purposes of the keep, and the key of the keyring
    keyring (random domain keys, wrapped under the root) -> purposes of a domain

Domain keys are random and wrapped, not derived, so that destroying one shreds its domain.
"""

from __future__ import annotations

from dataclasses import dataclass

from modelkeep.crypto.kdf import derived_key
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import Signer


@dataclass(frozen=True, slots=True)
class KeepKeys:
    """What the root gives.

    Attributes:
        signer: signs heads, packs, indexes, manifests and series.
        ledger_seed: 32-byte Ed25519 seed of the ledger's checkpoint key.
        ledger_body: encrypts the bodies of ledger entries.
        keyring: encrypts the keyring.
        config: encrypts the copies of modelkeep.toml in the stores.
        commitments: keys the commitments in call records.
    """

    signer: Signer
    ledger_seed: Secret
    ledger_body: Secret
    keyring: Secret
    config: Secret
    commitments: Secret


@dataclass(frozen=True, slots=True)
class DomainKeys:
    """What a domain's key gives.

    Attributes:
        chunk_ids: keys the BLAKE3 ids of chunks.
        packs: parent of the key of each pack.
        blobs: encrypts indexes, recipes, envelopes and snapshots.
    """

    name: str
    chunk_ids: Secret
    packs: Secret
    blobs: Secret


def keep_keys(root: Secret) -> KeepKeys:
    """Derive everything that hangs directly on the root."""
    return KeepKeys(
        signer=Signer(derived_key(root, "keep/sign")),
        ledger_seed=derived_key(root, "keep/ledger-sign"),
        ledger_body=derived_key(root, "keep/ledger-body"),
        keyring=derived_key(root, "keep/keyring"),
        config=derived_key(root, "keep/config"),
        commitments=derived_key(root, "keep/call-commitments"),
    )


def domain_keys(name: str, key: Secret) -> DomainKeys:
    """Derive everything that hangs on one domain's key."""
    return DomainKeys(
        name=name,
        chunk_ids=derived_key(key, f"domain/{name}/chunk-ids"),
        packs=derived_key(key, f"domain/{name}/packs"),
        blobs=derived_key(key, f"domain/{name}/blobs"),
    )
