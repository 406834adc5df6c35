"""Admissions that wait for somebody's decision: parked, approved for a while, withdrawn.

What is held names the model, the bytes (a digest over all files and links) and what was found;
together they make its id. So an approval lets in exactly what its giver saw: other bytes, another
name, or anything else that is found is another admission, which waits anew. It lasts until an
instant that the giver names, and may be withdrawn before. What is denied never waits here: nothing
can let it in.

    admit -> hold -> admission.held -> refused with the id
    approve ID --why --until -> (others agree, where that is asked for) -> admission.approved
    admit -> hold, and approved -> let in -> admission.used beside model.admitted
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from modelkeep.core.artifact import is_model_name
from modelkeep.core.digest import Digest
from modelkeep.core.errors import MissingError, RefusedError, UsageError
from modelkeep.core.instant import rfc3339
from modelkeep.core.record import to_json
from modelkeep.core.rows import HeldAdmission
from modelkeep.core.verdict import Decision, Finding, Severity, Verdict
from modelkeep.flows.approvals import demand_approval
from modelkeep.flows.keep import OpenKeep, record
from modelkeep.flows.settings import ApprovalSettings
from modelkeep.kernels.digest import digest_of
from modelkeep.vault.streams import Plain

ID_CHARS = 16
WHY_CHARS_MAX = 500
# Findings whose words change with the day, so that an approval is of the rule.
_AGEING = frozenset({"dependencies.unassessed"})
# What an approver is told of what was found.
_EVIDENCE_MAX = 10


def content_digest(
    files: Sequence[Plain], links: Sequence[tuple[str, str]], modes: Mapping[str, int]
) -> Digest:
    """What a candidate is called: over paths, digests and modes of its files, and its links."""
    lines = []
    for each in files:
        mode = modes.get(each.path, -1)
        lines.append((each.path, each.size_bytes, digest_of(each.raw), mode))
        each.forget()
    return digest_of(to_json([sorted(lines), sorted(links)]))


def hold_of(keep_id: str, model: str, digest: Digest, verdict: Verdict) -> str:
    """The id of a held admission: the same for the same bytes, name and findings."""
    holding = sorted({
        (each.rule, each.subject, "" if each.rule in _AGEING else each.evidence)
        for each in _holding(verdict)
    })  # fmt: skip
    said = ["modelkeep/v0/held", keep_id, model, digest, holding]
    return hashlib.sha256(to_json(said)).hexdigest()[:ID_CHARS]


def holding_rules(verdict: Verdict) -> tuple[str, ...]:
    """The rules that hold it, each once."""
    assert verdict.decision is Decision.HOLD, "what is denied does not wait for anybody"
    return tuple(sorted({each.rule for each in _holding(verdict)}))


def _holding(verdict: Verdict) -> list[Finding]:
    return [each for each in verdict.findings if each.severity is Severity.MEDIUM]


def is_approved(rows: Iterable[HeldAdmission], hold_id: str, *, now_ns: int) -> bool:
    """Whether somebody lets this in now."""
    return any(each.hold_id == hold_id and standing_of(each, now_ns) == "approved" for each in rows)


def standing_of(row: HeldAdmission, now_ns: int) -> str:
    """`waiting`, `approved`, `expired` or `withdrawn`."""
    if row.withdrawn:
        return "withdrawn"
    if not row.approved_by:
        return "waiting"
    return "approved" if now_ns < row.until_ns else "expired"


def parked(
    keep: OpenKeep,
    hold_id: str,
    *,
    model: str,
    digest: str,
    verdict: Verdict,
    subject: str,
    size: int,
) -> None:
    """Let an admission wait for a decision; once, however often it is asked for."""
    if any(each.hold_id == hold_id and not each.withdrawn for each in held_admissions(keep)):
        return
    record(
        keep,
        "admission.held",
        {
            "hold_id": hold_id,
            "model": model,
            "digest": digest,
            "subject": subject,
            "rules": holding_rules(verdict),
            "evidence": tuple(
                f"{each.subject}: {each.evidence} ({each.rule})"
                for each in _holding(verdict)[:_EVIDENCE_MAX]
            ),
            "size_bytes": size,
        },
    )


def held_admissions(keep: OpenKeep) -> tuple[HeldAdmission, ...]:
    """All of them, the newest first."""
    rows = keep.state.rows(HeldAdmission)
    return tuple(sorted(rows, key=lambda each: (-each.asked_ns, each.hold_id)))


def approved(
    keep: OpenKeep, named: str, *, why: str, until_ns: int, approvals: ApprovalSettings
) -> HeldAdmission:
    """Let a held admission in until an instant; who says so again changes the instant.

    Args:
        named: its id, or the model's name where only one waits under it.

    Raises:
        UsageError: `admission.why`, `admission.until` or `admission.ambiguous`.
        MissingError: `admission.unknown`.
        RefusedError: `admission.withdrawn` or `approval.needed`.
    """
    now_ns = keep.clock.now_ns()
    if not why.strip() or len(why) > WHY_CHARS_MAX or not why.isprintable():
        raise UsageError(
            "admission.why",
            "the reason must say something, on one line",
            hint=f"--why TEXT, at most {WHY_CHARS_MAX} characters: the ledger keeps it",
        )
    if until_ns <= now_ns:
        raise UsageError(
            "admission.until",
            f"{rfc3339(until_ns)} is over: nothing could be let in",
            hint="--until takes a date or a time to come (RFC 3339), such as 2030-01-31",
        )
    row = _named(keep, named)
    if row.withdrawn:
        raise RefusedError(
            "admission.withdrawn",
            f"{row.hold_id} was withdrawn",
            hint="admit it again: then it waits again",
        )
    demand_approval(
        keep,
        approvals,
        verb="models.approve",
        subject=f"{row.model} {row.hold_id}",
        details={"digest": row.digest, "until_ns": until_ns, "why": why},
    )
    record(
        keep,
        "admission.approved",
        {
            "hold_id": row.hold_id,
            "model": row.model,
            "digest": row.digest,
            "rules": row.rules,
            "until_ns": until_ns,
            "why": why,
        },
    )
    return _named(keep, row.hold_id)


def withdrawn(keep: OpenKeep, named: str) -> HeldAdmission:
    """Take an approval back, or give up what waits for one. Idempotent.

    What was let in meanwhile stays: `remove` takes a version out.

    Raises:
        UsageError: `admission.ambiguous`.
        MissingError: `admission.unknown`.
    """
    row = _named(keep, named)
    if not row.withdrawn:
        record(keep, "admission.withdrawn", {"hold_id": row.hold_id, "model": row.model})
    return _named(keep, row.hold_id)


def _named(keep: OpenKeep, named: str) -> HeldAdmission:
    rows = held_admissions(keep)
    for row in rows:
        if row.hold_id == named:
            return row
    now_ns = keep.clock.now_ns()
    of_name = [row for row in rows if row.model == named and not row.withdrawn]
    waiting = [row for row in of_name if standing_of(row, now_ns) == "waiting"]
    found = waiting or of_name
    if not found:
        shown = named if is_model_name(named) else repr(named[:40])
        raise MissingError(
            "admission.unknown",
            f"nothing is held as {shown}",
            hint="`modelkeep approve` without a name lists what is held",
        )
    if len(found) > 1:
        raise UsageError(
            "admission.ambiguous",
            f"{len(found)} admissions of {named} are held",
            hint="say which: " + ", ".join(row.hold_id for row in found[:5]),
        )
    return found[0]
