"""The verb `preflight`: what this machine lacks, one line for each."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from modelkeep.cli.opened import opened
from modelkeep.cli.output import print_json, safe_text
from modelkeep.core.errors import RefusedError, UsageError
from modelkeep.core.record import as_plain
from modelkeep.core.verdict import Decision, Severity, Verdict

if TYPE_CHECKING:
    from modelkeep.ports.host import Host

_WORDS = {Severity.HIGH: "fails", Severity.MEDIUM: "risk", Severity.NOTE: "note"}
_ENDS = {
    Decision.ALLOW: "this machine is ready",
    Decision.HOLD: "this machine is ready but for the risks above",
    Decision.DENY: "this machine is not ready",
}


def run(options: argparse.Namespace) -> int:
    """Judge the machine; exit 0 where nothing worse than a note was found, else 3."""
    from modelkeep.sdk.preflight import machine_preflight, preflighted  # noqa: PLC0415

    if options.machine:
        if options.models:
            raise UsageError("preflight.models", "--machine judges no models", hint="leave one out")
        verdict, host = machine_preflight()
    else:
        with opened(options) as keep:
            verdict, host = preflighted(keep.folder, keep.config, keep.opened, options.models)
    _show(verdict, host, options)
    return 0 if verdict.decision is Decision.ALLOW else RefusedError.exit_status


def _show(verdict: Verdict, host: Host, options: argparse.Namespace) -> None:
    if options.json:
        facts = {"host": as_plain(host)} if options.facts else {}
        print_json({"decision": verdict.decision, "findings": verdict.findings, **facts})
        return
    for each in verdict.findings:
        text = f"{_WORDS[each.severity]:<6} {each.subject}: {each.evidence} ({each.rule})"
        print(safe_text(text))
    if options.facts:
        for name, value in as_plain(host).items():
            print(safe_text(f"       {name}: {value}"))
    print(_ENDS[verdict.decision])
