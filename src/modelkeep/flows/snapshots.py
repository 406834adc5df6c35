"""The snapshots that are kept: what each changed, and which one a person means.

Every commit makes one snapshot and one head, so a snapshot's number is that of the newest head less
its distance from it. A prune drops the far end of the chain; numbers do not change.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from modelkeep.core.errors import MissingError, UsageError
from modelkeep.core.record import Record
from modelkeep.flows.keep import OpenKeep, current_head
from modelkeep.ledger.find import instant_ns
from modelkeep.vault.check import snapshots
from modelkeep.vault.load import Reader
from modelkeep.vault.snapshot import ArtifactEntry, Snapshot

HEAD = "head"
_PREFIX = re.compile(r"[0-9a-f]{6,64}")
_SHOWN_CHARS = 12


@dataclass(frozen=True, slots=True)
class Kept:
    """A snapshot with its place in the chain; number 0 is the empty one before the first commit.

    Attributes:
        name: of its object; empty for the empty snapshot.
    """

    number: int
    name: str
    snapshot: Snapshot

    @property
    def short(self) -> str:
        """What a person types to name it, besides its number."""
        return short_name(self.name)


class SnapshotSummary(Record, frozen=True):
    """One snapshot, for people.

    Attributes:
        number: of its head.
        name: first digits of its object's digest.
        versions: how many it holds.
        is_compared: whether the one before it is still kept; else what it changed is not known.
        added: versions that the one before it did not have.
        removed: versions that the one before it had.
        moved: versions that are there as before, under another key.
    """

    number: int
    name: str
    taken_ns: int
    versions: int
    is_compared: bool
    added: tuple[str, ...]
    removed: tuple[str, ...]
    moved: tuple[str, ...]


def snapshot_chain(keep: OpenKeep, reader: Reader | None = None) -> Iterator[Kept]:
    """The snapshots that are kept, newest first; one at a time is in memory.

    Raises:
        KeepError: when one cannot be read anywhere.
    """
    head = current_head(keep)
    found = snapshots(reader or keep.reader(), head.snapshot)
    for distance, (name, snapshot) in enumerate(found):
        yield Kept(head.number - distance, name, snapshot)


def snapshot_summaries(keep: OpenKeep) -> Iterator[SnapshotSummary]:
    """What each snapshot that is kept changed, newest first."""
    after: Kept | None = None
    for before in snapshot_chain(keep):
        if after is not None:
            yield _summary(after, before.snapshot)
        after = before
    if after is not None:
        is_first = not after.snapshot.parent
        yield _summary(after, empty_snapshot() if is_first else None)


def snapshot_at(keep: OpenKeep, text: str, reader: Reader | None = None) -> Kept:
    """The snapshot that a person names.

    Args:
        text: `head`, the number of a head, the first digits of its name (at least six), or a time:
            then it is the newest that was taken by then. A date alone is its first moment, in UTC.

    Raises:
        MissingError: `snapshot.unknown`.
        UsageError: `snapshot.name`, when the text is none of them; `snapshot.ambiguous`.
    """
    chain = snapshot_chain(keep, reader)
    if text == HEAD:
        return next(chain, Kept(0, "", empty_snapshot()))
    if text.isascii() and text.isdecimal() and len(text) < 8:
        found = [each for each in chain if each.number == int(text)]
    elif _PREFIX.fullmatch(text):
        found = [each for each in chain if _digest(each.name).startswith(text)]
    else:
        at_ns = _instant_ns(text)
        found = list(islice((each for each in chain if each.snapshot.taken_ns <= at_ns), 1))
    if len(found) > 1:
        raise UsageError(
            "snapshot.ambiguous",
            f"{len(found)} snapshots begin with {text}",
            hint="give more of its digits, or the number",
        )
    if not found:
        raise MissingError(
            "snapshot.unknown",
            f"no snapshot that is kept is {text[:80]!r}",
            hint="`modelkeep snapshots` lists them; older ones were pruned",
        )
    return found[0]


def versions_in(snapshot: Snapshot) -> dict[tuple[str, int], ArtifactEntry]:
    """The entries of a snapshot by name and version, sorted."""
    entries = sorted(snapshot.artifacts, key=lambda each: (each.name, each.version))
    return {(each.name, each.version): each for each in entries}


def empty_snapshot() -> Snapshot:
    """What the keep held before its first commit."""
    return Snapshot(taken_ns=0, parent="", artifacts=())


def short_name(name: str) -> str:
    """The first digits of a snapshot's name."""
    return _digest(name)[:_SHOWN_CHARS]


def _summary(kept: Kept, before: Snapshot | None) -> SnapshotSummary:
    now = versions_in(kept.snapshot)
    then = now if before is None else versions_in(before)
    return SnapshotSummary(
        number=kept.number,
        name=kept.short,
        taken_ns=kept.snapshot.taken_ns,
        versions=len(now),
        is_compared=before is not None,
        added=_named(each for each in now if each not in then),
        removed=_named(each for each in then if each not in now),
        moved=_named(each for each in now if each in then and now[each] != then[each]),
    )


def _named(keys: Iterable[tuple[str, int]]) -> tuple[str, ...]:
    return tuple(f"{name}:{version}" for name, version in keys)


def _digest(name: str) -> str:
    return name.rpartition("/")[2]


def _instant_ns(text: str) -> int:
    try:
        return instant_ns(text)
    except UsageError:
        raise UsageError(
            "snapshot.name",
            f"{text[:80]!r} names no snapshot",
            hint="head, a number, the first digits of its name, or a time: 2026-01-31T08:00:00Z",
        ) from None
