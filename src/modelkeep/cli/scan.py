"""Verbs about what may come in: scan, approve."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from modelkeep.cli.opened import opened, warned
from modelkeep.cli.output import (
    json_text,
    print_json,
    print_table,
    progress,
    safe_text,
    said,
    said_measures,
)
from modelkeep.core.errors import RefusedError, UnavailableError, UsageError
from modelkeep.core.instant import rfc3339
from modelkeep.core.record import as_plain
from modelkeep.core.verdict import Decision, Finding, Severity

if TYPE_CHECKING:
    from modelkeep.core.rows import HeldAdmission
    from modelkeep.sdk.scanning import ScannedPath

_WORDS = {Decision.ALLOW: "allowed", Decision.HOLD: "held", Decision.DENY: "denied"}


def scan(options: argparse.Namespace) -> int:
    """Scan files and folders; one line (or one JSON line) per file."""
    from modelkeep.scan.settings import ScanSettings  # noqa: PLC0415 - `--help` need not load it
    from modelkeep.sdk.scanning import bytes_of, scanned_paths  # noqa: PLC0415

    if options.explain_sandbox:
        return _explained(as_json=options.json)
    if not options.paths:
        raise UsageError("scan.nothing", "there is nothing to scan", hint="name a file or a folder")
    if sys.platform != "linux":
        warned("files are looked into without a sandbox here; --explain-sandbox says more")
    total = bytes_of(options.paths) if sys.stderr.isatty() else None
    kept: list[ScannedPath] = []
    counts = dict.fromkeys(Decision, 0)
    with progress("scan", total) as advance:
        for each in scanned_paths(options.paths, ScanSettings(), progress=advance):
            counts[each.verdict.decision] += 1
            if options.sarif is not None:
                kept.append(each)
            _show(each, as_json=options.json, with_notes=options.notes)
    if options.sarif is not None:
        _write_sarif(options, kept)
    if sum(counts.values()) != 1 and not options.json:
        told = ", ".join(f"{counts[each]} {word}" for each, word in _WORDS.items())
        print(f"{sum(counts.values())} files: {told}")
    return 0 if counts[Decision.ALLOW] == sum(counts.values()) else RefusedError.exit_status


def _show(each: ScannedPath, *, as_json: bool, with_notes: bool) -> None:
    verdict = each.verdict
    if as_json:
        findings = [_facts(finding) for finding in verdict.findings]
        print_json({"path": str(each.path), "decision": verdict.decision, "findings": findings})
        return
    print(f"{verdict.decision:<6} {safe_text(str(each.path))}")
    hidden = 0
    for finding in verdict.findings:
        is_inner_note = finding.severity is Severity.NOTE and finding.subject != each.name
        if is_inner_note and not with_notes:
            hidden += 1
            continue
        where = "" if finding.subject == each.name else f"{finding.subject}: "
        reference = f" [{finding.reference}]" if finding.reference else ""
        text = f"{finding.severity}: {where}{finding.evidence} ({finding.rule}){reference}"
        print(safe_text(f"       {text}"))
    if hidden:
        print(f"       {hidden} note(s) on what is inside; --notes shows them")


def _facts(finding: Finding) -> dict[str, str]:
    """A finding as programs get it: four facts first, in this order, then what is more."""
    return {
        "rule": finding.rule,
        "severity": finding.severity,
        "evidence": finding.evidence,
        "reference": finding.reference,
        "subject": finding.subject,
    }


def _write_sarif(options: argparse.Namespace, found: list[ScannedPath]) -> None:
    from modelkeep.cli.sarif import sarif_of  # noqa: PLC0415 - as above

    try:
        options.sarif.write_text(json_text(sarif_of(found)) + "\n", encoding="utf-8")
    except OSError as error:
        raise UnavailableError(
            "file.write", f"cannot write {options.sarif}: {error.strerror}"
        ) from error


def _explained(*, as_json: bool) -> int:
    """Say what is on."""
    from modelkeep.sdk.scanning import explained_sandbox  # noqa: PLC0415 - as above

    measures = explained_sandbox()
    return said_measures(measures, as_json=as_json)


def approve(options: argparse.Namespace) -> int:
    """List what is held, let one in for a while, or take that back."""
    from modelkeep.sdk.admissions import Admissions  # noqa: PLC0415 - as above

    if not options.held:
        _demand_none(options)
        with opened(options) as keep:
            rows = Admissions(keep).held()
        return _listed(rows, as_json=options.json)
    if options.withdraw:
        if options.why or options.until:
            raise UsageError("usage.undo", "--withdraw takes back all of it; say nothing more")
        with opened(options) as keep:
            row = Admissions(keep).withdraw(options.held)
        return said(row, f"{row.hold_id} of {row.model} is withdrawn", as_json=options.json)
    if not options.why or not options.until:
        missing = "--why TEXT" if not options.why else "--until DATE"
        raise UsageError(
            "admission.why",
            "an approval says why, and until when",
            hint=f"add {missing}; the ledger keeps both",
        )
    with opened(options) as keep:
        row = Admissions(keep).approve(options.held, why=options.why, until=options.until)
    text = (
        f"{row.hold_id} is approved until {_time(row.until_ns)} by {row.approved_by}\n"
        f"  model    {row.model}\n"
        f"  content  {row.digest}\n"
        + "".join(f"  found    {each}\n" for each in row.evidence)
        + f"  next     admit the same again: `modelkeep admit PATH --name {row.model}`"
    )
    return said(row, text, as_json=options.json)


def _listed(rows: tuple[tuple[HeldAdmission, str], ...], *, as_json: bool) -> int:
    if as_json:
        print_json([{**as_plain(row), "status": status} for row, status in rows])
        return 0
    print_table(
        ("id", "model", "file", "rules", "asked by", "state"),
        [
            (
                row.hold_id,
                row.model,
                row.subject,
                ", ".join(row.rules),
                f"{row.asked_by} {_time(row.asked_ns)}",
                status
                + f" until {_time(row.until_ns)} by {row.approved_by}: {row.why}"
                * (status in ("approved", "expired")),
            )
            for row, status in rows
        ],
    )
    return 0


def _demand_none(options: argparse.Namespace) -> None:
    """Nothing is said of what is not named.

    Raises:
        UsageError: `admission.name`.
    """
    if options.why or options.until or options.withdraw:
        raise UsageError(
            "admission.name",
            "nothing says what is approved",
            hint="`modelkeep approve` lists what is held; then name an id or a model",
        )


def _time(at_ns: int) -> str:
    return rfc3339(at_ns)[:19] + "Z"
