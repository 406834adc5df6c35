"""Admission: scan -> verdict -> manifest -> sign -> seal -> store -> ledger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from modelkeep.core.artifact import Canary, FileEntry, Manifest, Schema, checked_model_name
from modelkeep.core.entry import Fact
from modelkeep.core.errors import IntegrityError, MissingError, UsageError
from modelkeep.core.record import to_msgpack
from modelkeep.core.rows import DEFAULT_DOMAIN
from modelkeep.core.verdict import Decision, Finding, Verdict, demand_allowed, judged
from modelkeep.crypto.hierarchy import DomainKeys
from modelkeep.flows.canary import demand_canary
from modelkeep.flows.commit import committed
from modelkeep.flows.keep import OpenKeep, current_head, record, record_damages
from modelkeep.flows.registry import proof_of
from modelkeep.kernels.digest import digest_of
from modelkeep.kernels.tensors import identify, onnx_layout, tensor_entries
from modelkeep.scan.rules import findings_of
from modelkeep.scan.settings import ScanSettings
from modelkeep.seal.envelope import sealed
from modelkeep.seal.trust import VerifiedManifest
from modelkeep.vault.commit import Source, Stored, Writer, put_sealed, stored
from modelkeep.vault.load import Reader
from modelkeep.vault.settings import VaultSettings
from modelkeep.vault.snapshot import ArtifactEntry, Snapshot, latest_version, next_version


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that asks to be admitted.

    Attributes:
        raw: its bytes; a memory map will do.
        domain: that it is kept in; empty for that of the version before, or `default`.
        canary: a call whose right answer is known, where the owner has one.
        base: reference of the version it was made from, for the lineage.
    """

    name: str
    file_name: str
    raw: memoryview
    domain: str = ""
    canary: Canary | None = None
    base: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Admitted:
    """What came of it: the version, and whether it is new."""

    name: str
    version: int
    digest: str
    is_new: bool
    verdict: Verdict
    schema: Schema | None


def scanned(file_name: str, raw: memoryview, settings: ScanSettings) -> Verdict:
    """Scan one file; nothing in it is executed, imported or unpickled."""
    return judged(findings_of(file_name, raw, settings))


def admitted(
    keep: OpenKeep,
    candidate: Candidate,
    *,
    vault: VaultSettings,
    scan: ScanSettings,
    progress: Callable[[int], None] = lambda _: None,
) -> Admitted:
    """Let a model in, or refuse it; either way the ledger knows.

    The same bytes under the same name as the latest version change nothing.

    Raises:
        RefusedError: `verdict.hold` or `verdict.deny`.
        UsageError: `model.name`, `admit.text` or `canary.*`.
    """
    checked_model_name(candidate.name)
    _demand_text(candidate)
    verdict = scanned(candidate.file_name, candidate.raw, scan)
    _demand(keep, candidate, verdict)
    kind = identify(candidate.raw)
    schema = schema_of(candidate.raw, kind)
    if candidate.canary is not None:
        demand_canary(candidate.canary, schema)
    entry = FileEntry(
        path=candidate.file_name,
        size_bytes=len(candidate.raw),
        digest=digest_of(candidate.raw),
        tensors=tensor_entries(candidate.file_name, candidate.raw, kind),
    )
    head = current_head(keep)
    reader = keep.reader()
    snapshot = reader.snapshot(head.snapshot)
    domain = _domain(keep, snapshot, candidate)
    latest = _latest(keep, reader, snapshot, candidate.name)
    if latest is not None and entry.digest in [file.digest for file in latest.manifest.files]:
        return _outcome(latest.manifest, latest.digest, verdict, is_new=False)
    manifest = Manifest(
        name=candidate.name,
        version=next_version(snapshot, candidate.name),
        kind=kind,
        domain=domain.name,
        admitted_ns=keep.clock.now_ns(),
        files=(entry,),
        schema=schema,
        canary=candidate.canary,
        base=candidate.base,
        note=candidate.note,
    )
    writer = Writer(
        store=keep.store,
        domain=domain,
        signer=keep.keys.signer,
        entropy=keep.entropy,
        settings=vault,
    )
    wrote = stored(
        [Source(path=entry.path, raw=candidate.raw, tensors=entry.tensors)],
        writer=writer,
        known=reader.index(snapshot),
        progress=progress,
    )
    digest = _commit(keep, writer, before=snapshot, manifest=manifest, wrote=wrote)
    record_damages(keep, reader.damages)
    return _outcome(manifest, digest, verdict, is_new=True)


def _domain(keep: OpenKeep, snapshot: Snapshot, candidate: Candidate) -> DomainKeys:
    """Where a model is kept: all of its versions in one domain.

    Raises:
        MissingError: `keys.domain`.
        UsageError: `admit.domain`.
    """
    before = {each.domain for each in snapshot.artifacts if each.name == candidate.name}
    name = candidate.domain or next(iter(before), DEFAULT_DOMAIN)
    if before and name not in before:
        raise UsageError(
            "admit.domain",
            f"{candidate.name} is kept in the domain {next(iter(before))}, not in {name}",
            hint="leave the domain out, or admit it under another name",
        )
    return keep.domains.named(name)


def schema_of(raw: memoryview, kind: str) -> Schema | None:
    """What a model takes and gives, where its format says so."""
    if kind != "onnx":
        return None
    layout = onnx_layout(raw)
    return Schema(inputs=layout.inputs, outputs=layout.outputs)


def _commit(
    keep: OpenKeep, writer: Writer, *, before: Snapshot, manifest: Manifest, wrote: Stored
) -> str:
    """Recipe -> envelope -> snapshot -> ledger entry -> head; return the manifest's digest."""
    recipe = put_sealed(writer, "recipe", to_msgpack(wrote.recipe))
    envelope = sealed(manifest, signer=keep.keys.signer)
    artifact = ArtifactEntry(
        name=manifest.name,
        version=manifest.version,
        domain=manifest.domain,
        envelope=put_sealed(writer, "envelope", to_msgpack(envelope)),
        recipe=recipe,
    )
    after = Snapshot(
        taken_ns=keep.clock.now_ns(),
        parent=keep.state.applied().snapshot,
        artifacts=(*before.artifacts, artifact),
        retired=before.retired,
        indexes=(*before.indexes, *filter(None, [wrote.index])),
    )
    digest = digest_of(envelope.manifest)
    facts: dict[str, Fact] = {
        "model": manifest.name,
        "version": manifest.version,
        "manifest": digest,
        "size_bytes": manifest.files[0].size_bytes,
        "domain": manifest.domain,
    }
    committed(keep, after, ("model.admitted", facts))
    return digest


def _demand_text(candidate: Candidate) -> None:
    """A manifest is UTF-8; what a shell hands over need not be."""
    for what, text in (("file's name", candidate.file_name), ("note", candidate.note)):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UsageError(
                "admit.text", f"the {what} is not valid UTF-8", hint="rename it, or write it anew"
            ) from error


def _demand(keep: OpenKeep, candidate: Candidate, verdict: Verdict) -> None:
    if verdict.decision is not Decision.ALLOW:
        record(
            keep,
            "model.refused",
            {
                "model": candidate.name,
                "decision": str(verdict.decision),
                "digest": digest_of(candidate.raw),
                "rules": _rules(verdict.findings),
            },
        )
    demand_allowed(verdict, subject=candidate.file_name)


def _rules(findings: Sequence[Finding]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(finding.rule for finding in findings))


def _latest(
    keep: OpenKeep, reader: Reader, snapshot: Snapshot, name: str
) -> VerifiedManifest | None:
    """The latest version's manifest, if there is one that can be read."""
    version = latest_version(snapshot, name)
    if version < 1:
        return None
    try:
        return proof_of(keep, reader, snapshot, name=name, version=version)
    except (IntegrityError, MissingError):
        return None


def _outcome(manifest: Manifest, digest: str, verdict: Verdict, *, is_new: bool) -> Admitted:
    return Admitted(
        name=manifest.name,
        version=manifest.version,
        digest=digest,
        is_new=is_new,
        verdict=verdict,
        schema=manifest.schema,
    )
