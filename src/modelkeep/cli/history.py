"""Verbs about other times: snapshots, diff."""

from __future__ import annotations

import argparse
from itertools import islice

from modelkeep.cli.opened import opened
from modelkeep.cli.output import print_json, print_table, safe_text
from modelkeep.core.instant import rfc3339
from modelkeep.core.sizes import size_text
from modelkeep.flows.diff import (
    ADDED,
    CHANGED,
    REMOVED,
    FileChange,
    SnapshotDiff,
    Tally,
    VersionDiff,
)

_SIGNS = {ADDED: "+", REMOVED: "-", CHANGED: "~"}
# Versions that one row names: who wants all of them asks for JSON.
_NAMED_MAX = 4


def snapshots(options: argparse.Namespace) -> int:
    """List the snapshots that are kept."""
    from modelkeep.sdk.history import History  # noqa: PLC0415 - `--help` need not load it

    with opened(options) as keep:
        chain = History(keep.opened).snapshots()
        found = list(islice(chain, options.last) if options.last > 0 else chain)
    if options.json:
        print_json(found)
        return 0
    print_table(
        ("head", "taken", "versions", "changed", "snapshot"),
        [
            (
                each.number,
                rfc3339(each.taken_ns)[:19] + "Z",
                each.versions,
                _changes(each.added, each.removed, each.moved)
                if each.is_compared
                else "the one before was pruned",
                each.name,
            )
            for each in found
        ],
    )
    return 0


def diff(options: argparse.Namespace) -> int:
    """Say what differs."""
    from modelkeep.sdk.history import History  # noqa: PLC0415 - `--help` need not load it

    with opened(options) as keep:
        found = History(keep.opened).diff(options.before, options.after)
    if options.json:
        print_json(found)
        return 0
    if isinstance(found, SnapshotDiff):
        changes = _changes(found.added, found.removed, (), most=10**6)
        print(f"head {found.before} -> head {found.after}: {changes}")
    for each in found.models if isinstance(found, SnapshotDiff) else (found,):
        _print_version(each, tensors=options.tensors)
    return 0


def _print_version(found: VersionDiff, *, tensors: bool) -> None:
    print(f"{found.before or 'nothing'} -> {found.after or 'nothing'}")
    for change in found.changes:
        print(safe_text(f"  {_SIGNS[change.change]} {_path(change)}  {_sizes(change)}"))
        for each in change.changes if tensors else ():
            shape = ",".join(map(str, each.shape))
            sign = _SIGNS[each.change]
            size = size_text(each.size_bytes)
            print(safe_text(f"      {sign} {each.name}  {each.dtype}[{shape}]  {size}"))
    print(f"  files    {_tally(found.files)}")
    if any(_counts(found.tensors)):
        print(f"  tensors  {_tally(found.tensors)}")


def _path(change: FileChange) -> str:
    if change.change == CHANGED and change.before_path != change.path:
        return f"{change.before_path} -> {change.path}"
    return change.path


def _sizes(change: FileChange) -> str:
    sizes = [size for size in (change.before_bytes, change.after_bytes) if size >= 0]
    return " -> ".join(map(size_text, dict.fromkeys(sizes)))


def _counts(tally: Tally) -> tuple[int, ...]:
    return tally.equal, tally.changed, tally.added, tally.removed


def _tally(tally: Tally) -> str:
    parts = (
        (tally.equal, "equal", tally.equal_bytes),
        (tally.changed, "changed", tally.changed_bytes),
        (tally.added, "added", tally.added_bytes),
        (tally.removed, "removed", tally.removed_bytes),
    )
    said = [f"{count} {word} ({size_text(size)})" for count, word, size in parts if count]
    return ", ".join(said) or "none"


def _changes(
    added: tuple[str, ...],
    removed: tuple[str, ...],
    moved: tuple[str, ...],
    *,
    most: int = _NAMED_MAX,
) -> str:
    parts = [
        f"{sign}{name}" for sign, names in (("+", added), ("-", removed)) for name in names[:most]
    ]
    more = len(added) + len(removed) - len(parts)
    if more:
        parts.append(f"and {more} more")
    if moved:
        parts.append(f"{len(moved)} under a new key")
    return ", ".join(parts) or "no version"
