"""Recovery and its rehearsal: from one surviving store to the first correct answer, measured.

unlock -> verify the log -> copy, each object proven -> new log -> State replayed -> serve ->
probe through the real gateway -> stopwatch -> ledger
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from modelkeep.config import (
    Config,
    StoreSettings,
    new_config_text,
    parsed_config,
    with_source,
    without_state,
)
from modelkeep.core.artifact import CanaryTensor, Manifest, parsed_reference
from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.core.instant import NS_PER_S, rfc3339
from modelkeep.core.record import Record, replaced, to_json
from modelkeep.core.rows import ANY_TENANT, Alias
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import Signer
from modelkeep.drill.measure import Measure, assessed, measured
from modelkeep.drill.settings import ObjectiveSettings
from modelkeep.drill.stopwatch import Lap, Stopwatch
from modelkeep.flows.check import demand_object
from modelkeep.flows.create import Unlocked, config_of, unlocked
from modelkeep.flows.history import history
from modelkeep.flows.recover import (
    Backed,
    Survived,
    backed,
    copied,
    honoured_snapshot,
    next_epoch,
    put_epoch,
    survived,
)
from modelkeep.kernels.arrays import NUMPY_BY_DTYPE, Array
from modelkeep.kernels.digest import digest_of
from modelkeep.ledger.checkpoint import Checkpoint, verified_checkpoint
from modelkeep.ledger.log import LogReader
from modelkeep.ports.keyholder import PASSPHRASE, Means
from modelkeep.ports.store import Store
from modelkeep.sdk.client import Client
from modelkeep.sdk.keep import Keep
from modelkeep.sdk.service import Service
from modelkeep.wiring import KeepFolder, folder_store, keyholder_of, write_file

PROBE_S = 600
ACTOR = "recovery"
DRILL_CONTEXT = "drill"
# What the mark of a recovery that is under way says.
PENDING = b"recovery"


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


@dataclass(frozen=True, slots=True)
class Plan:
    """What a recovery starts from.

    Attributes:
        target: where the keep is made again.
        source: folder of the surviving store.
        means: what opens the surviving store.
        successor: what is to hold the root from then on, where shares or an escrow key opened it.
        port: to listen on instead of the configured one; None keeps that.
        expected: a signed checkpoint that must be in the history.
        disaster_ns: when it happened; 0 for the start of the recovery.
        is_rehearsal: whether the surviving store is left as it is.
        entries: of a rehearsal: how many the keep that is rehearsed holds.
    """

    target: Path
    source: Path
    means: Means
    successor: Means | None = None
    port: int | None = None
    expected: bytes | None = None
    disaster_ns: int = 0
    is_rehearsal: bool = False
    entries: int = 0


def recovered(
    plan: Plan, *, told: Callable[[Lap], None] = lambda _: None
) -> tuple[DrillResult, Service]:
    """Bring a keep back and prove it; the service runs on when this returns.

    Args:
        told: called after each step.

    Raises:
        UsageError: `recover.exists`, when the target is a keep already.
        IntegrityError: when the store is damaged beyond use, or lacks what was expected, or an
            answer is wrong.
    """
    folder = KeepFolder(plan.target)
    clock = folder.world.clock
    watch = Stopwatch(clock)
    started_ns = clock.now_ns()

    def lap(name: str) -> float:
        at_s = watch.lap(name)
        told(watch.laps()[-1])
        return at_s

    _demand_free(folder)
    restored = restored_folder(plan, folder, lap)
    if plan.successor is not None:
        with Keep(plan.target, means=plan.means, actor=ACTOR) as keep:
            keep.keys.rotate(source=_source(plan), passphrase=plan.successor.passphrase)
        plan = replace(plan, means=plan.successor)
        lap("root given to a new holder")
    with Keep(plan.target, means=plan.means, actor=ACTOR) as keep:
        last_ns = _current_ns(keep, plan, restored.was, started_ns)
        if restored.lost:  # all since the first commit that did not come over is lost
            last_ns = min(last_ns, restored.lost_ns)
        moved = _moved_aliases(keep)
        probe_id, key = keep.access.new_token(
            "recovery-probe",
            expires_ns=clock.now_ns() + PROBE_S * NS_PER_S,
            tenant=ANY_TENANT,
        )
        manifests = {
            f"{each.name}:{each.version}": keep.manifest(f"{each.name}:{each.version}")
            for each in keep.models()
        }
        lap("state replayed")
        service = keep.serve()
    try:
        lap("service started")
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
        with Keep(plan.target, means=plan.means, actor=ACTOR) as keep:
            keep.access.revoke_token(probe_id)
            keep.record_drill(result_facts(result, keep.opened.keys.signer))
        folder.world.disk.unlink(folder.pending_file)
        folder.world.disk.sync_folder(folder.path)
    except BaseException:
        service.stop()
        raise
    return result, service


def _demand_free(folder: KeepFolder) -> None:
    """Check that the target is free; what a recovery that failed left there is begun anew.

    Raises:
        UsageError: `recover.exists`, when the target is a keep.
    """
    disk = folder.world.disk
    is_ours = disk.size(folder.pending_file) is not None and disk.read(
        folder.pending_file
    ).startswith(PENDING)
    if not is_ours:
        if disk.size(folder.config_path) is not None:
            raise UsageError(
                "recover.exists",
                f"{folder.path} is a keep already; it is not replaced",
                hint="name another folder, or remove this one",
            )
        return
    stores = folder.path / "stores"
    for path, _ in disk.walk(folder.path):  # objects stay: they are proven again
        if stores not in path.parents and path != folder.pending_file:
            disk.unlink(path)


def drilled(
    keep: Keep, *, means: Means | None = None, told: Callable[[Lap], None] = lambda _: None
) -> DrillResult:
    """Rehearse a recovery from the second store in a folder that is thrown away.

    Args:
        means: shares or an escrow key, to rehearse that the key source is lost too.

    Raises:
        UsageError: `drill.store`, when the keep has one store only.
    """
    if len(keep.config.stores) < 2:
        raise UsageError(
            "drill.store",
            "there is no second store to recover from",
            hint="add a [[stores]] table to modelkeep.toml and run `modelkeep backup`",
        )
    source = keep.folder.store_path(keep.config.stores[1]).resolve()
    target = keep.folder.path / "drill"
    shutil.rmtree(target, ignore_errors=True)
    plan = Plan(
        target=target,
        source=source,
        means=means or replace(keep.means, source=keep.means.source or keep.config.keys.source),
        successor=_throwaway(keep) if means is not None else None,
        port=0,
        is_rehearsal=True,
        entries=keep.opened.state.applied().entries,
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


@dataclass(frozen=True, slots=True)
class Restored:
    """What came over from the surviving store."""

    config: Config
    was: Survived
    objects: int
    size_bytes: int
    damaged: tuple[str, ...]
    lost: tuple[str, ...]
    lost_ns: int


def restored_folder(plan: Plan, folder: KeepFolder, lap: Callable[[str], float]) -> Restored:
    """The part before any process: unlock, verify, copy, begin a new log, write the folder.

    The configuration goes last: a run that was cut short is simply run again.
    """
    disk = folder.world.disk
    survivor = folder_store(plan.source, str(plan.source), disk)
    with closing(keyholder_of(folder, plan.means)) as keyholder:
        opened = unlocked([survivor], keyholder)
    lap("root unlocked")
    raw = config_of([survivor], opened.keys)[1]
    config = parsed_config(raw, what="the stored configuration")
    text = _config_text(plan, config, raw)
    public = Signer(opened.keys.ledger_seed).public
    was = survived(
        survivor,
        opened,
        public=public,
        expected=_expected(plan.expected, opened, public),
        now_ns=folder.world.clock.now_ns(),
    )
    lap("ledger verified")
    disk.make_folder(folder.path)
    write_file(disk, folder.pending_file, PENDING)
    after = parsed_config(text, what="the recovered configuration")
    main = folder_store(folder.store_path(after.stores[0]), after.stores[0].label, disk)
    done = copied(survivor, main, verify=lambda name, raw: demand_object(opened, name, raw))
    lap("objects copied")
    had = backed(survivor, opened, (e for _, e in history(opened, [survivor], None, 0, [])))
    _begin_log(plan, opened, (was, had), survivor, main)
    write_file(disk, folder.ca_pem_path, opened.authority.certificate)
    write_file(disk, folder.config_path, text)
    return Restored(
        config=config,
        was=was,
        objects=done.objects,
        size_bytes=done.size_bytes,
        damaged=done.damaged + was.damaged,
        lost=tuple(f"{name}:{version}" for name, version in had.lost),
        lost_ns=had.lost_ns,
    )


def _begin_log(
    plan: Plan, opened: Unlocked, what: tuple[Survived, Backed], survivor: Store, main: Store
) -> None:
    """Begin a new log; one that an earlier, cut recovery began and never used is taken up."""
    newest = opened.epochs[-1]
    sizes = LogReader(survivor, newest.origin).checkpoint_sizes()
    snapshot = honoured_snapshot(survivor, opened, what[1], main)
    epoch = next_epoch(opened, *what, snapshot=snapshot, is_empty=newest.number > 0 and not sizes)
    put_epoch(main, epoch, opened)
    if not plan.is_rehearsal:
        put_epoch(survivor, epoch, opened)


def _source(plan: Plan) -> str:
    """The key source of the recovered keep: what the operator gave, never what a store names."""
    return (plan.successor or plan.means).source or PASSPHRASE


def _config_text(plan: Plan, config: Config, raw: bytes) -> bytes:
    """The recovered modelkeep.toml: as it was, but for where the store lies and the port."""
    if plan.is_rehearsal:
        return new_config_text(
            keep_id=config.keep_id,
            stores=(StoreSettings(label=config.stores[0].label, path="stores/main"),),
            host="127.0.0.1",
            port=0,
            source=_source(plan),
        ).encode()
    text = without_state(with_source(raw.decode(), _source(plan)))
    here = str(plan.source.resolve())
    others = config.stores[1:]
    if others and here not in [store.path for store in others]:
        if len(others) != 1:
            raise UsageError(
                "recover.store",
                f"none of the keep's stores lies in {here}",
                hint=f"mount it where it was: {', '.join(store.path for store in others)}",
            )
        text = text.replace(f'"{others[0].path}"', f'"{here}"')
    if plan.port is not None:
        text = re.sub(r"(?m)^(\s*port\s*=\s*)[0-9_]+", rf"\g<1>{plan.port}", text)
        if parsed_config(text.encode(), what="the new port").serve.port != plan.port:
            raise UsageError(
                "recover.port",
                "the stored modelkeep.toml sets no port that could be replaced",
                hint="recover without --port, then edit [serve] in modelkeep.toml",
            )
    return text.encode()


def _expected(raw: bytes | None, opened: Unlocked, public: bytes) -> Checkpoint | None:
    if raw is None:
        return None
    for epoch in opened.epochs:
        try:
            return verified_checkpoint(raw, origin=epoch.origin, public=public)
        except IntegrityError:
            continue
    raise IntegrityError(
        "recover.expected", "the expected checkpoint is not one of this keep's, or was changed"
    )


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
            keep.set_alias(name, max(versions))
            moved.append(f"{name} was version {row.version} and is {max(versions)} now")
    return tuple(moved)


def _probed(
    service: Service, folder: KeepFolder, key: Secret, manifests: dict[str, Manifest]
) -> tuple[Probe, ...]:
    with Client(server=service.url, api_key=key.reveal().decode(), ca=folder.ca_pem_path) as client:
        return tuple(_probe(client, name, manifests[name]) for name in service.models)


def _probe(client: Client, name: str, manifest: Manifest) -> Probe:
    """Call a model with its canary; the answer must be the one that was admitted with it.

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
        wanted = _array(each)
        if (
            answer is None
            or answer.shape != wanted.shape
            or not np.allclose(answer, wanted, rtol=0, atol=canary.tolerance)
        ):
            raise IntegrityError(
                "recover.answer", f"{name} answers its canary call wrongly ({each.name})"
            )
    return Probe(model=name, is_proven=True)


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
        source=plan.source.name,
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
