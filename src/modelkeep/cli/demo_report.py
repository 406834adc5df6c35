"""The end of the demo: a summary on one screen, and an HTML report with the timeline."""

from __future__ import annotations

import time
from pathlib import Path

from modelkeep import __version__
from modelkeep.cli.demo_acts import Stage
from modelkeep.cli.output import console
from modelkeep.core.instant import rfc3339
from modelkeep.web.report import rendered_report
from modelkeep.wiring import real_world, write_file


def print_summary(stage: Stage, report: Path) -> None:
    """One screen: every step with its time, the figures, where the report is."""
    from rich.panel import Panel  # noqa: PLC0415 - see `output.console`
    from rich.table import Table  # noqa: PLC0415

    table = Table.grid(padding=(0, 2))
    for step in stage.story.steps:
        proofs = sum(line.kind in ("proof", "refused") for line in step.lines)
        table.add_row(f"{step.number:>2}", step.title, f"{step.seconds:5.1f} s", f"{proofs} checks")
    table.add_row("", "", "", "")
    for name, value in stage.measures.items():
        table.add_row("", name, value, "")
    table.add_row("", "the whole story", f"{stage.story.seconds:.1f} s", "")
    out = console()
    out.print()
    out.print(Panel(table, title="modelkeep demo: every claim was checked", expand=False))
    out.print(f"report: {report}", markup=False)


def write_report(stage: Stage, path: Path) -> None:
    """Write the report, one self-contained page."""
    page = rendered_report(
        title="modelkeep demo",
        version=__version__,
        at=rfc3339(time.time_ns()),
        steps=stage.story.steps,
        measures=stage.measures,
        total_s=stage.story.seconds,
    )
    write_file(real_world().disk, path, page.encode())
