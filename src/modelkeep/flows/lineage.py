"""Lineage: what a version was made from, as its signed manifest says, and what was made from it.

A manifest names its base by reference; the base's own manifest names the next one. The walk ends at
a version that names none, that the keep does not hold, or that it has been to: manifests may name
what did not exist yet, so two of them can name each other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from modelkeep.core.artifact import Manifest, ModelReference, parsed_reference
from modelkeep.core.card import DataSet
from modelkeep.core.errors import MissingError, UsageError
from modelkeep.core.record import Record
from modelkeep.flows.keep import OpenKeep, current_snapshot, record_damages
from modelkeep.flows.registry import proof_of, resolved
from modelkeep.flows.standing import VersionKey
from modelkeep.seal.trust import VerifiedManifest
from modelkeep.vault.load import Reader
from modelkeep.vault.snapshot import Snapshot

HELD = ""  # where an origin is: this keep holds it
REMOVED = "removed"
UNKNOWN = "unknown"
INEXACT = "inexact"
CYCLE = "cycle"


class Origin(Record, frozen=True):
    """One version in a lineage, as its manifest says.

    Attributes:
        reference: as it is named; all else is empty where the keep does not hold it.
        gap: empty where the keep holds it; else `removed`, `unknown` (never here), `inexact` (it
            names no version by its number) or `cycle` (the lineage has been there).
        depth: steps from the version that was asked for.
        digest: of its manifest.
        base: reference of what it was made from.
        datasets: what it was trained and judged on, with `run` and `code` as its card says.
        marks: ids of the watermarks that it carries.
    """

    reference: str
    gap: str
    depth: int
    kind: str = ""
    digest: str = ""
    admitted_ns: int = 0
    base: str = ""
    datasets: tuple[DataSet, ...] = ()
    run: str = ""
    code: str = ""
    marks: tuple[str, ...] = ()
    note: str = ""


class Lineage(Record, frozen=True):
    """Where a version comes from, and what came of it.

    Attributes:
        bases: what it was made from, the nearest first.
        descendants: what was made from it, each below what it was made from.
    """

    version: Origin
    bases: tuple[Origin, ...]
    descendants: tuple[Origin, ...]


def lineage_of(keep: OpenKeep, reference: ModelReference) -> Lineage:
    """The lineage of one version, both ways; every manifest of the keep is read.

    Raises:
        MissingError: `model.unknown`.
    """
    reader = keep.reader()
    snapshot = current_snapshot(keep, reader)
    key = (reference.name, resolved(reference, snapshot, keep.state))
    proofs = proofs_of(keep, reader, snapshot)
    record_damages(keep, reader.damages)
    return Lineage(
        version=_origin(key, proofs[key], depth=0),
        bases=tuple(_bases(key, proofs, retired=set(snapshot.retired))),
        descendants=tuple(_descendants(key, proofs)),
    )


def proofs_of(
    keep: OpenKeep, reader: Reader, snapshot: Snapshot, *, names: Collection[str] = ()
) -> dict[VersionKey, VerifiedManifest]:
    """The verified manifests of all versions, or of those names only, in order."""
    return {
        (each.name, each.version): proof_of(
            keep, reader, snapshot, name=each.name, version=each.version
        )
        for each in sorted(snapshot.artifacts, key=lambda each: (each.name, each.version))
        if not names or each.name in names
    }


def bases_of(key: VersionKey, manifests: Mapping[VersionKey, Manifest]) -> Iterator[VersionKey]:
    """What a version was made from, as far as it is here, the nearest first; each once."""
    seen = {key}
    while key in manifests:
        base = exact(manifests[key].base)
        if base is None or base in seen:
            return
        seen.add(base)
        if base in manifests:
            yield base
        key = base


def exact(reference: str) -> VersionKey | None:
    """The version that a reference names by its number; None where it names it in another way."""
    try:
        parsed = parsed_reference(reference)
    except UsageError:
        return None
    selector = parsed.selector
    is_number = selector.isascii() and selector.isdecimal() and len(selector) < len(str(2**63))
    return (parsed.name, int(selector)) if is_number else None


def exact_base(keep: OpenKeep, snapshot: Snapshot, base: str) -> str:
    """A base as its number names it, now; as it was given where the keep does not hold it.

    Raises:
        UsageError: `model.reference` or `model.name`.
    """
    if not base:
        return ""
    reference = parsed_reference(base)
    try:
        return f"{reference.name}:{resolved(reference, snapshot, keep.state)}"
    except MissingError:
        return base


def _bases(
    key: VersionKey,
    proofs: Mapping[VersionKey, VerifiedManifest],
    *,
    retired: Collection[tuple[str, int]],
) -> Iterator[Origin]:
    seen = {key}
    base = proofs[key].manifest.base
    depth = 0
    while base:
        depth += 1
        named = exact(base)
        if named is None:
            yield Origin(reference=base, gap=INEXACT, depth=depth)
        elif named in seen:
            yield Origin(reference=base, gap=CYCLE, depth=depth)
        elif named not in proofs:
            yield Origin(reference=base, gap=REMOVED if named in retired else UNKNOWN, depth=depth)
        else:
            yield _origin(named, proofs[named], depth=depth)
            seen.add(named)
            base = proofs[named].manifest.base
            continue
        return


def _descendants(
    key: VersionKey, proofs: Mapping[VersionKey, VerifiedManifest]
) -> Iterator[Origin]:
    made: dict[VersionKey, list[VersionKey]] = {}
    for each, proof in proofs.items():
        base = exact(proof.manifest.base)
        if base is not None:
            made.setdefault(base, []).append(each)
    seen = {key}
    waiting = [(each, 1) for each in reversed(made.get(key, ()))]
    while waiting:
        each, depth = waiting.pop()
        if each in seen:
            continue
        seen.add(each)
        yield _origin(each, proofs[each], depth=depth)
        waiting += [(below, depth + 1) for below in reversed(made.get(each, ()))]


def _origin(key: VersionKey, proof: VerifiedManifest, *, depth: int) -> Origin:
    manifest = proof.manifest
    return Origin(
        reference=f"{key[0]}:{key[1]}",
        gap=HELD,
        depth=depth,
        kind=manifest.kind,
        digest=proof.digest,
        admitted_ns=manifest.admitted_ns,
        base=manifest.base,
        datasets=manifest.card.datasets,
        run=manifest.card.run,
        code=manifest.card.code,
        marks=manifest.marks,
        note=manifest.note,
    )
