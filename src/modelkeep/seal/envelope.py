"""The envelope: the exact bytes of a manifest, its signature, and which domain seals its chunks.

The envelope is encrypted under its domain, whose key is wrapped in the keyring; what may be done
with the model is part of the manifest. For recipients outside of the keep: `seal.portable`.
"""

from __future__ import annotations

from modelkeep.core.artifact import Manifest
from modelkeep.core.record import Record, to_json
from modelkeep.crypto.signatures import Signer

MANIFEST_CONTEXT = "manifest"


class Envelope(Record, frozen=True):
    """A signed manifest.

    Attributes:
        manifest: the exact bytes that were signed (JSON of a Manifest).
        signature: Ed25519 over them.
        signer: the 32-byte public key that made it.
    """

    manifest: bytes
    signature: bytes
    signer: bytes
    domain: str


def sealed(manifest: Manifest, *, signer: Signer) -> Envelope:
    """Sign a manifest's exact bytes and put both into an envelope."""
    raw = to_json(manifest)
    return Envelope(
        manifest=raw,
        signature=signer.sign(raw, context=MANIFEST_CONTEXT),
        signer=signer.public,
        domain=manifest.domain,
    )
