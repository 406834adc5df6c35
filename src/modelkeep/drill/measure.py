"""RTO and RPO: what was observed, against what was promised.

RTO is the time from the start of the recovery to the first correct answer through the real
gateway. RPO is the time from the last moment at which the surviving store is known to have held
everything (a signed statement, or its last entry) to the disaster; where nobody says when that
was, the start of the recovery stands for it, which can only overstate the loss. How long a backup
takes is in neither.
"""

from __future__ import annotations

from modelkeep.core.instant import NS_PER_S
from modelkeep.core.record import Record
from modelkeep.core.verdict import Finding, Severity
from modelkeep.drill.settings import ObjectiveSettings


class Measure(Record, frozen=True):
    """What a recovery came to, in seconds.

    Attributes:
        freshness: how recent the recovered state is proven to be: `proven` when it contains the
            checkpoint that the operator expected, else `unproven`.
    """

    rto_s: float
    rpo_s: float
    freshness: str


def measured(*, rto_s: float, checkpoint_ns: int, disaster_ns: int, is_fresh: bool) -> Measure:
    """Fold instants into a measure; an RPO is never negative."""
    return Measure(
        rto_s=round(rto_s, 3),
        rpo_s=round(max(disaster_ns - checkpoint_ns, 0) / NS_PER_S, 3),
        freshness="proven" if is_fresh else "unproven",
    )


def assessed(measure: Measure, objectives: ObjectiveSettings) -> list[Finding]:
    """What the measure misses; an empty list means that every objective was met."""
    findings = []
    for name, got_s, max_s in (
        ("rto", measure.rto_s, objectives.rto_s_max),
        ("rpo", measure.rpo_s, objectives.rpo_s_max),
    ):
        if got_s > max_s:
            findings.append(
                Finding(
                    rule=f"drill.{name}",
                    severity=Severity.HIGH,
                    subject="recovery",
                    evidence=f"{name.upper()} {got_s:.3f} s is over the objective of {max_s:g} s",
                    reference="ISO 22301:2019 8.2.2",
                )
            )
    return findings
