"""Verbs about the ledger: verify, tail, checkpoint, prove."""

from __future__ import annotations

import argparse
import sys
from collections import deque

from modelkeep.cli.opened import opened
from modelkeep.cli.output import print_json, safe_text
from modelkeep.core.entry import Entry
from modelkeep.core.errors import IntegrityError, MissingError, UsageError
from modelkeep.core.instant import rfc3339
from modelkeep.core.record import as_plain

POSITION_DIGITS_MAX = 18  # positions are 64-bit numbers


def verify(options: argparse.Namespace) -> int:
    """Verify the log in every store."""
    expected: bytes | None = None
    if options.expect is not None:
        try:
            expected = options.expect.read_bytes()
        except OSError as error:
            raise MissingError("file.missing", f"{options.expect}: {error.strerror}") from error
    with opened(options) as keep:
        reports = keep.ledger.verify(store=options.store, expected=expected, repair=options.repair)
    is_whole = all(report.is_whole for _, report in reports)
    if options.json:
        print_json(
            [
                {
                    "store": label,
                    "origin": report.origin,
                    "size": report.size,
                    "root": report.root.hex(),
                    "objects": report.objects,
                    "is_whole": report.is_whole,
                    "findings": as_plain(report.findings),
                }
                for label, report in reports
            ]
        )
    else:
        for label, report in reports:
            state = "whole" if report.is_whole else "DAMAGED"
            print(
                f"{label}: {state}: {report.origin}: {report.size} entries, "
                f"{report.objects} objects, root {report.root.hex()[:16]}…"
            )
            for finding in report.findings:
                print(safe_text(f"  {finding.severity}: {finding.subject}: {finding.evidence}"))
    return 0 if is_whole else IntegrityError.exit_status


def tail(options: argparse.Namespace) -> int:
    """Show the last entries."""
    with opened(options) as keep:
        last = deque(
            (
                (index, entry)
                for index, entry in keep.ledger.entries()
                if entry.kind.startswith(options.kind)
            ),
            maxlen=min(max(options.last, 0), sys.maxsize),
        )
    for index, entry in last:
        if options.json:
            print_json({"index": index, **as_plain(entry)})
        else:
            print(entry_line(index, entry))
    return 0


def entry_line(index: int, entry: Entry) -> str:
    """One entry on one line."""
    facts = "  ".join(f"{key}={_shown(value)}" for key, value in entry.facts.items())
    return safe_text(
        f"{index:>6}  {rfc3339(entry.at_ns)}  {entry.kind:<18} {entry.actor:<12} {facts}"
    )


def checkpoint(options: argparse.Namespace) -> int:
    """Print the latest signed checkpoint."""
    with opened(options) as keep:
        latest = keep.ledger.checkpoint()
        key = keep.ledger.verifier_key()
    if options.json:
        print_json({"checkpoint": latest.raw.decode(), "size": latest.size, "verifier_key": key})
    else:
        print(latest.raw.decode(), end="")
    return 0


def prove(options: argparse.Namespace) -> int:
    """Prove that one call was recorded."""
    if len(options.receipt.rpartition(":")[2]) > POSITION_DIGITS_MAX:
        raise UsageError(
            "receipt.form", f"{options.receipt[:80]!r} is no receipt", hint="gateway-0-0:17"
        )
    with opened(options) as keep:
        proof = keep.ledger.prove(options.receipt)
    if options.json:
        print_json(proof)
    else:
        record = proof["record"]
        print(f"{options.receipt} was recorded and is proven:")
        print(f"  record      {record}")
        print(
            f"  in batch    position {proof['position']} of {proof['count']}, "
            f"root {proof['batch_root'][:16]}…"
        )
        print(f"  in the log  entry {proof['entry']}, body and inclusion verified")
        print(proof["tlog_proof"], end="")
    return 0


def _shown(value: object) -> str:
    text = ",".join(value) if isinstance(value, tuple) else str(value)
    return text if len(text) <= 60 else text[:57] + "…"
