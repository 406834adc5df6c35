"""Verbs that keep stores whole and small: check, repair, prune, remove, stats."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from modelkeep.cli.opened import opened
from modelkeep.cli.output import print_json, print_table, progress, safe_text, said
from modelkeep.core.errors import IntegrityError, UnavailableError, UsageError
from modelkeep.core.record import as_plain
from modelkeep.core.sizes import size_text

if TYPE_CHECKING:
    from modelkeep.flows.check import CheckReport
    from modelkeep.flows.stats import Share

_SECONDS = {"d": 86_400, "h": 3_600, "m": 60}


def check(options: argparse.Namespace) -> int:
    """Check every store, and repair if asked."""
    from modelkeep.sdk.upkeep import Upkeep  # noqa: PLC0415 - `--help` need not load it

    share = _share(options.read_data) if options.read_data else 0.0
    with opened(options) as keep, progress("check") as advance:
        report = Upkeep(keep).check(read_data=share, repair=options.repair, progress=advance)
    depth = {0.0: "structure", 1.0: "every byte read"}.get(share, f"{100 * share:g} % read")
    return _checked(options, report, depth)


def repair(options: argparse.Namespace) -> int:
    """Make good what can be, and name what cannot."""
    from modelkeep.sdk.upkeep import Upkeep  # noqa: PLC0415 - `--help` need not load it

    with opened(options) as keep, progress("repair") as advance:
        report = Upkeep(keep).repair(progress=advance)
    status = _checked(options, report, "every byte read")
    if report.lost and not options.json:
        lost = ", ".join(each.version for each in report.lost)
        print(safe_text(f"whole: {', '.join(report.whole) or 'nothing'}"))
        print(
            safe_text(
                f"lost in part: {lost}. Attach a copy of a store that has it and repair again; "
                "else take it out (`modelkeep remove`), prune, and admit its file anew."
            )
        )
    return status


def _checked(options: argparse.Namespace, report: CheckReport, depth: str) -> int:
    if options.json:
        print_json(report)
    else:
        for finding in report.findings:
            text = f"{finding.severity}: {finding.subject}: {finding.evidence} ({finding.rule})"
            print(safe_text(text))
        state = "whole" if report.is_whole else "DAMAGED"
        print(
            f"{state}: {report.objects} objects, {size_text(report.size_bytes)} ({depth}), "
            f"{report.repaired} repaired"
        )
    return 0 if report.is_whole else IntegrityError.exit_status


def prune(options: argparse.Namespace) -> int:
    """Drop old snapshots and what only they need."""
    from modelkeep.flows.prune import PrunePolicy  # noqa: PLC0415 - `--help` need not load it
    from modelkeep.sdk.upkeep import Upkeep  # noqa: PLC0415

    policy = PrunePolicy(
        keep_last=options.keep_last,
        keep_within_s=_seconds(options.keep_within) if options.keep_within else 0.0,
        waste_max=_share(options.waste),
    )
    with opened(options) as keep, progress("prune") as advance:
        report = Upkeep(keep).prune(policy, dry_run=options.dry_run, progress=advance)
    if options.json:
        print_json({**as_plain(report), "dry_run": options.dry_run})
    else:
        would, goes = ("would be ", "would go") if options.dry_run else ("", "went")
        print(f"snapshots: {report.kept} kept, {report.dropped} {would}dropped")
        for each in report.stores:
            if each.error:
                print(safe_text(f"{each.store}: passed over: {each.error}"))
                continue
            about = "about " if options.dry_run else ""
            print(
                f"{each.store}: {each.packs} packs and {each.objects} small objects {goes}, "
                f"{each.moved} packs written anew, {about}{_signed(each.freed_bytes)} freed"
                + (f"; {each.refused} deletions refused" if each.refused else "")
            )
    return 0 if report.is_done else UnavailableError.exit_status


def remove(options: argparse.Namespace) -> int:
    """Take versions out of the current snapshot."""
    from modelkeep.sdk.upkeep import Upkeep  # noqa: PLC0415 - `--help` need not load it

    with opened(options) as keep:
        upkeep = Upkeep(keep)
        if options.dry_run:
            done = upkeep.removal(options.reference)
        else:
            done = upkeep.remove(options.reference, force=options.force)
    would = "would be " if options.dry_run else ""
    text = f"{would}removed: {', '.join(done.versions)}"
    if done.aliases:
        text += f"; {', '.join(done.aliases)} name{'s' if len(done.aliases) == 1 else ''} nothing"
    text += "\nearlier snapshots hold it until `modelkeep prune` drops them"
    return said({**as_plain(done), "dry_run": options.dry_run}, text, as_json=options.json)


def stats(options: argparse.Namespace) -> int:
    """Say how much is kept and what it takes."""
    from modelkeep.sdk.upkeep import Upkeep  # noqa: PLC0415 - `--help` need not load it

    with opened(options) as keep:
        found = Upkeep(keep).stats()
    if options.json:
        plain = as_plain(found)
        print_json({**plain, "dedup": round(found.dedup, 4)})
        return 0
    print(
        f"{found.versions} versions in {found.snapshots} snapshots: {size_text(found.raw_bytes)}, "
        f"{size_text(found.distinct_bytes)} of it distinct (dedup {found.dedup:.2f})"
    )
    for store in found.stores:
        if store.error:
            print(safe_text(f"{store.store}: {store.error}"))
            continue
        ratio = store.stored_bytes / found.raw_bytes if found.raw_bytes else 1.0
        print(
            f"\n{store.store} ({store.encoding}): {size_text(store.stored_bytes)} stored, "
            f"{ratio:.3f} of raw; {store.packs} packs, {store.chunks} chunks; "
            f"index {size_text(store.index_bytes)} in memory, "
            f"{size_text(store.index_bytes_per_tib)} per TiB"
        )
        print_table(
            ("chunks", "count", "raw", "stored", "ratio"),
            [_row(each) for each in (*store.encodings, *store.dtypes)],
        )
    return 0


def _row(share: Share) -> tuple[object, ...]:
    return (
        share.kind,
        share.chunks,
        size_text(share.raw_bytes),
        size_text(share.stored_bytes),
        f"{share.ratio:.3f}",
    )


def _signed(size_bytes: int) -> str:
    return size_text(size_bytes) if size_bytes >= 0 else f"-{size_text(-size_bytes)}"


def _share(text: str) -> float:
    """A share such as 10%.

    Raises:
        UsageError: `usage.share`.
    """
    found = re.fullmatch(r"(\d{1,3}(?:\.\d{1,6})?)%", text)
    if found is None or float(found[1]) > 100:
        raise UsageError("usage.share", f"{text[:40]!r} is no share", hint="such as 10% or 0.5%")
    return float(found[1]) / 100


def _seconds(text: str) -> float:
    """A time such as 30d, in seconds.

    Raises:
        UsageError: `usage.time`.
    """
    found = re.fullmatch(r"(\d{1,6})([dhm])", text)
    if found is None or not int(found[1]):
        raise UsageError("usage.time", f"{text[:40]!r} is no time", hint="such as 30d, 36h or 90m")
    return float(int(found[1]) * _SECONDS[found[2]])
