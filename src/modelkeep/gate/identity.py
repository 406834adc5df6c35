"""Who a verified token or certificate stands for, and what that may do: never more than all bounds.

A token's claims are bounded three times: by what the configuration says of its issuer, by the
roles of the principal (or by what principals that are not registered may do), and, where the
issuer speaks of roles, by those. Nobody but the holder of an API key can `approve`: an approval is
given with a credential that the keep itself made for that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from modelkeep.core.principal import Principal
from modelkeep.core.roles import APPROVE, bounded, scopes_of
from modelkeep.core.rows import RegisteredPrincipal, Role
from modelkeep.gate.identity_settings import IssuerSettings
from modelkeep.gate.identity_token import Claims, invalid


class Bearers(Protocol):
    """Verifies tokens that are no API keys."""

    @property
    def issuers(self) -> Mapping[str, IssuerSettings]:
        """Whose tokens it knows, by label."""
        ...

    def claims_of(self, token: bytes, *, now_ns: int) -> Claims:
        """What a token says that one of the issuers signed and that holds now.

        Never waits: keys are fetched by others. Raises UsageError `auth.invalid`.
        """
        ...


def subject_of(claims: Claims) -> str:
    """The name of the principal that a token of an issuer speaks for."""
    return claims.name or f"jwt:{claims.issuer}:{claims.subject}"


def principal_of_token(
    claims: Claims,
    settings: IssuerSettings,
    registered: RegisteredPrincipal | None,
    roles: Sequence[Role],
) -> Principal:
    """The principal of a token of an issuer.

    Args:
        registered: the principal of the name that `subject_of` gives.
        roles: those that the operator defined.

    Raises:
        UsageError: `auth.invalid`.
    """
    if claims.name and registered is None:
        raise invalid("unregistered")
    if registered is not None and registered.disabled:
        raise invalid("disabled")
    tenant = _tenant(claims, settings, registered)
    allowed = None if registered is None else scopes_of(registered.roles, roles)
    scopes = bounded(settings.scopes, allowed)
    held = () if registered is None else registered.roles
    if claims.roles is not None:
        scopes = bounded(scopes, scopes_of(claims.roles, roles))
        held = claims.roles if registered is None else held
    return Principal(subject_of(claims), tenant, without_approval(scopes), held)


def registered_as(
    registered: RegisteredPrincipal | None,
    roles: Sequence[Role],
    *,
    wanted: Sequence[str] | None = None,
) -> Principal:
    """The principal of a password or a certificate: always a registered one.

    Args:
        wanted: fewer scopes than its roles permit; None for all of them.

    Raises:
        UsageError: `auth.invalid`.
    """
    if registered is None or registered.disabled:
        raise invalid("disabled")
    allowed = scopes_of(registered.roles, roles)
    scopes = allowed if wanted is None else bounded(wanted, allowed)
    return Principal(registered.name, registered.tenant, without_approval(scopes), registered.roles)


def without_approval(scopes: Sequence[str]) -> tuple[str, ...]:
    """All scopes but the one that only API keys carry."""
    return tuple(scope for scope in scopes if scope != APPROVE)


def _tenant(
    claims: Claims, settings: IssuerSettings, registered: RegisteredPrincipal | None
) -> str:
    """The tenant that the registration, the token and the configuration agree on.

    Raises:
        UsageError: `auth.invalid`.
    """
    if registered is not None:
        tenant = registered.tenant
    else:
        tenant = settings.tenants[0] if claims.tenant is None else claims.tenant
    if tenant not in settings.tenants or claims.tenant not in (None, tenant):
        raise invalid("tenant")
    return tenant
