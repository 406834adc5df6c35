"""Admission: scan -> verdict -> manifest -> sign -> seal -> store -> ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn

from modelkeep.core.artifact import (
    Manifest,
    Schema,
    checked_model_name,
)
from modelkeep.core.entry import Fact
from modelkeep.core.errors import IntegrityError, MissingError, RefusedError, UsageError
from modelkeep.core.policy import ANYTHING, Policy, demand_bounded
from modelkeep.core.record import replaced
from modelkeep.core.rows import HeldAdmission
from modelkeep.core.verdict import Finding, Verdict, demand_allowed
from modelkeep.flows.admissions import parked
from modelkeep.flows.candidate import (
    Candidate,
    JudgedCandidate,
    asking,
    closer,
    demand_text,
    scanned,
)
from modelkeep.flows.deposit import (
    Also,
    Deposited,
    Turn,
    bases_of,
    domain_for,
    entered,
    lent,
    retried,
    written,
)
from modelkeep.flows.keep import OpenKeep, current_snapshot, record, record_damages
from modelkeep.flows.lineage import exact_base
from modelkeep.flows.permission import demand_base
from modelkeep.flows.provenance import (
    Assess,
    Proof,
    card_with,
    entries_of,
    proof_of_origin,
    record_all,
    unsaid,
)
from modelkeep.flows.registry import proof_of
from modelkeep.flows.succession import policy_after, says_the_same
from modelkeep.kernels.formats import EMPTY, UNKNOWN
from modelkeep.kernels.tensors import places_of
from modelkeep.ports.scanner import Scanner
from modelkeep.ports.trial import Trial
from modelkeep.scan.admission_settings import AdmissionSettings
from modelkeep.scan.sanity_settings import for_admission
from modelkeep.scan.settings import ScanSettings
from modelkeep.seal.trust import VerifiedManifest
from modelkeep.vault.commit import Stream, Writer
from modelkeep.vault.load import Reader
from modelkeep.vault.settings import VaultSettings
from modelkeep.vault.snapshot import Recipe, Snapshot, latest_version
from modelkeep.vault.streams import streamed

# What is saved without a scan has this kind, and names of its own.
_UNSCANNED = "files"


@dataclass(frozen=True, slots=True)
class Admitted:
    """What came of it: the version, and whether it is new.

    Attributes:
        approval: id of the approval that let it in, though the verdict is hold; else empty.
        proven: what was proven of where it is from, as the ledger says it; empty for nothing.
    """

    name: str
    version: int
    digest: str
    is_new: bool
    verdict: Verdict
    schema: Schema | None
    policy: Policy = ANYTHING
    marks: tuple[str, ...] = ()
    approval: str = ""
    proven: Mapping[str, Fact] = field(default_factory=dict)


def admitted(
    turn: Turn,
    candidate: Candidate,
    *,
    vault: VaultSettings,
    scan: ScanSettings,
    scanner: Scanner,
    admission: AdmissionSettings,
    assess: Assess | None,
    trial: Trial | None,
    also: Sequence[Also] = (),
    progress: Callable[[int], None] = lambda _: None,
) -> Admitted:
    """Let a model in, or refuse it; either way the ledger knows.

    What the latest version of that name has already, and says already, changes nothing: the same
    bytes, policy, card and marks; canary, base and note where they are given. What is held waits
    for `flows.admissions.approved`; the refusal says its id.

    Args:
        scanner: looks into the files.
        admission: what must come with it.
        assess: says what is known of the packages that it wants; None: they are not looked at.
        trial: asks it its canary once it is let in so far; None: it is not asked.
        also: each gives one more entry, of a new version, for the same write to the ledger.

    Raises:
        RefusedError: `verdict.hold` or `verdict.deny`; `policy.*`, of the base.
        UsageError: `model.name`, `admit.text`, `admit.empty`, `admit.kind`, `canary.*`,
            `provenance.*` or `policy.bounds`.
        UnavailableError: from the store, or `vault.pruned`; nothing refers to what was written.
            `scan.worker.start` or `trial.start`, when there is nobody to judge or to ask.
    """
    checked_model_name(candidate.name)
    demand_text(candidate)
    if candidate.policy is not None:
        demand_bounded(candidate.policy)
    if candidate.base:
        # By its number from here on: an alias may move while this is written, and written again.
        keep = turn.opened
        candidate = replace(
            candidate, base=exact_base(keep, current_snapshot(keep), candidate.base)
        )
        demand_base(keep, candidate.base)
    if not candidate.files:
        raise UsageError(
            "admit.empty",
            f"there is no file to admit as {candidate.name}",
            hint="links are not followed: copy what they lead to (`cp -rL`) and admit that",
        )
    candidate = replace(candidate, card=card_with(candidate.card, candidate.claims.boms))

    def proof() -> Proof:
        return proof_of_origin(asking(candidate), candidate.claims, admission, assess=assess)

    looked = replaced(scan, sanity=for_admission(scan.sanity))
    seen: list[JudgedCandidate] = []  # what is written again is not scanned again
    return retried(
        lambda: _admitted(
            turn,
            candidate,
            seen,
            vault=vault,
            look=lambda keep_id: scanned(candidate, looked, scanner, keep_id, proof),
            trial=trial,
            also=also,
            progress=progress,
        )
    )


def _admitted(
    turn: Turn,
    candidate: Candidate,
    seen: list[JudgedCandidate],
    *,
    vault: VaultSettings,
    look: Callable[[str], JudgedCandidate],
    trial: Trial | None,
    also: Sequence[Also],
    progress: Callable[[int], None],
) -> Admitted:
    keep = turn.opened
    snapshot = current_snapshot(keep)
    domain = domain_for(keep, snapshot, candidate.name, candidate.domain)
    first = bases_of(keep, snapshot, candidate.name, candidate.base)
    approvals = keep.state.rows(HeldAdmission)
    done: Deposited | None = None
    with lent(turn, sum(each.size_bytes for each in candidate.files)):
        found = seen[0] if seen else look(keep.keep_id)
        seen[:] = [found]
        if found.is_let_in(approvals, now_ns=keep.clock.now_ns()):
            found = closer(candidate, found, trial)
        if found.is_let_in(approvals, now_ns=keep.clock.now_ns()):
            done = written(
                keep,
                _streams(candidate, found, keep.writer_to(keep.store, domain, vault)),
                domain=domain,
                snapshot=snapshot,
                first=first,
                vault=vault,
                progress=progress,
            )
            candidate.demand_steady()
    keep = turn.opened
    # Asked again: an approval may have been withdrawn while the keep was lent.
    is_let_in = found.is_let_in(keep.state.rows(HeldAdmission), now_ns=keep.clock.now_ns())
    if done is None or not is_let_in:
        _refuse(keep, candidate, found)
    reader = keep.reader()
    now = current_snapshot(keep, reader)
    latest = _latest(keep, reader, now, candidate.name)
    record_damages(keep, [*done.damages, *reader.damages])
    has_before = bool(latest_version(now, candidate.name))
    policy = policy_after(latest, candidate.name, candidate.policy, has_before=has_before)
    wanted = _wanted(candidate, found, done, policy=policy, admitted_ns=keep.clock.now_ns())
    proven = entries_of(found.proof, candidate.name)
    if latest is not None and says_the_same(latest.manifest, wanted):
        record_all(keep, proven, version=latest.manifest.version)
        return _outcome(latest.manifest, latest.digest, found, is_new=False)
    manifest, digest = entered(
        keep,
        wanted,
        _recipe(candidate, done),
        domain=domain,
        kind="model.admitted",
        vault=vault,
        also=(*also, *proven, *_use_of(found.hold_id, candidate.name)),
    )
    return _outcome(manifest, digest, found, is_new=True)


def _wanted(
    candidate: Candidate,
    found: JudgedCandidate,
    done: Deposited,
    *,
    policy: Policy,
    admitted_ns: int,
) -> Manifest:
    """What is to be signed, but for its number."""
    return Manifest(
        name=candidate.name,
        version=0,
        kind=_kind(found.kinds),
        domain=done.domain.name,
        admitted_ns=admitted_ns,
        files=tuple(each.entry for each in done.wrote.files),
        schema=found.schema,
        canary=candidate.canary,
        base=candidate.base,
        note=candidate.note,
        policy=policy,
        card=candidate.card,
        marks=candidate.marks,
    )


def _streams(candidate: Candidate, found: JudgedCandidate, writer: Writer) -> Iterator[Stream]:
    """The files cut, those of one model together for the sake of its external data."""
    places = places_of({each.path: each.raw for each in candidate.files}, found.kinds)
    for each in candidate.files:
        each.forget()
    for each in candidate.files:
        yield streamed(each, places.get(each.path, ()), writer=writer)


def _recipe(candidate: Candidate, done: Deposited) -> Recipe:
    modes = candidate.modes or {}
    return Recipe(
        files=tuple(
            replaced(each.recipe, mode=modes.get(each.recipe.path, -1)) for each in done.wrote.files
        ),
        folders=candidate.folders,
        links=candidate.links,
    )


def _kind(kinds: Mapping[str, str]) -> str:
    """What a candidate is: what most of its files are, leaving out those of unknown kind."""
    known = [kind for kind in kinds.values() if kind not in (UNKNOWN, EMPTY)]
    return max(known or list(kinds.values()), key=(known or list(kinds.values())).count)


def _refuse(keep: OpenKeep, candidate: Candidate, found: JudgedCandidate) -> NoReturn:
    """Record that it was refused, park it where somebody may approve it, and say so.

    Raises:
        RefusedError: `verdict.hold` or `verdict.deny`.
    """
    record(
        keep,
        "model.refused",
        {
            "model": candidate.name,
            "decision": str(found.verdict.decision),
            "digest": found.digest,
            "rules": _rules(found.verdict.findings),
        },
    )
    if found.hold_id:
        parked(
            keep,
            found.hold_id,
            model=candidate.name,
            digest=found.content,
            verdict=found.verdict,
            subject=found.subject,
            size=sum(each.size_bytes for each in candidate.files),
        )
    try:
        demand_allowed(found.verdict, subject=found.subject, hold_id=found.hold_id)
    except RefusedError as error:
        error.hint = "; ".join([*unsaid(found.proof, found.verdict), error.hint])
        raise
    raise AssertionError("what is refused is not allowed")


def _use_of(hold_id: str, model: str) -> tuple[Also, ...]:
    """The entry that says which approval let a version in, if one was needed."""
    if not hold_id:
        return ()
    facts: dict[str, Fact] = {"hold_id": hold_id, "model": model}
    return (lambda version: ("admission.used", {**facts, "version": version}),)


def _rules(findings: Sequence[Finding]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(finding.rule for finding in findings))


def _latest(
    keep: OpenKeep, reader: Reader, snapshot: Snapshot, name: str
) -> VerifiedManifest | None:
    """The latest version's manifest, if there is one that can be read.

    Raises:
        UsageError: `admit.kind`.
    """
    version = latest_version(snapshot, name)
    if version < 1:
        return None
    try:
        proof = proof_of(keep, reader, snapshot, name=name, version=version)
    except (IntegrityError, MissingError):
        return None
    if proof.manifest.kind == _UNSCANNED:
        raise UsageError(
            "admit.kind",
            f"{name} holds files that were saved without a scan: a model has another name",
            hint="choose another --name",
        )
    return proof


def _outcome(manifest: Manifest, digest: str, found: JudgedCandidate, *, is_new: bool) -> Admitted:
    return Admitted(
        name=manifest.name,
        version=manifest.version,
        digest=digest,
        is_new=is_new,
        verdict=found.verdict,
        schema=manifest.schema,
        policy=manifest.policy,
        marks=manifest.marks,
        approval=found.hold_id,
        proven=found.proof.facts,
    )
