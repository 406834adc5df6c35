"""What a rule noticed, and what all that was noticed comes to.

Everything that judges returns Findings; `judged` folds Findings into a Verdict; everything that
acts takes a Verdict.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from modelkeep.core.errors import RefusedError
from modelkeep.core.limits import FINDINGS_MAX
from modelkeep.core.record import Record


class Severity(StrEnum):
    """How bad a finding is; its order is that of `DECISION_BY_SEVERITY`."""

    NOTE = "note"
    MEDIUM = "medium"
    HIGH = "high"


class Decision(StrEnum):
    """What is to be done, mildest first."""

    ALLOW = "allow"
    THROTTLE = "throttle"
    HOLD = "hold"
    DENY = "deny"


DECISION_BY_SEVERITY = {
    Severity.NOTE: Decision.ALLOW,
    Severity.MEDIUM: Decision.HOLD,
    Severity.HIGH: Decision.DENY,
}


class Finding(Record, frozen=True):
    """One thing a rule noticed.

    Attributes:
        rule: dotted name of the rule, such as `scan.pickle.global`.
        subject: what it was noticed in: a file, a member, a principal.
        evidence: the fact itself, short, printable, never secret.
        reference: CWE, ATLAS or CVE id, or empty.
    """

    rule: str
    severity: Severity
    subject: str
    evidence: str
    reference: str = ""


class Verdict(Record, frozen=True):
    """A decision with the findings behind it."""

    decision: Decision
    findings: tuple[Finding, ...] = ()


def judged(findings: Iterable[Finding]) -> Verdict:
    """Fold findings into a verdict: the gravest finding decides; no finding allows."""
    kept: list[Finding] = []
    decision = Decision.ALLOW
    order = list(Decision)
    for finding in findings:
        here = DECISION_BY_SEVERITY[finding.severity]
        if order.index(here) > order.index(decision):
            decision = here
        kept.append(finding)
        if len(kept) >= 2 * FINDINGS_MAX:  # bounded, and the gravest stay
            kept.sort(key=_gravest_first)
            del kept[FINDINGS_MAX:]
    kept.sort(key=_gravest_first)
    return Verdict(decision=decision, findings=tuple(kept[:FINDINGS_MAX]))


def _gravest_first(finding: Finding) -> int:
    return -list(Severity).index(finding.severity)


def demand_allowed(verdict: Verdict, *, subject: str, hold_id: str = "") -> None:
    """Go on only under an ALLOW.

    Args:
        hold_id: under which an admission waits for somebody's decision, if it does.

    Raises:
        RefusedError: `verdict.<decision>`, with the gravest finding in the message.
    """
    if verdict.decision is Decision.ALLOW:
        return
    first = verdict.findings[0]
    facts: dict[str, str] = {"hold_id": hold_id} if hold_id else {}
    look = "`modelkeep scan` lists every finding"
    may = f"; `modelkeep approve {hold_id} --why TEXT --until DATE` lets these bytes in"
    raise RefusedError(
        f"verdict.{verdict.decision}",
        f"{subject} is refused ({verdict.decision}): {first.evidence} ({first.rule})",
        hint=look + may * bool(hold_id),
        subject=subject,
        findings=len(verdict.findings),
        **facts,
    )
