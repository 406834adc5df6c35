"""Whose model it is, and whether its domain's keys may still be used."""

from __future__ import annotations

from collections.abc import Iterable

from modelkeep.core.errors import RefusedError
from modelkeep.core.principal import Principal
from modelkeep.core.record import replaced
from modelkeep.core.rows import ANY_TENANT, DEFAULT_TENANT, Domain, DomainStatus, Tenant


class KnownDomains:
    """All domains as of one moment; replaced as a whole when State changes.

    A domain that no entry speaks of is live and the default tenant's. A tenant's own domain is
    that tenant's, whatever the domain says.
    """

    __slots__ = ("_by_name",)

    def __init__(self, domains: Iterable[Domain] = (), tenants: Iterable[Tenant] = ()) -> None:
        self._by_name = {each.name: each for each in domains}
        for tenant in tenants:
            own = self.of(tenant.domain)
            self._by_name[own.name] = replaced(own, tenant=tenant.name)

    def of(self, name: str) -> Domain:
        """The domain of this name."""
        return self._by_name.get(name) or Domain(name=name, tenant=DEFAULT_TENANT)

    def is_open_to(self, principal: Principal, name: str) -> bool:
        """Whether the domain is one of the principal's own tenant."""
        return principal.tenant in (self.of(name).tenant, ANY_TENANT)


def demand_live(domain: Domain) -> None:
    """Go on only if the domain's key is in force.

    Raises:
        RefusedError: `key.revoked`.
    """
    if domain.status != DomainStatus.LIVE:
        raise RefusedError(
            "key.revoked",
            f"the key of domain {domain.name} is {domain.status}: its models are not served",
            hint="ask the keep's operator; `modelkeep keys list` shows every domain",
        )
