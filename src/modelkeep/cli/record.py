"""Verbs about the ledger's entries: verify, tail, find, append, erase, export, checkpoint."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from modelkeep.cli.opened import opened
from modelkeep.cli.output import print_json, safe_text, said
from modelkeep.core.entry import Entry, Fact
from modelkeep.core.errors import IntegrityError, MissingError, UnavailableError, UsageError
from modelkeep.core.instant import NS_PER_S, rfc3339
from modelkeep.core.record import as_plain
from modelkeep.flows.ledger_write import parsed_fact
from modelkeep.ledger.find import Query, fact_text, instant_ns
from modelkeep.ledger.kinds import CATALOGUE

if TYPE_CHECKING:
    from modelkeep.ledger.verify import LogReport
    from modelkeep.sdk.evidence import WitnessReport
    from modelkeep.sdk.ledger import Ledger


def verify(options: argparse.Namespace) -> int:
    """Verify the log in every store, and what witnesses hold of it."""
    expected: bytes | None = None
    if options.expect is not None:
        try:
            expected = options.expect.read_bytes()
        except OSError as error:
            raise MissingError("file.missing", f"{options.expect}: {error.strerror}") from error
    with opened(options) as keep:
        for label in options.new_witness:
            keep.ledger.evidence.announce(label)
        reports = keep.ledger.verify(store=options.store, expected=expected, repair=options.repair)
        others = keep.ledger.evidence.witnessed()
    if options.json:
        print_json([*map(_report_facts, reports), *_witness_facts(others)])
    else:
        for label, report in reports:
            _print_report(label, report)
        _print_witnesses(others)
    is_whole = all(report.is_whole for _, report in reports) and others.is_whole
    return 0 if is_whole else IntegrityError.exit_status


def tail(options: argparse.Namespace) -> int:
    """Show the last entries."""
    with opened(options) as keep:
        last = min(max(options.last, 0), sys.maxsize)
        _print_entries(keep.ledger, keep.ledger.tail(last, Query(kind=options.kind)), options)
    return 0


def find(options: argparse.Namespace) -> int:
    """Show entries by kind, actor, tenant, time and facts."""
    query = _query(options)
    with opened(options) as keep:
        _print_entries(keep.ledger, keep.ledger.find(query, limit=max(options.limit, 0)), options)
    return 0


def append(options: argparse.Namespace) -> int:
    """Record what somebody has to say."""
    facts, private = _facts(options.fact), _facts(options.private)
    with opened(options) as keep:
        index = keep.ledger.append(options.kind, facts, private=private)
    if options.json:
        print_json({"index": index, "kind": options.kind})
    else:
        print(f"entry {index}: {options.kind}")
    return 0


def erase(options: argparse.Namespace) -> int:
    """Destroy the key of an entry's private facts in every store."""
    with opened(options) as keep:
        done = keep.ledger.erase(options.index, reason=options.reason)
    if options.json:
        print_json(as_plain(done))
    else:
        print(f"the private facts of entry {done.index} are erased; entry {done.entry} says so")
        print(f"  gone from     {', '.join(done.stores) or 'no store'}")
        if done.away:
            print(f"  did not answer: {safe_text(', '.join(done.away))}: run it again, or a backup")
    return UnavailableError.exit_status if done.away else 0


def export(options: argparse.Namespace) -> int:
    """Write entries in the form of other people's tools."""
    query = _query(options)
    with opened(options) as keep, _written(options.output) as out:
        count = 0
        for line in keep.ledger.export(options.format, query):
            out.write(line + "\n")
            count += 1
    if options.output is not None:
        if options.json:
            print_json({"entries": count, "format": options.format, "output": str(options.output)})
        else:
            print(safe_text(f"{count} entries written to {options.output}"))
    return 0


def checkpoint(options: argparse.Namespace) -> int:
    """Print the latest signed checkpoint, or the last one that witnesses have cosigned."""
    with opened(options) as keep:
        raw = (
            keep.ledger.evidence.cosigned_checkpoint()
            if options.cosigned
            else keep.ledger.checkpoint().raw
        )
        key = keep.ledger.verifier_key()
        witness = keep.ledger.evidence.witness_key()
    text = raw.decode()
    if options.json:
        size = int(text.split("\n")[1])
        print_json({"checkpoint": text, "size": size, "verifier_key": key, "witness_key": witness})
    else:
        print(text, end="")
    return 0


def kinds(options: argparse.Namespace) -> int:
    """Show the catalogue of entries."""
    if options.json:
        print_json(
            [
                {
                    "kind": each.name,
                    "meaning": each.meaning,
                    "facts": each.facts,
                    "severity": str(each.severity),
                }
                for each in CATALOGUE.values()
            ]
        )
    else:
        for each in CATALOGUE.values():
            print(f"{each.name:<24} {each.meaning} [{' '.join(each.facts)}]")
    return 0


def entry_line(index: int, entry: Entry) -> str:
    """One entry on one line."""
    facts = "  ".join(f"{key}={_shown(value)}" for key, value in entry.facts.items())
    return safe_text(
        f"{index:>6}  {rfc3339(entry.at_ns)}  {entry.kind:<18} {entry.actor:<12} {facts}"
    )


def _shown(value: Fact) -> str:
    text = ",".join(value) if isinstance(value, tuple) else fact_text(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _print_entries(
    ledger: Ledger, entries: Iterable[tuple[int, Entry]], options: argparse.Namespace
) -> None:
    for index, entry in entries:
        shown = ledger.shown(entry, reveal=options.reveal)
        if options.json:
            print_json({"index": index, **as_plain(shown)})
        else:
            print(entry_line(index, shown))


def _query(options: argparse.Namespace) -> Query:
    query = Query(
        kind=options.kind,
        actor=options.actor,
        tenant=options.tenant,
        facts=tuple(_named(text) for text in options.fact),
        since_ns=instant_ns(options.since) if options.since else Query().since_ns,
        until_ns=instant_ns(options.until) if options.until else Query().until_ns,
    )
    if query.since_ns >= query.until_ns:
        raise UsageError("time.order", "--since is not before --until")
    return query


def _named(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError("ledger.query", f"{text[:80]!r} asks for nothing", hint="--fact NAME=TEXT")
    return name, value


def _facts(texts: Sequence[str]) -> dict[str, Fact]:
    pairs = [parsed_fact(text) for text in texts]
    if len(dict(pairs)) != len(pairs):
        raise UsageError("ledger.twice", "a fact is named twice")
    return dict(pairs)


@contextmanager
def _written(path: Path | None) -> Iterator[TextIO]:
    """A new file that is complete or not there under its name, or stdout."""
    if path is None:
        yield sys.stdout
        sys.stdout.flush()
        return
    if path.exists():
        raise UsageError("export.exists", f"{path} exists", hint="name another file")
    partial = path.with_name(path.name + ".part")
    with partial.open("x", encoding="utf-8", newline="\n") as file:
        try:
            yield file
        except BaseException:
            partial.unlink()
            raise
    partial.rename(path)


def _report_facts(found: tuple[str, LogReport]) -> dict[str, object]:
    label, report = found
    return {
        "store": label,
        "origin": report.origin,
        "size": report.size,
        "root": report.root.hex(),
        "objects": report.objects,
        "is_whole": report.is_whole,
        "findings": as_plain(report.findings),
    }


def _witness_facts(others: WitnessReport) -> Iterator[dict[str, object]]:
    for seen in others.seen:
        facts = as_plain(seen)
        yield {"store": f"witness {facts.pop('witness')}", **facts, "is_whole": seen.is_whole}
    for stamp in others.stamps:
        yield {**as_plain(stamp), "store": f"time stamp {stamp.authority}"}
    if others.seen or others.findings:
        yield {
            "store": "witnesses",
            "size": others.size,
            "covered_ns": others.covered_ns,
            "is_whole": others.is_whole,
            "findings": as_plain(others.findings),
        }


def _print_report(label: str, report: LogReport) -> None:
    state = "whole" if report.is_whole else "DAMAGED"
    print(
        f"{label}: {state}: {report.origin}: {report.size} entries, "
        f"{report.objects} objects, root {report.root.hex()[:16]}…"
    )
    for finding in report.findings:
        print(safe_text(f"  {finding.severity}: {finding.subject}: {finding.evidence}"))


def _print_witnesses(others: WitnessReport) -> None:
    for seen in others.seen:
        when = f" at {rfc3339(seen.at_s * NS_PER_S)}" if seen.at_s else ""
        state = "agrees" if seen.is_whole else "DISAGREES"
        print(safe_text(f"witness {seen.witness}: {state}: saw {seen.size} entries{when}"))
        for finding in seen.findings:
            print(safe_text(f"  {finding.severity}: {finding.subject}: {finding.evidence}"))
    for stamp in others.stamps:
        for finding in stamp.findings:
            print(safe_text(f"checkpoint {stamp.size}: {finding.severity}: {finding.evidence}"))
    for finding in others.findings:
        print(safe_text(f"witnesses: {finding.severity}: {finding.evidence}"))
    if others.seen:
        until = f" (until {rfc3339(others.covered_ns)})" if others.covered_ns else ""
        print(
            f"tampering with the first {others.size} entries{until} is found; with later ones, not"
        )


def keys(options: argparse.Namespace) -> int:
    """Print the verifier keys of the keep's logs, one on a line, the newest last."""
    with opened(options) as keep:
        found = keep.ledger.verifier_keys()
    return said({"verifier_keys": found}, "\n".join(found), as_json=options.json)
