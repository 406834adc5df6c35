"""Recovery and its rehearsal: from one surviving store to the first correct answer, measured.

unlock -> verify the log -> copy, each object proven -> new log -> State replayed -> serve ->
probe through the real gateway -> stopwatch -> ledger
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from modelkeep.adapters.locks import held
from modelkeep.core.artifact import CanaryTensor, Manifest, parsed_reference
from modelkeep.core.errors import IntegrityError, KeepError, UsageError
from modelkeep.core.instant import NS_PER_S, rfc3339
from modelkeep.core.policy import Output
from modelkeep.core.record import Record, replaced, to_json
from modelkeep.core.rows import Alias
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import Signer
from modelkeep.drill.measure import Measure, assessed, measured
from modelkeep.drill.settings import ObjectiveSettings
from modelkeep.drill.stopwatch import Lap, Stopwatch
from modelkeep.flows.recover import (
    Survived,
)
from modelkeep.flows.registry import reference_to, set_alias
from modelkeep.flows.tokens import probe_token
from modelkeep.gate.disclosure import limited
from modelkeep.kernels.arrays import NUMPY_BY_DTYPE, Array
from modelkeep.kernels.digest import digest_of
from modelkeep.kernels.wire import FLOAT_DTYPES, array_of, tensor_of
from modelkeep.opening import RECOVERY
from modelkeep.ports.keyholder import PASSPHRASE, Means
from modelkeep.sdk.client import Client
from modelkeep.sdk.keep import Keep
from modelkeep.sdk.restoration import (
    Plan,
    Restored,
    demand_apart,
    demand_free,
    restored_folder,
    source_of,
)
from modelkeep.sdk.service import Service
from modelkeep.wiring import LEDGER_WAIT_S, KeepFolder

PROBE_S = 600
DRILL_CONTEXT = "drill"


class Probe(Record, frozen=True):
    """One call through the real gateway.

    Attributes:
        is_proven: whether the answer was compared with the model's canary; without a canary it
            could only be seen that the model answers.
    """

    model: str
    is_proven: bool


class DrillResult(Record, frozen=True):
    """What a recovery or its rehearsal came to; its exact JSON is signed into the ledger.

    Attributes:
        entries: ledger entries that survived.
        damaged: objects of the surviving store that could not be copied.
        lost: models that were admitted after the last backup, and aliases that had to move.
        missed: objectives that were missed, models that are lost, objects that are damaged; empty
            when all came back in time.
    """

    kind: str
    keep_id: str
    at: str
    source: str
    measure: Measure
    objectives: ObjectiveSettings
    missed: tuple[str, ...]
    laps: tuple[Lap, ...]
    probes: tuple[Probe, ...]
    objects: int
    size_bytes: int
    entries: int
    damaged: tuple[str, ...]
    lost: tuple[str, ...]


def recovered(
    plan: Plan, *, told: Callable[[Lap], None] = lambda _: None
) -> tuple[DrillResult, Service]:
    """Bring a keep back and prove it; the service runs on when this returns.

    Args:
        told: called after each step.

    Raises:
        UsageError: `recover.inside`, `recover.exists` or `recover.taken`, when the target is not
            free; nothing in it is touched.
        IntegrityError: when the store is damaged beyond use, or lacks what was expected, or an
            answer is wrong.
        UnavailableError: `lock.held`, when something still runs in the target.
    """
    with ExitStack() as stack:
        return _recovered(plan, told, stack)


def _recovered(
    plan: Plan, told: Callable[[Lap], None], stack: ExitStack
) -> tuple[DrillResult, Service]:
    folder = KeepFolder(plan.target)
    clock = folder.world.clock
    watch = Stopwatch(clock)
    started_ns = clock.now_ns()

    def lap(name: str) -> float:
        at_s = watch.lap(name)
        told(watch.laps()[-1])
        return at_s

    demand_free(plan, folder)
    restored = restored_folder(plan, folder, lap)
    stack.enter_context(
        held(folder.recovery_lock, wait_s=LEDGER_WAIT_S, what="another recovery runs here")
    )
    if plan.successor is not None:
        with Keep(plan.target, means=plan.means, actor=RECOVERY) as keep:
            keep.keys.rotate(source=source_of(plan), passphrase=plan.successor.passphrase)
        plan = replace(plan, means=plan.successor)
        lap("root given to a new holder")
    with Keep(plan.target, means=plan.means, actor=RECOVERY) as keep:
        last_ns = _current_ns(keep, plan, restored.was, started_ns)
        if restored.lost:  # all since the first commit that did not come over is lost
            last_ns = min(last_ns, restored.lost_ns)
        moved = _moved_aliases(keep)
        probe_id, key = probe_token(keep.opened, expires_ns=clock.now_ns() + PROBE_S * NS_PER_S)
        manifests = {
            f"{each.name}:{each.version}": keep.manifest(f"{each.name}:{each.version}")
            for each in keep.models()
        }
        lap("state replayed")
        with _usable_all_the_same(folder):
            service = keep.serve()
    try:
        lap("service started")
        with _usable_all_the_same(folder):
            probes = _probed(service, folder, key, manifests)
        rto_s = lap("first correct answer")
        measure = measured(
            rto_s=rto_s,
            checkpoint_ns=last_ns,
            disaster_ns=plan.disaster_ns or started_ns,
            is_fresh=restored.was.is_expected,
        )
        result = _result(
            plan, restored, measure, probes=probes, laps=watch.laps(), at=rfc3339(started_ns)
        )
        result = replaced(result, lost=(*restored.lost, *moved))
        with Keep(plan.target, means=plan.means, actor=RECOVERY) as keep:
            keep.access.revoke_token(probe_id)
            keep.record_drill(result_facts(result, keep.opened.keys.signer))
        folder.world.disk.unlink(folder.pending_file)
        folder.world.disk.sync_folder(folder.path)
    except BaseException:
        service.stop()
        raise
    return result, service


def drilled(
    keep: Keep,
    *,
    store: str = "",
    means: Means | None = None,
    told: Callable[[Lap], None] = lambda _: None,
) -> DrillResult:
    """Rehearse a recovery from a backup in a folder that is thrown away.

    Args:
        store: label of the store to recover from; empty: the second one.
        means: shares or an escrow key, to rehearse that the key source is lost too.

    Raises:
        UsageError: `drill.store`, when the keep has no other store, or none of this label;
            `recover.inside`, when one lies in the folder that is thrown away.
    """
    if len(keep.config.stores) < 2:
        raise UsageError(
            "drill.store",
            "there is no second store to recover from",
            hint="add a [[stores]] table to modelkeep.toml and run `modelkeep backup`",
        )
    source = next((each for each in keep.config.stores[1:] if store in ("", each.label)), None)
    if source is None:
        raise UsageError(
            "drill.store",
            f"there is no backup in a store labelled {store!r}",
            hint=f"there are {', '.join(each.label for each in keep.config.stores[1:])}",
        )
    target = keep.folder.path / "drill"
    for each in keep.config.stores:
        if each.path:
            demand_apart(keep.folder.store_path(each), target)
    shutil.rmtree(target, ignore_errors=True)
    plan = Plan(
        target=target,
        source=source if source.url else keep.folder.store_path(source).resolve(),
        means=means or replace(keep.means, source=keep.means.source or keep.config.keys.source),
        successor=_throwaway(keep) if means is not None else None,
        port=0,
        is_rehearsal=True,
        # Without the entry that says that this drill opened the keep: it is published at the end.
        entries=keep.opened.state.applied().entries - 1,
    )
    try:
        result, service = recovered(plan, told=told)
        service.stop()
    finally:
        shutil.rmtree(target, ignore_errors=True)
    keep.record_drill(result_facts(result, keep.opened.keys.signer))
    return result


def _throwaway(keep: Keep) -> Means:
    """What holds the root of a rehearsal: a passphrase that nobody learns."""
    return Means(
        source=PASSPHRASE, passphrase=Secret(keep.opened.entropy.random_bytes(32).hex().encode())
    )


def result_facts(result: DrillResult, signer: Signer) -> dict[str, str | float | bool]:
    """The ledger entry of a result: its exact JSON, signed, and what people look for."""
    raw = to_json(result)
    return {
        "kind": result.kind,
        "rto_s": result.measure.rto_s,
        "rpo_s": result.measure.rpo_s,
        "met": not result.missed,
        "freshness": result.measure.freshness,
        "digest": digest_of(raw),
        "result": raw.decode(),
        "signature": signer.sign(raw, context=DRILL_CONTEXT).hex(),
    }


def _current_ns(keep: Keep, plan: Plan, was: Survived, started_ns: int) -> int:
    """Up to when the surviving store is known to have held everything."""
    if plan.is_rehearsal and was.entries >= plan.entries:
        return started_ns  # it holds all that the rehearsed keep holds
    last_ns = next((entry.at_ns for _, entry in keep.ledger.entries(max(was.entries - 1, 0))), 0)
    return max(last_ns, was.current_ns)


def _moved_aliases(keep: Keep) -> tuple[str, ...]:
    """Point aliases of versions that were lost at the latest version that survived."""
    survived_versions: dict[str, list[int]] = {}
    for each in keep.models():
        survived_versions.setdefault(each.name, []).append(each.version)
    moved = []
    for row in keep.opened.state.rows(Alias):
        versions = survived_versions.get(row.model, [])
        if versions and row.version not in versions:
            name = f"{row.model}:{row.alias}"
            set_alias(keep.opened, reference_to(row.model, max(versions)), row.alias)
            moved.append(f"{name} was version {row.version} and is {max(versions)} now")
    return tuple(moved)


@contextmanager
def _usable_all_the_same(folder: KeepFolder) -> Iterator[None]:
    """Whatever fails from here on: the keep is back already, and the operator is told so."""
    try:
        yield
    except KeepError as error:
        next_step = (
            f"the keep is written and opens: correct what is wrong in {folder.config_path} and run "
            f"`modelkeep --keep {folder.path} serve`; the same `recover` again begins anew"
        )
        error.hint = f"{error.hint}; {next_step}" if error.hint else next_step
        raise


def _probed(
    service: Service, folder: KeepFolder, key: Secret, manifests: dict[str, Manifest]
) -> tuple[Probe, ...]:
    with Client(
        server=service.url,
        api_key=key.reveal().decode(),
        ca=folder.ca_pem_path,
        fingerprint=service.fingerprint,
    ) as client:
        return tuple(_probe(client, name, manifests[name]) for name in service.models)


def _probe(client: Client, name: str, manifest: Manifest) -> Probe:
    """Call a model with its canary; the answer must be the one that was admitted with it.

    Of both, what the model's policy lets out is compared.

    Raises:
        IntegrityError: `recover.answer`.
    """
    model = client.load_model(str(parsed_reference(name)))
    canary = manifest.canary
    if canary is None:
        model.predict(_zeros(manifest))
        return Probe(model=name, is_proven=False)
    got = model.predict({each.name: _array(each) for each in canary.inputs})
    for each in canary.outputs:
        answer = got.get(each.name)
        wanted = _disclosed(manifest, each)
        if (
            answer is None
            or answer.shape != wanted.shape
            or not np.allclose(
                answer, wanted, rtol=0, atol=canary.tolerance + _step(manifest, each)
            )
        ):
            raise IntegrityError(
                "recover.answer", f"{name} answers its canary call wrongly ({each.name})"
            )
    return Probe(model=name, is_proven=True)


def _disclosed(manifest: Manifest, output: CanaryTensor) -> Array:
    """What may leave of an output that was admitted with a model."""
    ports = manifest.schema.outputs if manifest.schema is not None else ()
    (port,) = (each for each in ports if each.name == output.name)
    tensor = tensor_of(output.name, output.dtype, _array(output))
    return array_of(limited(tensor, port, manifest.policy))


def _step(manifest: Manifest, output: CanaryTensor) -> float:
    """How far two numbers that are nearly the same may be apart once both are rounded."""
    is_rounded = manifest.policy.output is Output.ROUNDED and output.dtype in FLOAT_DTYPES
    return 10.0**-manifest.policy.decimals if is_rounded else 0.0


def _array(tensor: CanaryTensor) -> Array:
    return np.array(tensor.values, NUMPY_BY_DTYPE[tensor.dtype]).reshape(tensor.shape)


def _zeros(manifest: Manifest) -> dict[str, Array]:
    if manifest.schema is None:
        raise AssertionError("a served model has a schema")
    return {
        port.name: np.zeros([max(n, 1) for n in port.shape], NUMPY_BY_DTYPE[port.dtype])
        for port in manifest.schema.inputs
    }


def _result(
    plan: Plan,
    restored: Restored,
    measure: Measure,
    *,
    probes: tuple[Probe, ...],
    laps: tuple[Lap, ...],
    at: str,
) -> DrillResult:
    objectives = restored.config.objectives
    return DrillResult(
        kind=("drill" if plan.is_rehearsal else "recovery")
        + (" with lost keys" if plan.successor is not None else ""),
        keep_id=restored.config.keep_id,
        at=at,
        source=plan.source.name if isinstance(plan.source, Path) else plan.source.label,
        measure=measure,
        objectives=objectives,
        missed=(
            *(finding.evidence for finding in assessed(measure, objectives)),
            *(f"{name} was admitted after the last backup and is lost" for name in restored.lost),
            *(f"damaged in the surviving store: {name}" for name in restored.damaged),
        ),
        laps=laps,
        probes=probes,
        objects=restored.objects,
        size_bytes=restored.size_bytes,
        entries=restored.was.entries,
        damaged=restored.damaged,
        lost=restored.lost,
    )
