"""The registry: which models the keep holds, what a reference names, and reading one back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from modelkeep.core.artifact import Manifest, ModelReference, Schema
from modelkeep.core.errors import IntegrityError, MissingError
from modelkeep.core.names import key_id_of
from modelkeep.core.record import Record, from_msgpack
from modelkeep.core.rows import Alias
from modelkeep.flows.keep import OpenKeep, current_snapshot, record, record_damages
from modelkeep.flows.standing import NOTHING_SAID, standings, status_of
from modelkeep.ports.state import State
from modelkeep.seal.envelope import Envelope
from modelkeep.seal.trust import (
    VerifiedManifest,
    file_of,
    tensors_at,
    verified,
)
from modelkeep.vault.load import Reader
from modelkeep.vault.snapshot import Recipe, Snapshot, entry_of

DEFAULT_ALIAS = "prod"


class ModelSummary(Record, frozen=True):
    """One model version, for people.

    Attributes:
        status: `live`, `deprecated`, `ended` (deprecated, and its end has come) or `expired` (its
            own policy ended).
        is_held: whether it is on hold and cannot go.
    """

    name: str
    version: int
    kind: str
    size_bytes: int
    tensors: int
    admitted_ns: int
    digest: str
    aliases: tuple[str, ...]
    schema: Schema | None
    base: str
    note: str
    status: str
    is_held: bool


@dataclass(frozen=True, slots=True)
class HeldVersion:
    """One version that the keep holds: its proven manifest, and how its files are put together.

    Attributes:
        recipe_name: of the object that holds the recipe; the digest of its bytes is in it.
        key_id: of the domain key that its chunks are under.
    """

    proof: VerifiedManifest
    recipe: Recipe
    recipe_name: str
    key_id: str


def model_summaries(keep: OpenKeep) -> tuple[ModelSummary, ...]:
    """Every model version with its aliases, ordered by name and version."""
    reader = keep.reader()
    snapshot = current_snapshot(keep, reader)
    named: dict[tuple[str, int], list[str]] = {}
    for row in keep.state.rows(Alias):
        named.setdefault((row.model, row.version), []).append(row.alias)
    said, now_ns = standings(keep), keep.clock.now_ns()
    found = []
    for entry in sorted(snapshot.artifacts, key=lambda each: (each.name, each.version)):
        proof = proof_of(keep, reader, snapshot, name=entry.name, version=entry.version)
        manifest = proof.manifest
        standing = said.get((entry.name, entry.version), NOTHING_SAID)
        found.append(
            ModelSummary(
                name=entry.name,
                version=entry.version,
                kind=manifest.kind,
                size_bytes=sum(file.size_bytes for file in manifest.files),
                tensors=sum(len(file.tensors) for file in manifest.files),
                admitted_ns=manifest.admitted_ns,
                digest=proof.digest,
                aliases=tuple(named.get((entry.name, entry.version), ())),
                schema=manifest.schema,
                base=manifest.base,
                note=manifest.note,
                status=status_of(manifest, standing, now_ns),
                is_held=standing.hold is not None,
            )
        )
    record_damages(keep, reader.damages)
    return tuple(found)


def manifest_of(keep: OpenKeep, reference: ModelReference) -> Manifest:
    """The verified manifest of the version that a reference names."""
    return signed_version(keep, reference)[0]


def signed_version(keep: OpenKeep, reference: ModelReference) -> tuple[Manifest, str]:
    """The verified manifest of the version that a reference names, and its digest."""
    reader = keep.reader()
    snapshot = current_snapshot(keep, reader)
    version = resolved(reference, snapshot, keep.state)
    proof = proof_of(keep, reader, snapshot, name=reference.name, version=version)
    record_damages(keep, reader.damages)
    return proof.manifest, proof.digest


def resolved(reference: ModelReference, snapshot: Snapshot, state: State) -> int:
    """The version that a reference names: a number, an alias, or by default `prod`, else latest.

    Raises:
        MissingError: `model.unknown` or `model.alias`.
    """
    versions = sorted(entry.version for entry in snapshot.artifacts if entry.name == reference.name)
    if not versions:
        raise MissingError(
            "model.unknown",
            f"there is no model {reference.name}",
            hint="`modelkeep models` lists what the keep holds",
        )
    aliases = {
        row.alias: row.version
        for row in state.rows(Alias)
        if row.model == reference.name and row.version in versions
    }
    if not reference.selector:
        return aliases.get(DEFAULT_ALIAS, versions[-1])
    if reference.selector in aliases:
        return aliases[reference.selector]
    if reference.selector.isdecimal() and int(reference.selector) in versions:
        return int(reference.selector)
    raise MissingError(
        "model.unknown",
        f"{reference.name} has no version or alias {reference.selector}",
        hint=f"versions: {', '.join(map(str, versions))}; aliases: {', '.join(aliases) or 'none'}",
    )


def set_alias(keep: OpenKeep, reference: ModelReference, alias: str) -> int:
    """Point an alias at a model version; return the version. Setting it again changes nothing.

    Whether that needs approval is asked by `versions.aliased`; a recovery may not wait for it.
    """
    version = resolved(reference, current_snapshot(keep), keep.state)
    named = {(row.model, row.alias): row.version for row in keep.state.rows(Alias)}
    if named.get((reference.name, alias)) != version:
        record(keep, "alias.set", {"model": reference.name, "alias": alias, "version": version})
    return version


def proof_of(
    keep: OpenKeep, reader: Reader, snapshot: Snapshot, *, name: str, version: int
) -> VerifiedManifest:
    """Read and verify one version's manifest."""
    entry = entry_of(snapshot, name, version)
    body = reader.body("envelope", entry.envelope)
    envelope = from_msgpack(Envelope, body, what=entry.envelope)
    return verified(envelope, name=name, version=version, trusted=(keep.public,))


def reference_to(name: str, version: int) -> ModelReference:
    """The reference of one version."""
    return ModelReference(name=name, selector=str(version))


def held_version(
    keep: OpenKeep, reader: Reader, snapshot: Snapshot, reference: ModelReference
) -> HeldVersion:
    """Read and verify the version that a reference names, and its recipe.

    Raises:
        MissingError: `model.unknown` or `model.alias`.
        IntegrityError: when manifest or recipe is damaged in every store, or `registry.recipe` when
            they do not list the same files.
    """
    version = resolved(reference, snapshot, keep.state)
    entry = entry_of(snapshot, reference.name, version)
    proof = proof_of(keep, reader, snapshot, name=reference.name, version=version)
    recipe = reader.recipe(entry.recipe)
    signed = {each.path: each.size_bytes for each in proof.manifest.files}
    found = {each.path: each.size_bytes for each in recipe.files}
    if found != signed or len(found) != len(recipe.files):
        raise IntegrityError(
            "registry.recipe",
            f"the recipe of {reference.name}:{version} is not of the files that were signed",
        )
    return HeldVersion(proof, recipe, entry.recipe, key_id_of(entry.recipe))


@contextmanager
def naming_tensors(manifest: Manifest) -> Iterator[None]:
    """Turn a damaged chunk into the model, version and tensors that it hits.

    Raises:
        IntegrityError: `model.damaged`.
    """
    try:
        yield
    except IntegrityError as error:
        offset, length = error.context.get("offset"), error.context.get("length")
        path = str(error.context.get("path"))
        if offset is None or length is None:
            raise
        hit = [each.name for each in tensors_at(file_of(manifest, path), offset, length)]
        what = f"tensor {', '.join(hit)}" if hit else "the model's structure"
        raise IntegrityError(
            "model.damaged",
            f"{manifest.name}:{manifest.version}: {what} is damaged in every store "
            f"({path}, bytes {offset} to {offset + length})",
            hint="another version or another copy of the store still serves; see `modelkeep check`",
            model=manifest.name,
            version=manifest.version,
            tensors=", ".join(hit),
            cause=error.context.get("cause", error.code),
        ) from error
