"""The ledger's knobs."""

from __future__ import annotations

from modelkeep.core.record import Record


class LedgerSettings(Record, frozen=True):
    """Table `[ledger]` of modelkeep.toml: how often the log moves and what it keeps.

    Attributes:
        publish_interval_s: a new entry stands under a signed checkpoint at most this much later.
        batch_interval_s: how often new call records are committed as one leaf per journal.
        batch_records_max: records under one leaf; at 2 us a record their root takes 40 ms, which
            bounds how long a batch keeps an acknowledgement waiting.
        wal_segment_bytes_max: where the write-ahead journal starts a new file.
        checkpoints_kept: checkpoints, with the partial tiles they need, that stay in a store.
    """

    publish_interval_s: float = 1.0
    batch_interval_s: float = 0.25
    batch_records_max: int = 16_384
    wal_segment_bytes_max: int = 16 * 1024 * 1024
    checkpoints_kept: int = 8
