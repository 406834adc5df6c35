"""Whose signature counts: the only place that makes a VerifiedManifest.

1. The signer is one of those trusted; an empty list trusts nobody.
2. The signature verifies over the exact bytes of the manifest.
3. The manifest decodes strictly and is the artifact that was asked for.
4. The files' bytes hash to the digests that the manifest lists (`demand_file`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from modelkeep.core.artifact import FileEntry, Manifest, TensorEntry
from modelkeep.core.digest import Digest
from modelkeep.core.errors import IntegrityError, MissingError, RefusedError
from modelkeep.core.record import from_json
from modelkeep.crypto.signatures import verify
from modelkeep.kernels.digest import digest_of
from modelkeep.seal.envelope import MANIFEST_CONTEXT, Envelope


@dataclass(frozen=True, slots=True)
class VerifiedManifest:
    """Proof that a trusted signer signed this manifest; made by `verified` and nowhere else."""

    manifest: Manifest
    digest: Digest
    signer: bytes


def verified(
    envelope: Envelope, *, name: str, version: int, trusted: Collection[bytes]
) -> VerifiedManifest:
    """Check an envelope against what was asked for; the numbers are those of the module.

    Raises:
        RefusedError: `seal.signer`.
        IntegrityError: `signature.bad`, `record.json` or `seal.identity`.
    """
    if envelope.signer not in trusted:  # 1
        raise RefusedError(
            "seal.signer",
            f"{name}:{version} is signed by a key that this keep does not trust",
            signer=envelope.signer.hex(),
        )
    verify(
        envelope.signature, envelope.manifest, context=MANIFEST_CONTEXT, public=envelope.signer
    )  # 2
    manifest = from_json(Manifest, envelope.manifest, what=f"the manifest of {name}:{version}")  # 3
    if (manifest.name, manifest.version, manifest.domain) != (name, version, envelope.domain):
        raise IntegrityError(
            "seal.identity",
            f"asked for {name}:{version}, found the manifest of "
            f"{manifest.name}:{manifest.version}: objects were swapped",
        )
    return VerifiedManifest(
        manifest=manifest, digest=digest_of(envelope.manifest), signer=envelope.signer
    )


def demand_file(proof: VerifiedManifest, path: str, raw: memoryview) -> FileEntry:
    """Check that bytes are the file that the manifest lists.

    Raises:
        MissingError: `seal.path`.
        IntegrityError: `seal.digest`.
    """
    entry = file_of(proof.manifest, path)
    if len(raw) != entry.size_bytes or digest_of(raw) != entry.digest:  # 4
        manifest = proof.manifest
        raise IntegrityError(
            "seal.digest",
            f"{manifest.name}:{manifest.version}: {path} is not the file that was signed",
        )
    return entry


def demand_entry(proof: VerifiedManifest, found: FileEntry) -> None:
    """Check that a file that was digested elsewhere is the one that the manifest lists.

    Raises:
        MissingError: `seal.path`.
        IntegrityError: `seal.digest`.
    """
    entry, manifest = file_of(proof.manifest, found.path), proof.manifest
    if (found.size_bytes, found.digest) != (entry.size_bytes, entry.digest):  # 4
        raise IntegrityError(
            "seal.digest",
            f"{manifest.name}:{manifest.version}: {found.path} is not the file that was signed",
        )


def file_of(manifest: Manifest, path: str) -> FileEntry:
    """Find a file in a manifest.

    Raises:
        MissingError: `seal.path`.
    """
    for entry in manifest.files:
        if entry.path == path:
            return entry
    raise MissingError("seal.path", f"{manifest.name}:{manifest.version} has no file {path}")


def tensors_at(entry: FileEntry, offset: int, length: int) -> tuple[TensorEntry, ...]:
    """The tensors whose bytes touch a range of a file."""
    return tuple(
        tensor
        for tensor in entry.tensors
        if tensor.offset < offset + length and offset < tensor.offset + tensor.length
    )
