"""Findings fold into one verdict: the gravest decides, whatever their order and number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import RefusedError
from modelkeep.core.limits import FINDINGS_MAX
from modelkeep.core.verdict import (
    DECISION_BY_SEVERITY,
    Decision,
    Finding,
    Severity,
    Verdict,
    demand_allowed,
    judged,
)

ORDER = list(Decision)


def finding(severity, number=0):
    return Finding(
        rule="test.rule", severity=severity, subject="it", evidence=f"{severity} {number}"
    )


severities = st.lists(st.sampled_from(Severity), max_size=2 * FINDINGS_MAX + 10)


def test_nothing_noticed_is_allowed():
    assert judged([]) == Verdict(decision=Decision.ALLOW)


@pytest.mark.parametrize("severity", Severity)
def test_every_severity_has_its_decision(severity):
    assert judged([finding(severity)]).decision is DECISION_BY_SEVERITY[severity]


@given(severities, st.randoms())
def test_order_does_not_matter(found, random):
    findings = [finding(severity, number) for number, severity in enumerate(found)]
    shuffled = random.sample(findings, len(findings))
    one, other = judged(findings), judged(shuffled)
    assert one.decision is other.decision
    assert len(one.findings) == len(other.findings)
    assert [each.severity for each in one.findings] == [each.severity for each in other.findings]


@given(severities)
def test_the_finding_that_decided_is_shown_first(found):
    verdict = judged([finding(severity, number) for number, severity in enumerate(found)])
    if verdict.decision is Decision.ALLOW:
        assert all(severity is Severity.NOTE for severity in found)
        return
    assert DECISION_BY_SEVERITY[verdict.findings[0].severity] is verdict.decision


@pytest.mark.parametrize("gravest", [Severity.MEDIUM, Severity.HIGH])
def test_many_notes_do_not_hide_the_reason(gravest):
    """Whoever writes a file decides how many harmless things stand before the harmful one."""
    many = [finding(Severity.NOTE)] * FINDINGS_MAX
    assert judged([*many, finding(gravest)]).findings[0].severity is gravest


@given(severities)
def test_a_verdict_is_bounded_and_never_milder_than_any_finding(found):
    verdict = judged(finding(severity) for severity in found)
    assert len(verdict.findings) == min(len(found), FINDINGS_MAX)
    worst = max((ORDER.index(DECISION_BY_SEVERITY[each]) for each in found), default=0)
    assert ORDER.index(verdict.decision) == worst


@given(severities, severities)
def test_more_findings_never_make_it_milder(found, more):
    one = judged(finding(each) for each in found)
    both = judged(finding(each) for each in (*found, *more))
    assert ORDER.index(both.decision) >= ORDER.index(one.decision)


@pytest.mark.parametrize("decision", [each for each in Decision if each is not Decision.ALLOW])
def test_only_allow_goes_on(decision):
    demand_allowed(Verdict(decision=Decision.ALLOW), subject="it")
    verdict = Verdict(decision=decision, findings=(finding(Severity.HIGH),))
    with pytest.raises(RefusedError) as refused:
        demand_allowed(verdict, subject="model.onnx")
    assert refused.value.code == f"verdict.{decision}"
    assert "model.onnx" in refused.value.message
    assert "high 0" in refused.value.message
