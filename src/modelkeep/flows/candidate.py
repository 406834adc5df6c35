"""What asks to be admitted, and what came of looking at it: scan, provenance, a closer look."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from modelkeep.core.artifact import Canary, Schema
from modelkeep.core.card import BLANK, Card
from modelkeep.core.digest import Digest
from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.core.policy import Policy
from modelkeep.core.rows import HeldAdmission
from modelkeep.core.verdict import Decision, Finding, Severity, Verdict, judged
from modelkeep.flows.admissions import content_digest, hold_of, is_approved
from modelkeep.flows.canary import demand_canary
from modelkeep.flows.portable_paths import stays_inside
from modelkeep.flows.provenance import NO_CLAIMS, NO_PROOF, Asking, Claims, Proof
from modelkeep.flows.sanity import Declared, closer_findings
from modelkeep.kernels.digest import digest_of
from modelkeep.kernels.torch_export import is_script
from modelkeep.kernels.wire import ELEMENT_BYTES
from modelkeep.kernels.zips import members_of
from modelkeep.ports.scanner import Scanner, Unjudged
from modelkeep.ports.trial import Trial
from modelkeep.scan.evidence import found
from modelkeep.scan.settings import ScanSettings
from modelkeep.scan.shards import settled
from modelkeep.vault.streams import Plain

_NONE = Digest("")


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
class JudgedCandidate:
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


def demand_text(candidate: Candidate) -> None:
    """A manifest is UTF-8; what a shell hands over need not be."""
    names = [("file's name", each.path) for each in candidate.files]
    for what, text in (*names, ("note", candidate.note)):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UsageError(
                "admit.text", f"the {what} is not valid UTF-8", hint="rename it, or write it anew"
            ) from error


def scanned(
    candidate: Candidate,
    settings: ScanSettings,
    scanner: Scanner,
    keep_id: str,
    proof_of: Callable[[], Proof],
) -> JudgedCandidate:
    """Have every file looked into: all findings, and the first file that is not to be let in.

    Where it is from is asked only of what a scan does not deny.
    """
    kinds: dict[str, str] = {}
    schema: Schema | None = None
    asked = (Unjudged(each.path, each.raw, each.fd, each.forget) for each in candidate.files)
    sizes = {each.path: each.size_bytes for each in candidate.files}
    came = scanner.judge(asked, sizes=sizes, settings=settings)
    said: list[tuple[Plain, tuple[Finding, ...]]] = []
    for each, own in zip(candidate.files, came, strict=True):
        said.append((each, own.findings))
        kinds[each.path] = own.kind
        schema = schema or own.schema
    findings = [*settled(one for _, own in said for one in own), *_link_findings(candidate)]
    left = frozenset(findings)
    bad = (
        each for each, own in said if judged(left.intersection(own)).decision is not Decision.ALLOW
    )
    subject = next(bad, candidate.files[0])
    is_denied = judged(findings).decision is Decision.DENY
    proof = NO_PROOF if is_denied else proof_of()
    verdict = judged([*findings, *proof.findings])
    content, hold_id = Digest(""), ""
    if verdict.decision is Decision.HOLD:
        content = content_digest(candidate.files, candidate.links, candidate.modes or {})
        hold_id = hold_of(keep_id, candidate.name, content, verdict)
    is_bad = verdict.decision is not Decision.ALLOW
    digest = digest_of(subject.raw) if is_bad else Digest("")
    return JudgedCandidate(verdict, subject.path, digest, kinds, schema, content, hold_id, proof)


def _link_findings(candidate: Candidate) -> tuple[Finding, ...]:
    """Links are kept as they are; where one leads out, whoever restores the model follows it."""
    return tuple(
        found("scan.format.link", Severity.MEDIUM, path, f"is a link out of its folder, to {says}")
        for path, says in candidate.links
        if not stays_inside(path, says)
    )


def closer(
    candidate: Candidate, judgement: JudgedCandidate, trial: Trial | None
) -> JudgedCandidate:
    """What only a model that is let in so far can show; what it shows wrongly denies it.

    Raises:
        UsageError: `canary.*`.
    """
    judgement = replace(judgement, schema=judgement.schema or _declared_schema(candidate))
    if candidate.canary is not None:
        demand_canary(candidate.canary, judgement.schema)
    more = closer_findings(
        candidate.files,
        judgement.kinds,
        judgement.schema,
        declared=candidate.declared,
        canary=candidate.canary,
        trial=trial,
    )
    verdict = judged([*judgement.verdict.findings, *more])
    if verdict.decision is not Decision.DENY:
        return replace(judgement, verdict=verdict)
    first = candidate.files[0]
    digest = digest_of(first.raw)
    return replace(judgement, verdict=verdict, subject=first.path, digest=digest, hold_id="")


def _declared_schema(candidate: Candidate) -> Schema | None:
    """The schema of a program whose form does not say one, as its owner declares it.

    Raises:
        UsageError: `schema.declared`.
    """
    declared = candidate.declared
    if declared is None or not (declared.inputs and declared.outputs) or len(candidate.files) != 1:
        return None
    try:
        is_program = is_script(members_of(candidate.files[0].raw))
    except IntegrityError:
        return None
    if not is_program:
        return None
    for port in (*declared.inputs, *declared.outputs):
        if port.dtype not in ELEMENT_BYTES or any(size < -1 for size in port.shape):
            raise UsageError(
                "schema.declared",
                f"{port.name[:80]!r} is declared with a type or shape that no tensor has",
                hint=f"types are {', '.join(ELEMENT_BYTES)}; sizes are numbers, -1 for any",
            )
    return Schema(inputs=declared.inputs, outputs=declared.outputs)


def asking(candidate: Candidate) -> Asking:
    """What is asked about where it is from."""
    return Asking(
        name=candidate.name,
        files=candidate.files,
        is_folder=bool(candidate.folders),
        links=tuple(path for path, _ in candidate.links),
        card=candidate.card,
        base=candidate.base,
    )
