"""Publishing: which models a service shows, and each one decrypted, proven, in sealed memory.

A model is served as `tensor` (one file, whose schema says what it takes and gives) or as `text`: a
language model, in a GGUF file or in a folder as transformers writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from modelkeep.core.artifact import (
    Canary,
    FileEntry,
    Manifest,
    ModelReference,
    Schema,
    parsed_reference,
)
from modelkeep.core.errors import RefusedError, UnavailableError, UsageError
from modelkeep.core.policy import Policy, Use
from modelkeep.core.rows import Traffic
from modelkeep.flows.keep import OpenKeep, current_snapshot
from modelkeep.flows.load import loaded
from modelkeep.flows.permission import demand_use
from modelkeep.flows.registry import manifest_of, resolved
from modelkeep.flows.standing import VersionKey, still_served
from modelkeep.gate.text_models import text_form

# Kinds of served models.
TENSOR, TEXT, UPSTREAM = "tensor", "text", "upstream"
# Of tensor models those that are programs of PyTorch: a runtime of their own answers for them.
PROGRAM = "program"
_ARCHIVES = ("zip", "torch-zip")
NOTHING = Schema(inputs=(), outputs=())


@dataclass(frozen=True, slots=True)
class Published:
    """A model that is ready for a runtime; its bytes lie in what `allocate` or `place` gave.

    Attributes:
        kind: `tensor` or `text`; a text model's schema is empty.
        canary: a call whose right answer its owner knows.
    """

    name: str
    version: int
    schema: Schema
    domain: str
    is_batchable: bool
    is_default: bool
    policy: Policy
    kind: str = TENSOR
    canary: Canary | None = None


def chosen(
    keep: OpenKeep,
    references: Sequence[str],
    *,
    kinds: Collection[str] = (TENSOR, PROGRAM),
    running: Collection[VersionKey] = (),
    warn: Callable[[str], None] = lambda _: None,
) -> tuple[ModelReference, ...]:
    """The versions to serve, each once; without references every model's that a runtime can answer.

    What was named is not asked here whether its policy permits that: `published` refuses it.

    Args:
        kinds: that this machine has a runtime for; of those that nobody named others are left out.
        running: what a service serves already, which a deprecation's end does not take from it.
        warn: told of each model that is left out because its policy does not permit to serve it,
            or its deprecation has ended, and of each that is deprecated.

    Raises:
        RefusedError: `version.ended`, of a version that was named.
        UsageError: `serve.nothing`, when the keep holds no model that may be served;
            `runtime.torch`, when one was named that is a program and `kinds` has none.
        MissingError: `model.unknown`.
    """
    snapshot = current_snapshot(keep)
    wanted = [parsed_reference(text) for text in references] or [
        ModelReference(name=name)
        for name in sorted({each.name for each in snapshot.artifacts})
        if _is_offered(keep, manifest_of(keep, ModelReference(name=name)), kinds, warn)
    ]
    found = {
        (reference.name, resolved(reference, snapshot, keep.state)): None for reference in wanted
    }
    fresh = still_served(
        keep,
        [key for key in found if key not in running],
        is_named=bool(references),
        warn=warn,
    )
    served = [key for key in found if key in running or key in fresh]
    _demand_runtimes(keep, served if references else (), kinds)
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


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be served, as of one moment.

    Attributes:
        references: each names one version by its number.
        defaults: of each model the version that answers calls which name none.
        traffic: canaries and shadows, those only whose versions are served.
        policies: of the versions, as their manifests say now.
    """

    references: tuple[ModelReference, ...]
    defaults: Mapping[str, int]
    traffic: tuple[Traffic, ...]
    policies: Mapping[tuple[str, int], Policy]


def wished(
    keep: OpenKeep,
    references: Sequence[str],
    *,
    kinds: Collection[str] = (TENSOR, PROGRAM),
    running: Collection[VersionKey] = (),
    warn: Callable[[str], None] = lambda _: None,
) -> Wish:
    """What the keep's owner wants served: what is chosen, and its canaries and shadows.

    Raises:
        RefusedError: `version.ended`, of a version that was named.
        UsageError: `serve.nothing`, when the keep holds no model that may be served.
        MissingError: `model.unknown`.
    """
    found = list(chosen(keep, references, kinds=kinds, running=running, warn=warn))
    default = {each.name: int(each.selector) for each in defaults(keep, found)}
    held = {(each.name, each.version) for each in current_snapshot(keep).artifacts}
    traffic = []
    for row in keep.state.rows(Traffic):
        if row.model not in default:
            continue
        for version in (row.canary, row.shadow):
            reference = ModelReference(name=row.model, selector=str(version))
            if version and reference not in found and (row.model, version) in held:
                found.append(reference)
        traffic.append(row)
    manifests = [manifest_of(keep, each) for each in found]
    return Wish(
        references=tuple(found),
        defaults=default,
        traffic=tuple(traffic),
        policies={(each.name, each.version): each.policy for each in manifests},
    )


def published(
    keep: OpenKeep,
    reference: ModelReference,
    *,
    is_default: bool,
    allocate: Callable[[int], memoryview],
    place: Callable[[FileEntry], memoryview] | None = None,
) -> Published:
    """Load one version into memory and say how it may be called.

    Args:
        allocate: gives memory for a tensor model.
        place: gives memory for each file that a text model needs; without it none is served.

    Raises:
        UsageError: `serve.kind`, when no runtime can answer for this kind of model.
        RefusedError: `policy.*`, before a byte of it is decrypted.
        IntegrityError: `model.damaged`.
    """
    manifest = manifest_of(keep, reference)
    is_text = place is not None and kind_of(manifest) == TEXT
    found = loaded(
        keep,
        reference,
        use=Use.SERVE,
        allocate=allocate,
        place=place if is_text else None,
        demand=_demand_text if is_text else _demand_servable,
        only=_text_files if is_text else None,
    )
    manifest = found.proof.manifest
    schema = NOTHING if is_text else _schema(manifest)
    return Published(
        name=manifest.name,
        version=manifest.version,
        domain=manifest.domain,
        schema=schema,
        is_batchable=not is_text and is_batchable(schema),
        is_default=is_default,
        policy=manifest.policy,
        kind=TEXT if is_text else TENSOR,
        canary=manifest.canary,
    )


def _is_offered(
    keep: OpenKeep, manifest: Manifest, kinds: Collection[str], warn: Callable[[str], None]
) -> bool:
    """Whether a model that nobody named is served: a runtime can, and its policy permits it."""
    kind = kind_of(manifest)
    if kind not in kinds:
        if kind == TEXT:
            why = "it is a language model; torch and transformers are not installed"
            warn(f"{manifest.name}:{manifest.version} is not served: {why}")
        return False
    if is_program(manifest) and PROGRAM not in kinds:
        warn(f"{manifest.name}:{manifest.version} is not served: {_no_torch(manifest)}")
        return False
    try:
        demand_use(keep, manifest, Use.SERVE)
    except (RefusedError, UnavailableError) as error:
        warn(f"{manifest.name}:{manifest.version} is not served: {error}")
        return False
    return True


def _demand_runtimes(
    keep: OpenKeep, served: Collection[VersionKey], kinds: Collection[str]
) -> None:
    """What was named is not left out: without its runtime nothing is served.

    Raises:
        UsageError: `runtime.torch`.
    """
    for name, version in served if PROGRAM not in kinds else ():
        manifest = manifest_of(keep, ModelReference(name=name, selector=str(version)))
        if is_program(manifest):
            raise _no_torch(manifest)


def _no_torch(manifest: Manifest) -> UsageError:
    return UsageError(
        "runtime.torch",
        f"{manifest.name}:{manifest.version} is a program of PyTorch, and torch is not installed",
        hint="`pip install torch` (any wheel of it will do, for a CPU or not), then serve again",
    )


def is_program(manifest: Manifest) -> bool:
    """Whether it is a program of PyTorch that says what it takes and gives."""
    return is_servable(manifest) and manifest.kind in _ARCHIVES


def kind_of(manifest: Manifest) -> str:
    """How a model can be served: `tensor`, `text`, or not at all (empty)."""
    if is_servable(manifest):
        return TENSOR
    return TEXT if text_form(manifest) is not None else ""


def is_servable(manifest: Manifest) -> bool:
    """Whether a runtime can answer for it: one file that says what it takes and gives."""
    return manifest.schema is not None and len(manifest.files) == 1


def is_batchable(schema: Schema) -> bool:
    """Whether calls may be joined: of each input and output the first dimension only is free."""
    ports = (*schema.inputs, *schema.outputs)
    return all(port.shape[:1] == (-1,) and -1 not in port.shape[1:] for port in ports)


def _demand_text(manifest: Manifest) -> None:
    """What was looked up before is what was proven."""
    if kind_of(manifest) != TEXT:
        raise UsageError("serve.kind", f"{manifest.name}:{manifest.version} is no language model")


def _text_files(manifest: Manifest) -> tuple[str, ...]:
    """What a replica of a language model gets; a card, a licence or another form stays sealed."""
    form = text_form(manifest)
    return form.files if form is not None else ()


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
