"""The owner's view of what the keep held at other times, and of what differs."""

from __future__ import annotations

from collections.abc import Iterator

from modelkeep.flows.diff import SnapshotDiff, VersionDiff, compared
from modelkeep.flows.keep import OpenKeep
from modelkeep.flows.snapshots import SnapshotSummary, snapshot_summaries


class History:
    """Snapshots of an open keep."""

    def __init__(self, keep: OpenKeep) -> None:
        self._open = keep

    def snapshots(self) -> Iterator[SnapshotSummary]:
        """The snapshots that are kept, newest first, and what each changed."""
        return snapshot_summaries(self._open)

    def diff(self, before: str, after: str) -> VersionDiff | SnapshotDiff:
        """What differs between two versions (`fraud:1`), or two snapshots (`3`, `head`, a time).

        Raises:
            UsageError: `diff.mixed`, `model.*` or `snapshot.*`.
            MissingError: `model.unknown` or `snapshot.unknown`.
        """
        return compared(self._open, before, after)
