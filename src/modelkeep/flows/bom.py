"""The ML-BOM of a version: its manifest and those of what it was made from, all verified."""

from __future__ import annotations

from modelkeep.core.artifact import Manifest, ModelReference
from modelkeep.flows.keep import OpenKeep, current_snapshot, record_damages
from modelkeep.flows.lineage import exact
from modelkeep.flows.registry import proof_of, resolved
from modelkeep.seal.bom import Ancestor, bom_of
from modelkeep.vault.load import Reader
from modelkeep.vault.snapshot import Snapshot

# How far back a lineage is told: past it, what is listed last says what it was made from.
ANCESTORS_MAX = 100


def bom(keep: OpenKeep, reference: ModelReference, *, spec: str) -> bytes:
    """The CycloneDX document of a version; nothing but manifests is read.

    Raises:
        MissingError: `model.unknown` or `model.alias`.
    """
    reader = keep.reader()
    try:
        snapshot = current_snapshot(keep, reader)
        version = resolved(reference, snapshot, keep.state)
        proof = proof_of(keep, reader, snapshot, name=reference.name, version=version)
        ancestors = _ancestors(keep, reader, snapshot, proof.manifest)
        return bom_of(proof.manifest, proof.digest, ancestors, spec=spec)
    finally:
        record_damages(keep, reader.damages)


def _ancestors(
    keep: OpenKeep, reader: Reader, snapshot: Snapshot, manifest: Manifest
) -> tuple[Ancestor, ...]:
    """What a version was made from, the nearest first.

    The last one may be known by its reference only: the keep never had it, or has removed it, or
    it was named by an alias, which says nothing of what it meant then.
    """
    found: list[Ancestor] = []
    held = {(each.name, each.version) for each in snapshot.artifacts}
    held.discard((manifest.name, manifest.version))
    base = manifest.base
    while base and len(found) < ANCESTORS_MAX:
        key = exact(base)
        if key is None or key not in held:
            found.append(Ancestor(base))
            break
        held.discard(key)
        name, version = key
        proof = proof_of(keep, reader, snapshot, name=name, version=version)
        found.append(Ancestor(base, proof.manifest, proof.digest))
        base = proof.manifest.base
    return tuple(found)
