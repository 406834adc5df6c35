"""Verbs about Python packages: dependencies, sbom."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from modelkeep.cli.opened import keep_path, warned
from modelkeep.cli.output import print_json, print_table, progress, safe_text, said
from modelkeep.core.errors import RefusedError, UsageError
from modelkeep.core.record import as_plain
from modelkeep.core.sizes import size_text

if TYPE_CHECKING:
    from modelkeep.scan.assessments import Assessed, Assessment

_DAY_S = 86_400


def dependencies(options: argparse.Namespace) -> int:
    """Say what is known of packages; exit status 3 unless all are clean or tolerated."""
    from modelkeep.scan.assessments import Standing  # noqa: PLC0415 - `--help` need not load it
    from modelkeep.sdk.dependencies import advisory_settings, assessment  # noqa: PLC0415

    settings, file = advisory_settings(
        keep_path(options), tolerate=options.tolerate, age_days_max=options.age_days_max
    )
    file = options.advisories or file
    if file is None:
        raise UsageError(
            "dependencies.advisories",
            "there are no advisories to assess packages against",
            hint="--advisories FILE names an export of OSV, as does [advisories] file",
        )
    with progress("assess"):
        found = assessment(options.paths, advisories=file, settings=settings)
    for each in found.ended:
        warned(f"{each} is tolerated no more")
    status = 0 if found.is_passed else RefusedError.exit_status
    if options.json:
        counts = {each.value.replace(" ", "_"): found.counted(each) for each in Standing}
        print_json({**as_plain(found), "counts": counts, "is_passed": found.is_passed})
        return status
    shown = [each for each in found.packages if options.all or each.standing is not Standing.CLEAN]
    if shown:
        rows = [row for each in shown for row in _rows(each)]
        print_table(("package", "is", "what", "fixed in", "where"), rows)
    counts = {each: found.counted(each) for each in Standing}
    print(", ".join(f"{count} {each}" for each, count in counts.items()) + _against(found))
    return status


def sbom(options: argparse.Namespace) -> int:
    """List packages as a bill of materials."""
    from modelkeep.sdk.dependencies import package_bom, write_bom  # noqa: PLC0415 - as above

    raw = package_bom(options.paths, spec=options.spec)
    if options.output is None:
        sys.stdout.buffer.write(raw + b"\n")
        sys.stdout.buffer.flush()
        return 0
    write_bom(raw, Path(options.output), force=options.force)
    facts = {"output": str(options.output), "size_bytes": len(raw), "spec": options.spec}
    text = f"wrote {options.output}: CycloneDX {options.spec}, {size_text(len(raw))}"
    return said(facts, text, as_json=options.json)


def _rows(package: Assessed) -> list[tuple[str, str, str, str, str]]:
    """One row a flaw, or one for the package."""
    name = f"{package.name} {package.version}".strip()
    if not package.flaws:
        why = f"tolerated: {package.tolerated}" if package.tolerated else package.why
        return [(name, str(package.standing), safe_text(why), "", package.place)]
    rows = []
    for flaw in package.flaws:
        text = ", ".join((*flaw.ids, *flaw.aliases))
        text += f" [{flaw.severity}]" * bool(flaw.severity) + f": {flaw.summary}"
        if flaw.tolerated:
            text = f"tolerated: {flaw.tolerated}; {text}"
        rows.append((name, str(package.standing), text, ", ".join(flaw.fixed), package.place))
    return rows


def _against(found: Assessment) -> str:
    if not found.newest:
        return "; there are no advisories in the export"
    days = found.age_s / _DAY_S
    return f"; {found.advisories} advisories, the newest of {found.newest}, {days:.1f} days old"
