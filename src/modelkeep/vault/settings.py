"""The vault's knobs."""

from __future__ import annotations

from modelkeep.core.limits import PACK_BYTES_TARGET, SEGMENT_BYTES_MAX
from modelkeep.core.record import Record


class VaultSettings(Record, frozen=True):
    """Table `[vault]` of modelkeep.toml: sizes of what is written.

    Attributes:
        segment_bytes: longest chunk, in bytes; tensors are cut into chunks of at most this size.
        pack_bytes: where a pack is closed, in bytes; one fsync is paid per pack.
    """

    segment_bytes: int = SEGMENT_BYTES_MAX
    pack_bytes: int = PACK_BYTES_TARGET
