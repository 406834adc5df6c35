"""Publishing: which models a service shows, and each one decrypted, proven, in sealed memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from modelkeep.core.artifact import Manifest, ModelReference, Schema, parsed_reference
from modelkeep.core.errors import RefusedError, UnavailableError, UsageError
from modelkeep.core.policy import Policy, Use
from modelkeep.flows.keep import OpenKeep, current_snapshot
from modelkeep.flows.load import loaded
from modelkeep.flows.permission import demand_use
from modelkeep.flows.registry import manifest_of, resolved
from modelkeep.flows.standing import still_served


@dataclass(frozen=True, slots=True)
class Published:
    """A model that is ready for a runtime; its bytes lie in what `allocate` gave."""

    name: str
    version: int
    schema: Schema
    domain: str
    is_batchable: bool
    is_default: bool
    policy: Policy


def chosen(
    keep: OpenKeep, references: Sequence[str], *, warn: Callable[[str], None] = lambda _: None
) -> tuple[ModelReference, ...]:
    """The versions to serve, each once; without references every model's that a runtime can answer.

    What was named is not asked here whether its policy permits that: `published` refuses it.

    Args:
        warn: told of each model that is left out because its policy does not permit to serve it,
            or its deprecation has ended, and of each that is deprecated.

    Raises:
        RefusedError: `version.ended`, of a version that was named.
        UsageError: `serve.nothing`, when the keep holds no model that may be served.
        MissingError: `model.unknown`.
    """
    snapshot = current_snapshot(keep)
    wanted = [parsed_reference(text) for text in references] or [
        ModelReference(name=name)
        for name in sorted({each.name for each in snapshot.artifacts})
        if _is_offered(keep, manifest_of(keep, ModelReference(name=name)), warn)
    ]
    found = {
        (reference.name, resolved(reference, snapshot, keep.state)): None for reference in wanted
    }
    served = still_served(keep, found, is_named=bool(references), warn=warn)
    if not served:
        raise UsageError(
            "serve.nothing",
            "the keep holds no model that may be served",
            hint="`modelkeep admit FILE --name NAME` lets one in; after a recovery: nothing was "
            "backed up to the store that survived",
        )
    return tuple(ModelReference(name=name, selector=str(version)) for name, version in served)


def defaults(keep: OpenKeep, references: Sequence[ModelReference]) -> tuple[ModelReference, ...]:
    """Of each model the version that answers calls which name none: the alias, else the highest.

    Only among what is served: a version that nobody answers for is no default.
    """
    snapshot = current_snapshot(keep)
    found = {}
    for name in {each.name for each in references}:
        served = [int(each.selector) for each in references if each.name == name]
        aliased = resolved(ModelReference(name=name), snapshot, keep.state)
        found[name] = aliased if aliased in served else max(served)
    return tuple(ModelReference(name=name, selector=str(at)) for name, at in found.items())


def published(
    keep: OpenKeep,
    reference: ModelReference,
    *,
    is_default: bool,
    allocate: Callable[[int], memoryview],
) -> Published:
    """Load one version into memory and say how it may be called.

    Raises:
        UsageError: `serve.kind`, when no runtime can answer for this kind of model.
        RefusedError: `policy.*`, before a byte of it is decrypted.
        IntegrityError: `model.damaged`.
    """
    found = loaded(keep, reference, use=Use.SERVE, allocate=allocate, demand=_demand_servable)
    manifest = found.proof.manifest
    return Published(
        name=manifest.name,
        version=manifest.version,
        domain=manifest.domain,
        schema=_schema(manifest),
        is_batchable=is_batchable(_schema(manifest)),
        is_default=is_default,
        policy=manifest.policy,
    )


def _is_offered(keep: OpenKeep, manifest: Manifest, warn: Callable[[str], None]) -> bool:
    """Whether a model that nobody named is served: a runtime can, and its policy permits it."""
    if not is_servable(manifest):
        return False
    try:
        demand_use(keep, manifest, Use.SERVE)
    except (RefusedError, UnavailableError) as error:
        warn(f"{manifest.name}:{manifest.version} is not served: {error}")
        return False
    return True


def is_servable(manifest: Manifest) -> bool:
    """Whether a runtime can answer for it: one file that says what it takes and gives."""
    return manifest.schema is not None and len(manifest.files) == 1


def is_batchable(schema: Schema) -> bool:
    """Whether calls may be joined: of each input and output the first dimension only is free."""
    ports = (*schema.inputs, *schema.outputs)
    return all(port.shape[:1] == (-1,) and -1 not in port.shape[1:] for port in ports)


def _demand_servable(manifest: Manifest) -> None:
    _schema(manifest)
    if not is_servable(manifest):
        raise UsageError(
            "serve.kind",
            f"{manifest.name}:{manifest.version} is a folder of {len(manifest.files)} files: no "
            "runtime can serve one yet",
            hint="serve ONNX models of one file; folders are stored, checked and restored",
        )


def _schema(manifest: Manifest) -> Schema:
    if manifest.schema is None:
        raise UsageError(
            "serve.kind",
            f"{manifest.name}:{manifest.version} is {manifest.kind}: no runtime can serve it yet",
            hint="serve ONNX models; other formats are stored, checked and restored",
        )
    return manifest.schema
