"""Admission: scan -> verdict -> manifest -> sign -> seal -> store -> ledger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from modelkeep.core.artifact import Canary, FileEntry, Manifest, Schema, checked_model_name
from modelkeep.core.entry import Entry
from modelkeep.core.errors import IntegrityError, MissingError, UnavailableError, UsageError
from modelkeep.core.record import to_msgpack
from modelkeep.core.verdict import Decision, Finding, Verdict, demand_allowed, judged
from modelkeep.flows.canary import demand_canary
from modelkeep.flows.keep import OpenKeep, current_head, record, record_damages, replay
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
        canary: a call whose right answer is known, where the owner has one.
        base: reference of the version it was made from, for the lineage.
    """

    name: str
    file_name: str
    raw: memoryview
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
    latest = _latest(keep, reader, snapshot, candidate.name)
    if latest is not None and entry.digest in [file.digest for file in latest.manifest.files]:
        return _outcome(latest.manifest, latest.digest, verdict, is_new=False)
    manifest = Manifest(
        name=candidate.name,
        version=next_version(snapshot, candidate.name),
        kind=kind,
        domain=keep.domain.name,
        admitted_ns=keep.clock.now_ns(),
        files=(entry,),
        schema=schema,
        canary=candidate.canary,
        base=candidate.base,
        note=candidate.note,
    )
    before = _Before(head=head.number, name=head.snapshot, snapshot=snapshot)
    writer = Writer(
        store=keep.store,
        domain=keep.domain,
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
    digest = _commit(keep, writer, before=before, manifest=manifest, wrote=wrote)
    record_damages(keep, reader.damages)
    return _outcome(manifest, digest, verdict, is_new=True)


def schema_of(raw: memoryview, kind: str) -> Schema | None:
    """What a model takes and gives, where its format says so."""
    if kind != "onnx":
        return None
    layout = onnx_layout(raw)
    return Schema(inputs=layout.inputs, outputs=layout.outputs)


@dataclass(frozen=True, slots=True)
class _Before:
    """What counted before this commit: number of the head, name and content of its snapshot."""

    head: int
    name: str
    snapshot: Snapshot


def _commit(
    keep: OpenKeep, writer: Writer, *, before: _Before, manifest: Manifest, wrote: Stored
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
        parent=before.name,
        artifacts=(*before.snapshot.artifacts, artifact),
        retired=before.snapshot.retired,
        indexes=(*before.snapshot.indexes, *filter(None, [wrote.index])),
    )
    name = put_sealed(writer, "snapshot", to_msgpack(after))
    digest = digest_of(envelope.manifest)
    _record_commit(keep, before.head + 1, name, manifest, digest)
    return digest


def _record_commit(
    keep: OpenKeep, head: int, snapshot: str, manifest: Manifest, digest: str
) -> None:
    """The point of no return: once this is durable the commit has happened."""
    at_ns = keep.clock.now_ns()
    keep.recorder.record(
        [
            Entry(
                kind="model.admitted",
                at_ns=at_ns,
                actor=keep.actor,
                facts={
                    "model": manifest.name,
                    "version": manifest.version,
                    "manifest": digest,
                    "size_bytes": manifest.files[0].size_bytes,
                },
            ),
            Entry(
                kind="vault.committed",
                at_ns=at_ns,
                actor=keep.actor,
                facts={"head": head, "snapshot": snapshot},
            ),
        ]
    )
    replay(keep)
    if keep.state.applied().snapshot != snapshot:
        # A request of an earlier command that had given up was recorded first after all.
        raise UnavailableError(
            "vault.conflict",
            f"another commit took head {head} first; this one does not count",
            hint="run the same command again",
        )


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
