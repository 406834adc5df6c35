"""What a recovery promises."""

from __future__ import annotations

from modelkeep.core.record import Record


class ObjectiveSettings(Record, frozen=True):
    """Table `[objectives]` of modelkeep.toml: what every recovery is measured against.

    Attributes:
        rto_s_max: longest time from the start of a recovery to the first correct answer, seconds.
        rpo_s_max: longest stretch of recorded history that a disaster may cost, seconds.
    """

    rto_s_max: float = 60.0
    rpo_s_max: float = 5.0
