"""Admission: scan -> verdict -> manifest -> sign -> seal -> store -> ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn

from modelkeep.core.artifact import (
    Canary,
    Manifest,
    Schema,
    checked_model_name,
)
from modelkeep.core.card import BLANK, Card
from modelkeep.core.digest import Digest
from modelkeep.core.entry import Fact
from modelkeep.core.errors import IntegrityError, MissingError, RefusedError, UsageError
from modelkeep.core.policy import ANYTHING, Policy, demand_bounded
from modelkeep.core.record import replaced
from modelkeep.core.rows import HeldAdmission
from modelkeep.core.verdict import Decision, Finding, Verdict, demand_allowed, judged
from modelkeep.flows.admissions import content_digest, hold_of, is_approved, parked
from modelkeep.flows.canary import demand_canary
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
    NO_CLAIMS,
    NO_PROOF,
    Asking,
    Assess,
    Claims,
    Proof,
    card_with,
    entries_of,
    proof_of_origin,
    record_all,
    unsaid,
)
from modelkeep.flows.registry import proof_of
from modelkeep.flows.sanity import Declared, closer_findings
from modelkeep.flows.scanning import HERE
from modelkeep.flows.succession import policy_after, says_the_same
from modelkeep.kernels.digest import digest_of
from modelkeep.kernels.formats import EMPTY, UNKNOWN
from modelkeep.kernels.tensors import places_of
from modelkeep.ports.scanner import Scanner, Unjudged
from modelkeep.ports.trial import Trial
from modelkeep.scan.admission_settings import AdmissionSettings
from modelkeep.scan.sanity_settings import for_admission
from modelkeep.scan.settings import ScanSettings
from modelkeep.seal.trust import VerifiedManifest
from modelkeep.vault.commit import Stream, Writer
from modelkeep.vault.load import Reader
from modelkeep.vault.settings import VaultSettings
from modelkeep.vault.snapshot import Recipe, Snapshot, latest_version
from modelkeep.vault.streams import Plain, streamed

# What is saved without a scan has this kind, and names of its own.
_UNSCANNED = "files"
_NONE = Digest("")
_NOTHING_DEMANDED = AdmissionSettings()


@dataclass(frozen=True, slots=True)
class Candidate:
    """What asks to be admitted: one file, or the files of a folder.

    Attributes:
        files: its files as they are read. What is scanned is what is stored; only where a weight
            mark is laid on (`marks`), the scan sees the file without it: what is stored differs in
            numbers of the marked tensors and, in an archive, in the checksums over them.
        domain: that it is kept in; empty for that of the version before, or `default`.
        canary: a call whose right answer is known, where the owner has one.
        base: reference of the version it was made from, for the lineage and as a base for deltas.
        policy: what may be done with it, signed with it; None for that of the version before.
        card: what its makers say of it, signed with it.
        marks: ids of the watermarks that it carries.
        claims: what came with it to prove where it is from.
        declared: the form that its owner says it has.
        modes: of a folder, permission bits by path; likewise `folders` and `links`, as in a recipe.
        demand_steady: checks, before anything is signed, that nobody changed a file meanwhile.
    """

    name: str
    files: tuple[Plain, ...]
    domain: str = ""
    canary: Canary | None = None
    base: str = ""
    note: str = ""
    policy: Policy | None = None
    card: Card = BLANK
    marks: tuple[str, ...] = ()
    claims: Claims = NO_CLAIMS
    declared: Declared | None = None
    modes: Mapping[str, int] | None = None
    folders: tuple[tuple[str, int], ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    demand_steady: Callable[[], None] = lambda: None


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


@dataclass(frozen=True, slots=True)
class _Judged:
    """What a scan found.

    Attributes:
        digest: of the first file that is not to be let in; empty where all are.
        content: of all files; empty unless the verdict is hold.
        hold_id: under which it may be approved; empty unless the verdict is hold.
        proof: what was proven of where it is from.
    """

    verdict: Verdict
    subject: str
    digest: Digest
    kinds: Mapping[str, str]
    schema: Schema | None
    content: Digest = _NONE
    hold_id: str = ""
    proof: Proof = NO_PROOF

    def is_let_in(self, rows: Sequence[HeldAdmission], *, now_ns: int) -> bool:
        """Whether it may be let in: allowed, or held and approved. A deny is a deny."""
        if self.verdict.decision is Decision.HOLD:
            return is_approved(rows, self.hold_id, now_ns=now_ns)
        return self.verdict.decision is Decision.ALLOW


def admitted(
    turn: Turn,
    candidate: Candidate,
    *,
    vault: VaultSettings,
    scan: ScanSettings,
    scanner: Scanner = HERE,
    admission: AdmissionSettings = _NOTHING_DEMANDED,
    assess: Assess | None = None,
    trial: Trial | None = None,
    also: Sequence[Also] = (),
    progress: Callable[[int], None] = lambda _: None,
) -> Admitted:
    """Let a model in, or refuse it; either way the ledger knows.

    What the latest version of that name has already, and says already, changes nothing: the same
    bytes, policy, card and marks; canary, base and note where they are given. What is held waits
    for `flows.admissions.approved`; the refusal says its id.

    Args:
        scanner: looks into the files; by default in this process.
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
    _demand_text(candidate)
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
        return proof_of_origin(_asking(candidate), candidate.claims, admission, assess=assess)

    looked = replaced(scan, sanity=for_admission(scan.sanity))
    seen: list[_Judged] = []  # what is written again is not scanned again
    return retried(
        lambda: _admitted(
            turn,
            candidate,
            seen,
            vault=vault,
            look=lambda keep_id: _scanned(candidate, looked, scanner, keep_id, proof),
            trial=trial,
            also=also,
            progress=progress,
        )
    )


def _admitted(
    turn: Turn,
    candidate: Candidate,
    seen: list[_Judged],
    *,
    vault: VaultSettings,
    look: Callable[[str], _Judged],
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
            found = _closer(candidate, found, trial)
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
    has_before = bool(latest_version(now, candidate.name))
    record_damages(keep, [*done.damages, *reader.damages])
    wanted = Manifest(
        name=candidate.name,
        version=0,
        kind=_kind(found.kinds),
        domain=domain.name,
        admitted_ns=keep.clock.now_ns(),
        files=tuple(each.entry for each in done.wrote.files),
        schema=found.schema,
        canary=candidate.canary,
        base=candidate.base,
        note=candidate.note,
        policy=policy_after(latest, candidate.name, candidate.policy, has_before=has_before),
        card=candidate.card,
        marks=candidate.marks,
    )
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


def _scanned(
    candidate: Candidate,
    settings: ScanSettings,
    scanner: Scanner,
    keep_id: str,
    proof_of: Callable[[], Proof],
) -> _Judged:
    """Have every file looked into: all findings, and the first file that is not to be let in.

    Where it is from is asked only of what a scan does not deny.
    """
    findings: list[Finding] = []
    kinds: dict[str, str] = {}
    schema: Schema | None = None
    bad: Plain | None = None
    asked = (Unjudged(each.path, each.raw, each.fd, each.forget) for each in candidate.files)
    sizes = {each.path: each.size_bytes for each in candidate.files}
    came = scanner.judge(asked, sizes=sizes, settings=settings)
    for each, own in zip(candidate.files, came, strict=True):
        if bad is None and judged(own.findings).decision is not Decision.ALLOW:
            bad = each
        findings += own.findings
        kinds[each.path] = own.kind
        schema = schema or own.schema
    subject = bad or candidate.files[0]
    is_denied = judged(findings).decision is Decision.DENY
    proof = NO_PROOF if is_denied else proof_of()
    verdict = judged([*findings, *proof.findings])
    content, hold_id = Digest(""), ""
    if verdict.decision is Decision.HOLD:
        content = content_digest(candidate.files)
        hold_id = hold_of(keep_id, candidate.name, content, verdict)
    is_bad = verdict.decision is not Decision.ALLOW
    digest = digest_of(subject.raw) if is_bad else Digest("")
    return _Judged(verdict, subject.path, digest, kinds, schema, content, hold_id, proof)


def _closer(candidate: Candidate, found: _Judged, trial: Trial | None) -> _Judged:
    """What only a model that is let in so far can show; what it shows wrongly denies it.

    Raises:
        UsageError: `canary.*`.
    """
    if candidate.canary is not None:
        demand_canary(candidate.canary, found.schema)
    more = closer_findings(
        candidate.files,
        found.kinds,
        found.schema,
        declared=candidate.declared,
        canary=candidate.canary,
        trial=trial,
    )
    verdict = judged([*found.verdict.findings, *more])
    if verdict.decision is not Decision.DENY:
        return replace(found, verdict=verdict)
    first = candidate.files[0]
    digest = digest_of(first.raw)
    return replace(found, verdict=verdict, subject=first.path, digest=digest, hold_id="")


def _asking(candidate: Candidate) -> Asking:
    return Asking(
        name=candidate.name,
        files=candidate.files,
        is_folder=bool(candidate.folders),
        links=tuple(path for path, _ in candidate.links),
        card=candidate.card,
        base=candidate.base,
    )


def _streams(candidate: Candidate, found: _Judged, writer: Writer) -> Iterator[Stream]:
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


def _demand_text(candidate: Candidate) -> None:
    """A manifest is UTF-8; what a shell hands over need not be."""
    names = [("file's name", each.path) for each in candidate.files]
    for what, text in (*names, ("note", candidate.note)):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UsageError(
                "admit.text", f"the {what} is not valid UTF-8", hint="rename it, or write it anew"
            ) from error


def _refuse(keep: OpenKeep, candidate: Candidate, found: _Judged) -> NoReturn:
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


def _outcome(manifest: Manifest, digest: str, found: _Judged, *, is_new: bool) -> Admitted:
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
