"""The ledger's knobs."""

from __future__ import annotations

from modelkeep.core.record import Record


class WitnessStore(Record, frozen=True):
    """One table `[[ledger.witness.stores]]`: a place elsewhere that only keeps checkpoints.

    Attributes:
        label: its name in messages.
        path: its folder; a relative path starts at the keep's folder.
    """

    label: str
    path: str


class WitnessSettings(Record, frozen=True):
    """Table `[ledger.witness]`: who else sees the log, so that rewriting it is found.

    Attributes:
        keys: verifier keys of the witnesses whose cosignatures count, as `ledger cosign` prints.
        quorum: how many of them must have cosigned lately; 0 asks for none.
        age_s_max: a cosignature that is older is not lately.
        stores: where checkpoints are put besides; best where this keep may add and not remove.
        interval_s: while the service runs, a checkpoint goes to them at most this often.
    """

    keys: tuple[str, ...] = ()
    quorum: int = 0
    age_s_max: float = 86_400.0
    stores: tuple[WitnessStore, ...] = ()
    interval_s: float = 300.0


class TimestampSettings(Record, frozen=True):
    """Table `[ledger.timestamp]`: whose RFC 3161 time stamps are asked for and believed.

    Attributes:
        urls: the time stamping authorities that may be asked; no other host is spoken to.
        roots: a PEM file with their root certificates; a relative path starts at the keep's folder.
        wait_s_max: how long an authority may take to answer.
    """

    urls: tuple[str, ...] = ()
    roots: str = ""
    wait_s_max: float = 10.0


class LedgerSettings(Record, frozen=True):
    """Table `[ledger]` of modelkeep.toml: how often the log moves and what it keeps.

    Attributes:
        publish_interval_s: a new entry stands under a signed checkpoint at most this much later.
        batch_interval_s: how often new call records are committed as one leaf per journal.
        batch_records_max: records under one leaf; at 2 us a record their root takes 40 ms, which
            bounds how long a batch keeps an acknowledgement waiting.
        wal_segment_bytes_max: where the write-ahead journal starts a new file, if not after
            65,536 entries.
        reserve_bytes: room that is kept on the disk of the write-ahead journal; when the disk is
            full, calls are refused and control entries are written there. 0 keeps none.
        journals_keep_days: call records are kept at least so long, unless there are too many.
        journals_keep_bytes: of one call journal; beyond it the oldest go earlier. 0 is no bound.
        checkpoints_kept: checkpoints, with the partial tiles they need, that stay in a store.
        witness: who else sees the log.
        timestamp: who says what time it was.
    """

    publish_interval_s: float = 1.0
    batch_interval_s: float = 0.25
    batch_records_max: int = 16_384
    wal_segment_bytes_max: int = 64 * 1024 * 1024
    reserve_bytes: int = 8 * 1024 * 1024
    journals_keep_days: float = 90.0
    journals_keep_bytes: int = 16 * 1024 * 1024 * 1024
    checkpoints_kept: int = 8
    witness: WitnessSettings = WitnessSettings()
    timestamp: TimestampSettings = TimestampSettings()
