"""Scopes and roles: what a key may do is what it was given, bounded by what its principal may.

A scope permits one thing or a family of things; a role names a set of scopes. A registered
principal holds roles; its keys can do what both the key and one of the roles permit. A principal
that is not registered is only a name on its keys: it can call and be scraped, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from modelkeep.core.artifact import is_model_name
from modelkeep.core.rows import Role

APPROVE = "approve"
# Beside `infer:MODEL`: every model of the tenant, the gateway's figures, agreeing to others' acts,
# running the service, reading the record.
WIDE_SCOPES = ("infer:*", "metrics", APPROVE, "operate", "audit")
BUILT_IN_ROLES: Mapping[str, tuple[str, ...]] = {
    "approver": (APPROVE,),
    "auditor": ("audit", "metrics"),
    "caller": ("infer:*",),
    "operator": ("infer:*", "metrics", "operate"),
    "scraper": ("metrics",),
}
_UNREGISTERED = ("infer:*", "metrics")


def is_scope(scope: str) -> bool:
    """Whether a scope is one that somebody can hold."""
    family, _, model = scope.partition(":")
    return scope in WIDE_SCOPES or (family == "infer" and is_model_name(model))


def scopes_of(roles: Iterable[str], defined: Iterable[Role]) -> tuple[str, ...]:
    """What roles permit together, sorted; a role that is not there any more permits nothing."""
    known = {role.name: role.scopes for role in defined} | dict(BUILT_IN_ROLES)
    return tuple(sorted({scope for role in roles for scope in known.get(role, ())}))


def bounded(scopes: Sequence[str], allowed: Sequence[str] | None) -> tuple[str, ...]:
    """What both permit, wildcards resolved: `infer:*` within `infer:fraud` is `infer:fraud`.

    Args:
        allowed: by the principal's roles; None for a principal that is not registered.
    """
    bound = _UNREGISTERED if allowed is None else allowed
    both = [scope for scope in scopes if _permits(bound, scope)]
    both += [scope for scope in bound if _permits(scopes, scope)]
    return tuple(dict.fromkeys(both))


def _permits(scopes: Sequence[str], scope: str) -> bool:
    family, _, _ = scope.partition(":")
    return scope in scopes or f"{family}:*" in scopes
