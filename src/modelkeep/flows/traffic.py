"""Canaries and shadows: which other version answers some of a model's calls, or is asked too.

A canary that answers calls is half a promotion, so it asks for the same approval. It is on record
before it is in force, and ends by one word, by a rollback, or by its own promotion.
"""

from __future__ import annotations

from modelkeep.core.artifact import ModelReference, checked_model_name
from modelkeep.core.entry import Fact
from modelkeep.core.errors import MissingError, UsageError
from modelkeep.core.policy import Use
from modelkeep.core.record import replaced
from modelkeep.core.rows import LOTS, Traffic
from modelkeep.flows.approvals import demand_approval
from modelkeep.flows.keep import OpenKeep, current_snapshot, record
from modelkeep.flows.registry import resolved, signed_version
from modelkeep.flows.settings import ApprovalSettings
from modelkeep.flows.standing import demand_not_ended
from modelkeep.seal.policy import demand_permitted

_PERCENT_LOTS = LOTS // 100


def parsed_share(text: str, *, otherwise: int = 0) -> tuple[str, int]:
    """A version with its share of the calls, in lots: `4=5%`, `next=0.25%`, or `4`.

    Args:
        otherwise: the share where none is written; 0 demands one.

    Raises:
        UsageError: `traffic.share`.
    """
    selector, equals, share = text.partition("=")
    if not equals and otherwise and selector:
        return selector, otherwise
    digits = share.removesuffix("%")
    is_number = digits.replace(".", "", 1).isdecimal() and len(digits) <= len("100.00")
    lots = round(float(digits) * _PERCENT_LOTS) if is_number and share.endswith("%") else 0
    if not selector or not 1 <= lots <= LOTS:
        raise UsageError(
            "traffic.share",
            f"{text[:80]!r} names no version with its share of the calls",
            hint="such as 4=5% or 4=0.25%; more than nothing and at most 100%",
        )
    return selector, lots


def traffic_set(
    keep: OpenKeep,
    name: str,
    *,
    canary: tuple[str, int] | None,
    shadow: tuple[str, int] | None,
    sticky: bool = False,
    approvals: ApprovalSettings,
) -> Traffic:
    """Say who answers some of a model's calls, and who is asked too, in place of what was said.

    Args:
        canary: a version, or an alias of one, and its lots of 10,000.
        shadow: the same.

    Raises:
        UsageError: `traffic.nothing` or `traffic.same`.
        MissingError: `model.unknown`.
        RefusedError: `policy.*`, `version.ended` or `approval.needed`.
    """
    checked_model_name(name)
    if canary is None and shadow is None:
        raise UsageError(
            "traffic.nothing",
            "neither a canary nor a shadow is named",
            hint=f"`modelkeep traffic set {name} --canary VERSION=5%`",
        )
    facts: dict[str, Fact] = {"model": name, "sticky": sticky}
    facts |= _said(keep, name, "canary", canary) | _said(keep, name, "shadow", shadow)
    if facts["canary"] == facts["shadow"]:
        raise UsageError("traffic.same", "canary and shadow are the same version")
    before = traffic_of(keep, name)
    if before is not None and all(getattr(before, key) == value for key, value in facts.items()):
        return before
    if canary is not None:
        share = f"{canary[1] / _PERCENT_LOTS:g} %"
        subject = f"{name}: version {facts['canary']} answers {share} of the calls"
        demand_approval(keep, approvals, verb="models.promote", subject=subject, details=facts)
    record(keep, "traffic.set", facts)
    row = traffic_of(keep, name)
    assert row is not None
    return row


def traffic_ended(keep: OpenKeep, name: str, *, reason: str = "") -> bool:
    """End a model's canary and shadow; whether there was one."""
    if traffic_of(keep, name) is None:
        return False
    record(keep, "traffic.ended", {"model": name, "reason": reason})
    return True


def traffic_of(keep: OpenKeep, name: str) -> Traffic | None:
    """What is said of one model's calls."""
    return next((row for row in keep.state.rows(Traffic) if row.model == name), None)


def _said(keep: OpenKeep, name: str, role: str, given: tuple[str, int] | None) -> dict[str, Fact]:
    """The facts of one part, of a version that a service may load."""
    if given is None:
        return {role: 0, f"{role}_lots": 0}
    selector, lots = given
    reference = ModelReference(name=name, selector=selector)
    version = resolved(reference, current_snapshot(keep), keep.state)
    exactly = ModelReference(name=name, selector=str(version))
    manifest, _ = signed_version(keep, exactly)
    if manifest.version != version:
        raise MissingError("model.unknown", f"there is no {name}:{version}")
    anybody = replaced(manifest.policy, loaders=(), hosts=())
    demand_permitted(
        replaced(manifest, policy=anybody),
        Use.SERVE,
        actor=keep.actor,
        now_ns=keep.clock.now_ns(),
    )
    demand_not_ended(keep, name, version)
    return {role: version, f"{role}_lots": lots}
