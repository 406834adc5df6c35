"""What a reader must know of a store before anything else: its format, and whose it is."""

from __future__ import annotations

from modelkeep.vault.objects import Numbered

FORMAT = "modelkeep-store-v0"
# What a reader must know beyond the first release: encoded chunks, padded packs, listed indexes.
FEATURES = ("encodings",)


class StoreFormat(Numbered, frozen=True):
    """The object `format/000000000000` of every store: what a reader must know first.

    Attributes:
        minimum_reader: oldest modelkeep that may read the store.
        required: names of features that a reader must have.
    """

    format: str
    keep_id: str
    minimum_reader: str
    required: tuple[str, ...] = ()
