"""Principals, roles and tenants: who is known, what they may do, and whose models they see.

Everything here is a ledger entry, then State; a running gateway follows within a second. Doing a
thing again changes nothing and records nothing. What would let somebody approve can need approval
itself (`[approvals]`): else one person could make the second one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from modelkeep.core.artifact import is_model_name
from modelkeep.core.entry import Fact
from modelkeep.core.errors import MissingError, RefusedError, UsageError
from modelkeep.core.roles import APPROVE, BUILT_IN_ROLES, scopes_of
from modelkeep.core.rows import (
    DEFAULT_DOMAIN,
    DEFAULT_TENANT,
    Domain,
    RegisteredPrincipal,
    Role,
    Tenant,
)
from modelkeep.flows.approvals import demand_approval
from modelkeep.flows.keep import OpenKeep, record
from modelkeep.flows.settings import ApprovalSettings
from modelkeep.flows.tokens import (
    demand_principal_name,
    demand_scopes,
    demand_tenant,
    registered_principal,
)


def created_tenant(keep: OpenKeep, name: str, *, domain: str = "") -> Tenant:
    """Make a tenant; its domain of keys is called like it unless told otherwise.

    Raises:
        UsageError: `tenant.name`.
        RefusedError: `tenant.domain`, when the domain or the name is another tenant's.
    """
    wanted = Tenant(name=name, domain=domain or name)
    for each in (name, wanted.domain):
        if not is_model_name(each):
            raise UsageError(
                "tenant.name",
                f"{each[:120]!r} cannot name a tenant or a domain",
                hint="lower-case letters, digits, '.', '_' and '-'",
            )
    tenants = tenants_of(keep)
    if wanted in tenants:
        return wanted
    taken = _taken(wanted, tenants, keep.state.rows(Domain))
    if taken:
        raise RefusedError(
            "tenant.domain",
            taken,
            hint="name another: `modelkeep tenants new NAME --domain OTHER`; a tenant's domain is "
            "made with `modelkeep keys new OTHER --tenant NAME`",
        )
    record(keep, "tenant.created", {"tenant": wanted.name, "domain": wanted.domain})
    return wanted


def _taken(wanted: Tenant, tenants: Iterable[Tenant], domains: Iterable[Domain]) -> str:
    """Why the tenant cannot be made: whom its name or domain belongs to; empty if to nobody."""
    for each in tenants:
        if each.name == wanted.name:
            return f"tenant {each.name} is there already, with domain {each.domain}"
        if each.domain == wanted.domain:
            return f"domain {each.domain} belongs to tenant {each.name}"
    for made in domains:
        if made.name == wanted.domain and made.tenant != wanted.name:
            return f"domain {made.name} belongs to tenant {made.tenant}, for which it was made"
    return ""


def tenants_of(keep: OpenKeep) -> tuple[Tenant, ...]:
    """All tenants by name; the default one is always there."""
    usual = Tenant(name=DEFAULT_TENANT, domain=DEFAULT_DOMAIN)
    return tuple(sorted((usual, *keep.state.rows(Tenant)), key=lambda each: each.name))


def created_principal(
    keep: OpenKeep,
    name: str,
    *,
    roles: Sequence[str],
    tenant: str = DEFAULT_TENANT,
    approvals: ApprovalSettings,
) -> RegisteredPrincipal:
    """Register a principal: from now on its roles bound what its keys may do.

    Raises:
        UsageError: `token.principal`, or `principal.exists` with another tenant or other roles.
        MissingError: `role.unknown` or `tenant.unknown`.
        RefusedError: `approval.needed`.
    """
    demand_principal_name(name)
    demand_tenant(keep, tenant)
    chosen = _known_roles(keep, roles)
    wanted = RegisteredPrincipal(name=name, tenant=tenant, roles=chosen)
    there = registered_principal(keep, name)
    if there is not None:
        if (there.tenant, there.roles) != (tenant, chosen):
            raise UsageError(
                "principal.exists",
                f"{name} is registered with tenant {there.tenant}, roles {', '.join(there.roles)}",
                hint="`modelkeep principals set` changes the roles; a tenant is for good",
            )
        return there
    if APPROVE in scopes_of(chosen, keep.state.rows(Role)):
        details: dict[str, Fact] = {"roles": chosen, "tenant": tenant}
        demand_approval(keep, approvals, verb="principals.new", subject=name, details=details)
    record(keep, "principal.created", {"principal": name, "tenant": tenant, "roles": chosen})
    return wanted


def changed_principal(
    keep: OpenKeep, name: str, *, roles: Sequence[str], approvals: ApprovalSettings
) -> RegisteredPrincipal:
    """Give a principal these roles in place of those it has; its keys follow.

    Raises:
        MissingError: `principal.unknown` or `role.unknown`.
        RefusedError: `approval.needed`.
    """
    there = known_principal(keep, name)
    chosen = _known_roles(keep, roles)
    if there.roles != chosen:
        defined = keep.state.rows(Role)
        if APPROVE in set(scopes_of(chosen, defined)) - set(scopes_of(there.roles, defined)):
            details: dict[str, Fact] = {"roles": chosen}
            demand_approval(keep, approvals, verb="principals.set", subject=name, details=details)
        record(keep, "principal.changed", {"principal": name, "roles": chosen})
    return known_principal(keep, name)


def disabled_principal(keep: OpenKeep, name: str) -> RegisteredPrincipal:
    """Refuse every key of a principal, those made earlier too, until it is enabled.

    Raises:
        MissingError: `principal.unknown`.
    """
    if not known_principal(keep, name).disabled:
        record(keep, "principal.disabled", {"principal": name})
    return known_principal(keep, name)


def enabled_principal(
    keep: OpenKeep, name: str, *, approvals: ApprovalSettings
) -> RegisteredPrincipal:
    """Accept a principal's keys again; revoked ones stay revoked.

    Raises:
        MissingError: `principal.unknown`.
        RefusedError: `approval.needed`.
    """
    there = known_principal(keep, name)
    if there.disabled:
        if APPROVE in scopes_of(there.roles, keep.state.rows(Role)):
            demand_approval(keep, approvals, verb="principals.enable", subject=name)
        record(keep, "principal.enabled", {"principal": name})
    return known_principal(keep, name)


def known_principal(keep: OpenKeep, name: str) -> RegisteredPrincipal:
    """The registered principal of this name.

    Raises:
        MissingError: `principal.unknown`.
    """
    found = registered_principal(keep, name)
    if found is None:
        raise MissingError(
            "principal.unknown",
            f"no principal {name[:120]!r} is registered",
            hint="`modelkeep principals list` shows them, `principals new` registers one",
        )
    return found


def roles_of(keep: OpenKeep) -> tuple[Role, ...]:
    """All roles by name, the built-in ones too."""
    built_in = [Role(name=name, scopes=scopes) for name, scopes in BUILT_IN_ROLES.items()]
    return tuple(sorted((*built_in, *keep.state.rows(Role)), key=lambda each: each.name))


def defined_role(
    keep: OpenKeep, name: str, *, scopes: Sequence[str], approvals: ApprovalSettings
) -> Role:
    """Make a role, or change what it permits; those who hold it follow.

    Raises:
        UsageError: `role.name`, `role.built_in` or `token.scope`.
        RefusedError: `approval.needed`.
    """
    if not is_model_name(name):
        raise UsageError(
            "role.name",
            f"{name[:120]!r} cannot name a role",
            hint="lower-case letters, digits, '.', '_' and '-'",
        )
    _demand_own(name)
    demand_scopes(scopes)
    wanted = Role(name=name, scopes=tuple(sorted(set(scopes))))
    if wanted not in keep.state.rows(Role):
        if APPROVE in wanted.scopes:
            details: dict[str, Fact] = {"scopes": wanted.scopes}
            demand_approval(keep, approvals, verb="roles.define", subject=name, details=details)
        record(keep, "role.defined", {"role": name, "scopes": wanted.scopes})
    return wanted


def removed_role(keep: OpenKeep, name: str) -> bool:
    """Remove a role that nobody holds; say whether it was there.

    Raises:
        UsageError: `role.built_in`.
        RefusedError: `role.held`.
    """
    _demand_own(name)
    if name not in [each.name for each in keep.state.rows(Role)]:
        return False
    holders = [each.name for each in keep.state.rows(RegisteredPrincipal) if name in each.roles]
    if holders:
        raise RefusedError(
            "role.held",
            f"{len(holders)} principals hold the role {name}, such as {holders[0]}",
            hint="`modelkeep principals set` gives them other roles",
        )
    record(keep, "role.removed", {"role": name})
    return True


def _known_roles(keep: OpenKeep, roles: Sequence[str]) -> tuple[str, ...]:
    known = {each.name for each in roles_of(keep)}
    for role in roles:
        if role not in known:
            raise MissingError(
                "role.unknown",
                f"there is no role {role[:120]!r}",
                hint=f"there are {', '.join(sorted(known))}",
            )
    return tuple(sorted(set(roles)))


def _demand_own(name: str) -> None:
    if name in BUILT_IN_ROLES:
        raise UsageError(
            "role.built_in",
            f"the role {name} is built in and stays as it is",
            hint="define a role of another name",
        )
