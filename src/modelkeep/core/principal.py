"""Who acts: a principal, and what it may do."""

from __future__ import annotations

from modelkeep.core.record import Record


class Principal(Record, frozen=True):
    """An authenticated actor.

    Scopes are `infer:<model>` (one model), `infer:*` (every model of the tenant) and `metrics`.

    Attributes:
        roles: that it holds, for rules that speak of roles; what it may do is in `scopes` alone.
    """

    name: str
    tenant: str
    scopes: tuple[str, ...]
    roles: tuple[str, ...] = ()


def is_permitted(principal: Principal, scope: str) -> bool:
    """Whether the principal holds the scope itself or the wildcard of its family.

    An empty list of scopes permits nothing.
    """
    family, _, _ = scope.partition(":")
    return scope in principal.scopes or f"{family}:*" in principal.scopes
