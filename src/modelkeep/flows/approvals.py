"""Approvals: what one person alone may not do, asked for, agreed to by others, used once.

A verb that needs approval asks `demand_approval` before it does anything:
 1. Is approval switched on for this verb? Else go on.
 2. A request is looked for that says exactly this (its digest binds keep, verb, subject, details
    and who asks), was not used, refused or forgotten (expired).
 3. Of those who agreed, only others than who asks count, each once, and only while they are still
    registered, enabled and hold the scope `approve`.
 4. Enough: the request is used up, durably, then the verb goes on. Not enough, or no request: one
    is recorded, once, and the verb is refused with the words that the approvers need.

An approver proves who they are with an API key, checked as the gateway checks it. What this stops
is a mistake, and a single dishonest hand that must not go unseen: everything above is in the
ledger. It does not stop whoever holds the root's key and writes a program of their own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from modelkeep.core.entry import Fact
from modelkeep.core.errors import MissingError, RefusedError
from modelkeep.core.instant import NS_PER_S
from modelkeep.core.record import to_json
from modelkeep.core.roles import APPROVE, scopes_of
from modelkeep.core.rows import Approval, RegisteredPrincipal, Role, Token
from modelkeep.crypto.secret import Secret
from modelkeep.flows.keep import OpenKeep, record
from modelkeep.flows.settings import APPROVABLE_VERBS, ApprovalSettings
from modelkeep.gate.authn import Keyring, demand_scope

APPROVAL_ID_BYTES = 8


def demand_approval(
    keep: OpenKeep,
    settings: ApprovalSettings,
    *,
    verb: str,
    subject: str,
    requested_by: str = "",
    details: Mapping[str, Fact] | None = None,
) -> None:
    """Go on only if enough others agreed to exactly this; the numbers are those above.

    Args:
        requested_by: who asks; by default who opened the keep.
        details: what else the act depends on: another value is another request.

    Raises:
        RefusedError: `approval.needed`.
    """
    assert verb in APPROVABLE_VERBS, f"{verb} is not in APPROVABLE_VERBS"
    if settings.needed == 0 or verb not in settings.verbs:  # 1
        return
    asker = requested_by or keep.actor
    digest = _digest(keep.keep_id, verb, subject, asker, details or {})
    now_ns = keep.clock.now_ns()
    waiting = [
        each
        for each in keep.state.rows(Approval)
        if each.digest == digest and status_of(each, now_ns) == "open"  # 2
    ]
    for each in waiting:
        if len(agreed(keep, each)) >= max(settings.needed, each.needed):  # 3
            record(keep, "approval.used", {"approval_id": each.approval_id})  # 4
            return
    if waiting:
        approval_id, missing = waiting[0].approval_id, _missing(keep, waiting[0], settings)
    else:
        approval_id = keep.entropy.random_bytes(APPROVAL_ID_BYTES).hex()
        missing = settings.needed
        facts: dict[str, Fact] = {
            "approval_id": approval_id,
            "verb": verb,
            "subject": subject,
            "digest": digest,
            "requested_by": asker,
            "expires_ns": now_ns + int(settings.expires_s * NS_PER_S),
            "needed": settings.needed,
        }
        record(keep, "approval.requested", facts)
    raise RefusedError(
        "approval.needed",
        f"`{verb}` of {subject} needs the approval of {missing} more, others than {asker}; "
        f"the request is {approval_id}",
        hint=f"each approver: `modelkeep approvals give {approval_id} --token-file FILE`; "
        "then run this again",
        approval_id=approval_id,
        missing=missing,
    )


def given_approval(keep: OpenKeep, approval_id: str, key: Secret) -> Approval:
    """Agree to a request in the name of whoever holds the key. Idempotent.

    Raises:
        UsageError: `auth.invalid`.
        RefusedError: `auth.forbidden`, `approval.self` or `approval.closed`.
        MissingError: `approval.unknown`.
    """
    by = _approver(keep, key)
    row = _open_request(keep, approval_id)
    if _is_self(by, row.requested_by):
        raise RefusedError(
            "approval.self",
            f"{by} asked for this and cannot agree to it",
            hint="somebody else with the scope `approve` has to",
        )
    if by not in row.given_by:
        record(keep, "approval.given", {"approval_id": approval_id, "by": by})
    return _found(keep, approval_id)


def refused_approval(keep: OpenKeep, approval_id: str, key: Secret) -> Approval:
    """Say no to a request, for good; who asks may ask anew. Idempotent.

    Raises:
        UsageError: `auth.invalid`.
        RefusedError: `auth.forbidden` or `approval.closed`.
        MissingError: `approval.unknown`.
    """
    by = _approver(keep, key)
    if _found(keep, approval_id).refused_by != by:
        _open_request(keep, approval_id)
        record(keep, "approval.refused", {"approval_id": approval_id, "by": by})
    return _found(keep, approval_id)


def status_of(row: Approval, now_ns: int) -> str:
    """`open`, `used`, `refused` or `expired`."""
    if row.used:
        return "used"
    if row.refused_by:
        return "refused"
    return "open" if now_ns < row.expires_ns else "expired"


def agreed(keep: OpenKeep, row: Approval) -> tuple[str, ...]:
    """Who agreed and counts today."""
    roles = keep.state.rows(Role)
    approvers = {
        each.name
        for each in keep.state.rows(RegisteredPrincipal)
        if not each.disabled and APPROVE in scopes_of(each.roles, roles)
    }
    counted = [by for by in row.given_by if by in approvers and not _is_self(by, row.requested_by)]
    return tuple(dict.fromkeys(counted))


def _missing(keep: OpenKeep, row: Approval, settings: ApprovalSettings) -> int:
    return max(settings.needed, row.needed) - len(agreed(keep, row))


def _digest(keep_id: str, verb: str, subject: str, asker: str, details: Mapping[str, Fact]) -> str:
    said = ["modelkeep/v0/approval", keep_id, verb, subject, asker, sorted(details.items())]
    return hashlib.sha256(to_json(said)).hexdigest()


def _is_self(by: str, requested_by: str) -> bool:
    """Whether an approver is who asked; `cli:alice` is alice at the command line."""
    return requested_by in (by, f"cli:{by}")


def _approver(keep: OpenKeep, key: Secret) -> str:
    """The name of the principal whose key this is, if it may approve."""
    rows = keep.state.rows
    keyring = Keyring(rows(Token), rows(RegisteredPrincipal), rows(Role))
    principal = keyring.principal_of(b"Bearer " + key.reveal(), now_ns=keep.clock.now_ns())
    demand_scope(principal, APPROVE)
    return principal.name


def _found(keep: OpenKeep, approval_id: str) -> Approval:
    for row in keep.state.rows(Approval):
        if row.approval_id == approval_id:
            return row
    raise MissingError(
        "approval.unknown",
        f"there is no request {approval_id[:40]!r}",
        hint="`modelkeep approvals list` shows the ids",
    )


def _open_request(keep: OpenKeep, approval_id: str) -> Approval:
    row = _found(keep, approval_id)
    status = status_of(row, keep.clock.now_ns())
    if status != "open":
        raise RefusedError(
            "approval.closed",
            f"the request {approval_id} is {status}",
            hint="whoever asked runs the verb again, which makes a new request",
        )
    return row
