"""How long call journals are kept: which of their oldest segments may go.

A segment may go when every record in it is committed as a batch in the ledger, so that its root
stays provable, and it is either older than the bound or the journal is larger than its bound. The
last segment stays: its writer has it open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class KeptSegment:
    """One file of a call journal.

    Attributes:
        first: position of its first record.
        changed_ns: when it was last written.
    """

    first: int
    size_bytes: int
    changed_ns: int


def kept_from(
    segments: Sequence[KeptSegment], *, covered: int, before_ns: int, bytes_max: int
) -> int:
    """The position from which records are kept; segments wholly before it may go.

    Args:
        segments: oldest first.
        covered: the position up to which the ledger holds batches.
        before_ns: what was written last before this instant is too old.
        bytes_max: of the whole journal; 0 is no bound.
    """
    size_bytes = sum(segment.size_bytes for segment in segments)
    kept = segments[0].first if segments else 0
    for segment, following in pairwise(segments):
        is_over = 0 < bytes_max < size_bytes
        if following.first > covered or not (is_over or segment.changed_ns < before_ns):
            break
        kept = following.first
        size_bytes -= segment.size_bytes
    return kept
