"""Checkpoints of `torch.distributed`: zip archives end to end, and `.metadata` beside them.

Theory of operation. Each rank writes its tensors and objects into files `__RANK_NUMBER.distcp`, one
archive of `torch.save` behind the other; the pickle `.metadata` says which bytes of which file are
which item, and the loader unpickles just those bytes. So two things are judged.

1. A shard: every archive by itself, from the last to the first, each where the one behind it
   begins. Bytes between two archives belong to nobody, as in any other archive.
2. `.metadata`: it may name bytes that are no archive at all, such as numbers of a tensor that are a
   pickle. So its slices must be those of the archives, which both files say by a *mark*: a digest
   of where items end. A `.metadata` with slices is held until `settled` has found its mark among
   the shards that were judged with it. It may name nothing but shards beside it, and hold nothing
   but data classes: the loader looks at attributes, and any object may have those.

Facts: torch/distributed/checkpoint/filesystem.py (`_write_item`, `read_data`, `read_metadata`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256

from modelkeep.core.errors import IntegrityError
from modelkeep.core.verdict import Finding, Severity
from modelkeep.scan.archives import archive_findings
from modelkeep.scan.cases import Case
from modelkeep.scan.evidence import SUBJECT_CHARS_MAX, gravest, printable
from modelkeep.scan.machine import Machine
from modelkeep.scan.members import directory_of, has_directory
from modelkeep.scan.symbols_values import Made, Map, Symbol

_METADATA = re.compile(r"(?:__[0-9]+)?\.metadata")
_SHARD = re.compile(r"[A-Za-z0-9_\-]{1,100}\.distcp")
_MODULES = ("torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem")
_SLICE = Symbol("torch.distributed.checkpoint.filesystem", "_StorageInfo")
_SAYS = re.compile(r"'([^']+)'.* \(mark ([0-9a-f]{32})\)", re.DOTALL)
# Of one `.metadata`: shards, each a finding until it is settled; slices, at 100 bytes each.
_SHARDS_MAX = 500
_SLICES_MAX = 500_000

Slice = tuple[int, int]


def shard_findings(case: Case) -> tuple[Finding, ...]:
    """Judge a zip file, or the zip files end to end that a shard is."""
    if not _SHARD.fullmatch(case.place.name):
        return archive_findings(case)
    view, findings, items = case.view, list[Finding](), list[Slice]()
    while True:
        start = _start_of_last(view)
        findings.extend(archive_findings(Case(view[start:], case.place, case.settings, case.judge)))
        items.append((start, len(view) - start))
        if len(findings) > 2 * case.settings.findings_max:
            findings = gravest(findings, case.settings.findings_max)
        if start == 0:
            break
        case.place.allowance.members -= 1
        if case.place.allowance.members <= 0:
            text = (
                f"is more archives than are looked at: {start} bytes before the last {len(items)}"
            )
            findings.append(case.found("scan.shard.limit", Severity.MEDIUM, text))
            break
        view = view[:start]
    text = f"{case.place.name!r} is {len(items)} archives end to end (mark {_mark(items)})"
    # First, so that no bound on notes drops it.
    return (case.found("scan.shard.items", Severity.NOTE, text), *findings)


def slices_findings(case: Case) -> tuple[Finding, ...]:
    """What else is to be said of the pickle `.metadata`, which names slices of other files."""
    if not _METADATA.fullmatch(case.place.name):
        return ()
    look = _Look()
    machine = Machine(case.view, 0, case.settings, persistent=False, arrays=look.built)
    machine.run(case.place.allowance)
    findings = []
    if look.foreign is not None:
        text = f"sets the state of {look.foreign}, which may pass for an entry that names a file"
        findings.append(case.found("scan.shard.foreign", Severity.MEDIUM, text))
    if look.odd:
        text = f"names a slice of a file in a way that no writer does: {look.odd}"
        findings.append(case.found("scan.shard.slices", Severity.HIGH, text))
    for path, items in sorted(look.slices.items())[:_SHARDS_MAX]:
        text = f"{path!r} is unpickled in {len(items)} slices, not found to be its archives "
        text += f"(mark {_mark(items)})"
        findings.append(case.found("scan.shard.slices", Severity.MEDIUM, text))
    if len(look.slices) > _SHARDS_MAX or look.count > _SLICES_MAX:
        text = f"names more than {_SHARDS_MAX} shards or {_SLICES_MAX} slices"
        findings.append(case.found("scan.shard.limit", Severity.MEDIUM, text))
    return tuple(findings)


def names_slices(name: str) -> bool:
    """Whether a file of this name is what `settled` has to be asked about."""
    return _METADATA.fullmatch(name.rpartition("/")[2]) is not None


def settled(findings: Iterable[Finding]) -> list[Finding]:
    """Findings of files that were judged together, less what they answer among each other.

    A slice is answered if the shard beside its `.metadata` has its mark. All that is said of a
    shard counts by itself.
    """
    every = list(findings)
    marks = {
        (_folder(each.subject), *_said(each))
        for each in every
        if each.rule == "scan.shard.items" and _is_whole(each)
    }
    return [
        each for each in every
        if each.rule != "scan.shard.slices"
        or each.severity is not Severity.MEDIUM
        or not _is_whole(each)
        or (_folder(each.subject), *_said(each)) not in marks
    ]  # fmt: skip


def _is_whole(finding: Finding) -> bool:
    """Whether its subject is a file itself, under its whole name: a member is opened by nobody."""
    return "!" not in finding.subject and len(finding.subject) < SUBJECT_CHARS_MAX


@dataclass(slots=True)
class _Look:
    """What a `.metadata` names.

    Attributes:
        slices: of each shard.
        odd: a slice that no writer writes; the first one found.
        foreign: a class that is none of a checkpoint's; the first one found.
    """

    slices: dict[str, list[Slice]] = field(default_factory=dict)
    count: int = 0
    odd: str = ""
    foreign: Symbol | None = None

    def built(self, _at: int, made: Made) -> None:
        """Look at an object that has just been given its state."""
        if made.by.module not in _MODULES:
            self.foreign = self.foreign or made.by
        if made.by != _SLICE:
            return
        state = made.state
        entries = (state.entries or {}) if isinstance(state, Map) and not state.is_open else {}
        path, start, length = (entries.get(each) for each in ("relative_path", "offset", "length"))
        if not isinstance(path, str) or not isinstance(start, int) or not isinstance(length, int):
            self.odd = self.odd or "its state is no plain dictionary"
        elif not _SHARD.fullmatch(path):
            self.odd = self.odd or f"{printable(path, 80)!r} is no shard beside it"
        elif entries.get("transform_descriptors") not in (None, ()):
            self.odd = self.odd or "it is transformed before it is read"
        else:
            self.count += 1
            if self.count <= _SLICES_MAX:
                self.slices.setdefault(path, []).append((start, length))


def _start_of_last(view: memoryview) -> int:
    """Where the last archive of several begins: behind the end of another one, or at 0."""
    try:
        gaps = directory_of(view, members_max=len(view)).gaps
    except IntegrityError:
        return 0
    start, length = gaps[0] if gaps else (0, 0)
    return length if start == 0 and length and has_directory(view[:length]) else 0


def _mark(items: Iterable[Slice]) -> str:
    """A digest of where items lie."""
    text = ",".join(f"{start}+{length}" for start, length in sorted(items))
    return sha256(text.encode()).hexdigest()[:32]


def _folder(subject: str) -> str:
    return subject.rpartition("/")[0]


def _said(finding: Finding) -> tuple[str, ...]:
    """The shard and the mark that a finding names."""
    said = _SAYS.match(finding.evidence)
    return said.groups() if said else ()
