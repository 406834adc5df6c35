"""Judging one file: its findings, its kind and its schema, in one look.

Everything that reads a file's bytes before it is let in happens here, so that it can happen in a
process that is locked in (`workers.scanner`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from modelkeep.core.artifact import Schema
from modelkeep.core.errors import IntegrityError
from modelkeep.core.record import Record, replaced
from modelkeep.core.verdict import Decision, Finding, judged
from modelkeep.kernels.externals import external_tensors
from modelkeep.kernels.tensors import identify, onnx_layout
from modelkeep.kernels.torch_export import export_schema
from modelkeep.ports.sandbox import MEASURES, Measure
from modelkeep.ports.scanner import Judged, Scanner, Unjudged
from modelkeep.scan.evidence import SUBJECT_CHARS_MAX, gravest, printable
from modelkeep.scan.rules import findings_of
from modelkeep.scan.sanity import sanity_findings
from modelkeep.scan.settings import ScanSettings

# What the scanner says of a graph that is not whole by itself.
_EXTERNAL = "scan.graph.external"
# Each is a finding of half a kilobyte while the graph is judged; large models have thousands.
_EXTERNALS_MAX = 100_000


class OwnScanner:
    """Looks into files in this process: for what is trusted, and for tests of the rules."""

    def start(self) -> None:
        """It is ready."""

    def judge(
        self, files: Iterable[Unjudged], *, sizes: Mapping[str, int], settings: Record
    ) -> Iterator[Judged]:
        """As `Scanner.judge`; an error is an error here."""
        assert isinstance(settings, ScanSettings)
        for each in files:
            yield judged_file(each.name, each.raw, sizes, settings)
            each.forget()

    def explain(self) -> tuple[Measure, ...]:
        """Nothing is on."""
        text = "files are looked into in this very process"
        return tuple(Measure(name=name, is_on=False, why=text) for name in MEASURES)

    def close(self) -> None:
        """Nothing is open."""


HERE: Scanner = OwnScanner()


def judged_file(
    name: str, raw: memoryview, sizes: Mapping[str, int], settings: ScanSettings
) -> Judged:
    """Judge one file of several; nothing in it is executed, imported or unpickled."""
    findings = tuple(_findings(name, raw, sizes, settings))
    kind = identify(raw)
    schema = None
    if judged(findings).decision is not Decision.DENY:  # what is held may be let in yet
        findings += sanity_findings(name, raw, kind, settings.sanity)
        with suppress(IntegrityError):
            schema = schema_of(raw, kind)
    return Judged(findings=findings, kind=kind, schema=schema)


def schema_of(raw: memoryview, kind: str) -> Schema | None:
    """What a model takes and gives, where its format says so."""
    if kind == "zip":  # a program of torch.export, or none of what is known here
        return export_schema(raw)
    if kind != "onnx":
        return None
    layout = onnx_layout(raw)
    return Schema(inputs=layout.inputs, outputs=layout.outputs)


def _findings(
    name: str, raw: memoryview, sizes: Mapping[str, int], settings: ScanSettings
) -> Sequence[Finding]:
    """What is wrong with one file of several.

    That a graph keeps tensors in another file is no fault where that file is admitted with it and
    holds them. Room is made for those findings first, so that none hides another one.
    """
    count = _externals_within(name, raw, sizes)
    if not count:
        return findings_of(name, raw, settings)
    wide = replaced(settings, findings_max=settings.findings_max + 2 * count)
    found = findings_of(name, raw, wide)
    own = printable(name, SUBJECT_CHARS_MAX)
    left = [each for each in found if each.rule != _EXTERNAL or each.subject != own]
    return gravest(left, settings.findings_max)


def _externals_within(name: str, raw: memoryview, sizes: Mapping[str, int]) -> int:
    """How many tensors a graph keeps in other files, if all lie in files that are admitted too."""
    if len(sizes) < 2 or identify(raw) != "onnx":
        return 0
    try:
        outside = external_tensors(name, onnx_layout(raw))
    except IntegrityError:
        return 0
    is_whole = all(
        each.path != name and each.offset + each.length <= sizes.get(each.path, -1)
        for each in outside
    )
    return len(outside) if is_whole and len(outside) <= _EXTERNALS_MAX else 0
