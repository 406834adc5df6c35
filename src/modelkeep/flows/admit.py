"""Admission: scan -> verdict -> manifest -> sign -> seal -> store -> ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from modelkeep.core.artifact import (
    Canary,
    Manifest,
    Schema,
    checked_model_name,
)
from modelkeep.core.card import BLANK, Card
from modelkeep.core.digest import Digest
from modelkeep.core.entry import Fact
from modelkeep.core.errors import IntegrityError, MissingError, UsageError
from modelkeep.core.policy import ANYTHING, Policy, demand_bounded
from modelkeep.core.record import replaced
from modelkeep.core.verdict import Decision, Finding, Verdict, demand_allowed, judged
from modelkeep.flows.canary import demand_canary
from modelkeep.flows.deposit import (
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
from modelkeep.flows.registry import proof_of
from modelkeep.kernels.digest import digest_of
from modelkeep.kernels.externals import external_tensors
from modelkeep.kernels.formats import EMPTY, UNKNOWN
from modelkeep.kernels.tensors import identify, onnx_layout, places_of
from modelkeep.scan.rules import findings_of
from modelkeep.scan.settings import ScanSettings
from modelkeep.seal.trust import VerifiedManifest
from modelkeep.vault.commit import Stream, Writer
from modelkeep.vault.load import Reader
from modelkeep.vault.settings import VaultSettings
from modelkeep.vault.snapshot import Recipe, Snapshot, latest_version
from modelkeep.vault.streams import Plain, streamed

# What is saved without a scan has this kind, and names of its own.
_UNSCANNED = "files"
# What the scanner says of a graph that is not whole by itself.
_EXTERNAL = "scan.graph.external"
# Gives an entry of the version with this number: its kind and facts.
Also = Callable[[int], tuple[str, dict[str, Fact]]]
# Each is a finding of half a kilobyte while the graph is judged; large models have thousands.
_EXTERNALS_MAX = 100_000


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
    modes: Mapping[str, int] | None = None
    folders: tuple[tuple[str, int], ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    demand_steady: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class Admitted:
    """What came of it: the version, and whether it is new."""

    name: str
    version: int
    digest: str
    is_new: bool
    verdict: Verdict
    schema: Schema | None
    policy: Policy = ANYTHING
    marks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Judged:
    """What a scan found."""

    verdict: Verdict
    subject: str
    digest: Digest
    kinds: Mapping[str, str]
    schema: Schema | None

    @property
    def is_allowed(self) -> bool:
        """Whether it may be let in."""
        return self.verdict.decision is Decision.ALLOW


def scanned(file_name: str, raw: memoryview, settings: ScanSettings) -> Verdict:
    """Scan one file; nothing in it is executed, imported or unpickled."""
    return judged(findings_of(file_name, raw, settings))


def admitted(
    turn: Turn,
    candidate: Candidate,
    *,
    vault: VaultSettings,
    scan: ScanSettings,
    also: Also | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Admitted:
    """Let a model in, or refuse it; either way the ledger knows.

    What the latest version of that name has already, and says already, changes nothing: the same
    bytes, policy, card and marks; canary, base and note where they are given.

    Args:
        also: gives one more entry, of a new version, for the same write to the ledger.

    Raises:
        RefusedError: `verdict.hold` or `verdict.deny`; `policy.*`, of the base.
        UsageError: `model.name`, `admit.text`, `admit.empty`, `admit.kind`, `canary.*` or
            `policy.bounds`.
        UnavailableError: from the store, or `vault.pruned`; nothing refers to what was written.
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
    seen: list[_Judged] = []  # what is written again is not scanned again
    return retried(
        lambda: _admitted(
            turn, candidate, seen, vault=vault, scan=scan, also=also, progress=progress
        )
    )


def _admitted(
    turn: Turn,
    candidate: Candidate,
    seen: list[_Judged],
    *,
    vault: VaultSettings,
    scan: ScanSettings,
    also: Also | None,
    progress: Callable[[int], None],
) -> Admitted:
    keep = turn.opened
    snapshot = current_snapshot(keep)
    domain = domain_for(keep, snapshot, candidate.name, candidate.domain)
    first = bases_of(keep, snapshot, candidate.name, candidate.base)
    done: Deposited | None = None
    with lent(turn, sum(each.size_bytes for each in candidate.files)):
        found = seen[0] if seen else _scanned(candidate, scan)
        seen[:] = [found]
        if found.is_allowed:
            if candidate.canary is not None:
                demand_canary(candidate.canary, found.schema)
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
    if done is None:
        _record_refused(keep, candidate, found)
    demand_allowed(found.verdict, subject=found.subject)
    assert done is not None
    reader = keep.reader()
    now = current_snapshot(keep, reader)
    latest = _latest(keep, reader, now, candidate.name)
    record_damages(keep, [*done.damages, *reader.damages])
    files = tuple(each.entry for each in done.wrote.files)
    wanted = Manifest(
        name=candidate.name,
        version=0,
        kind=_kind(found.kinds),
        domain=domain.name,
        admitted_ns=keep.clock.now_ns(),
        files=files,
        schema=found.schema,
        canary=candidate.canary,
        base=candidate.base,
        note=candidate.note,
        policy=_policy(candidate, latest, has_before=bool(latest_version(now, candidate.name))),
        card=candidate.card,
        marks=candidate.marks,
    )
    if latest is not None and _says_the_same(latest.manifest, wanted):
        return _outcome(latest.manifest, latest.digest, found.verdict, is_new=False)
    manifest, digest = entered(
        keep,
        wanted,
        _recipe(candidate, done),
        domain=domain,
        kind="model.admitted",
        vault=vault,
        also=also,
    )
    return _outcome(manifest, digest, found.verdict, is_new=True)


def _scanned(candidate: Candidate, settings: ScanSettings) -> _Judged:
    """Scan every file: all findings, and the first file that is not to be let in."""
    findings: list[Finding] = []
    kinds: dict[str, str] = {}
    schema: Schema | None = None
    bad: Plain | None = None
    sizes = {each.path: each.size_bytes for each in candidate.files}
    for each in candidate.files:
        own = _findings(each, sizes, settings)
        if bad is None and judged(own).decision is not Decision.ALLOW:
            bad = each
        findings += own
        kinds[each.path] = identify(each.raw)
        is_good = bad is None  # what is refused may not parse
        schema = schema or (schema_of(each.raw, kinds[each.path]) if is_good else None)
        each.forget()
    subject = bad or candidate.files[0]
    digest = digest_of(subject.raw) if bad is not None else Digest("")
    return _Judged(judged(findings), subject.path, digest, kinds, schema)


def _findings(file: Plain, sizes: Mapping[str, int], settings: ScanSettings) -> Sequence[Finding]:
    """What is wrong with one file of several.

    That a graph keeps tensors in another file is no fault where that file is admitted with it and
    holds them. Room is made for those findings first, so that none hides another one.
    """
    count = _externals_within(file, sizes)
    if not count:
        return findings_of(file.path, file.raw, settings)
    wide = replaced(settings, findings_max=settings.findings_max + 2 * count)
    found = findings_of(file.path, file.raw, wide)
    return [each for each in found if each.rule != _EXTERNAL][: settings.findings_max]


def _externals_within(file: Plain, sizes: Mapping[str, int]) -> int:
    """How many tensors a graph keeps in other files, if all lie in files that are admitted too."""
    if len(sizes) < 2 or identify(file.raw) != "onnx":
        return 0
    try:
        outside = external_tensors(file.path, onnx_layout(file.raw))
    except IntegrityError:
        return 0
    is_whole = all(
        each.path != file.path and each.offset + each.length <= sizes.get(each.path, -1)
        for each in outside
    )
    return len(outside) if is_whole and len(outside) <= _EXTERNALS_MAX else 0


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


def schema_of(raw: memoryview, kind: str) -> Schema | None:
    """What a model takes and gives, where its format says so."""
    if kind != "onnx":
        return None
    layout = onnx_layout(raw)
    return Schema(inputs=layout.inputs, outputs=layout.outputs)


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


def _record_refused(keep: OpenKeep, candidate: Candidate, found: _Judged) -> None:
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


def _policy(candidate: Candidate, latest: VerifiedManifest | None, *, has_before: bool) -> Policy:
    """What was said, or what the version before was under: nobody lifts a rule by not naming it.

    Raises:
        IntegrityError: `policy.before`.
    """
    if candidate.policy is not None:
        return candidate.policy
    if latest is None and has_before:
        raise IntegrityError(
            "policy.before",
            f"the latest version of {candidate.name} cannot be read, so its policy is not known",
            hint="`modelkeep check --repair`; or say which policy: --policy FILE, or none",
        )
    return ANYTHING if latest is None else latest.manifest.policy


def _says_the_same(held: Manifest, wanted: Manifest) -> bool:
    """Whether a version would be the one that is there: its bytes, and what is signed with them.

    Canary, base and note count where they are given: nothing of that is dropped without a word.
    """
    return (
        (held.files, held.policy, held.card, held.marks)
        == (wanted.files, wanted.policy, wanted.card, wanted.marks)
        and wanted.canary in (None, held.canary)
        and wanted.base in ("", held.base)
        and wanted.note in ("", held.note)
    )


def _outcome(manifest: Manifest, digest: str, verdict: Verdict, *, is_new: bool) -> Admitted:
    return Admitted(
        name=manifest.name,
        version=manifest.version,
        digest=digest,
        is_new=is_new,
        verdict=verdict,
        schema=manifest.schema,
        policy=manifest.policy,
        marks=manifest.marks,
    )
