"""A model is its tenant's, and is served only while its domain's key is in force."""

import pytest

from modelkeep.core.errors import RefusedError
from modelkeep.core.principal import Principal
from modelkeep.core.rows import ANY_TENANT, Domain, DomainStatus, Tenant
from modelkeep.gate.domains import KnownDomains, demand_live

ACME = Tenant(name="acme", domain="acme-keys")


def of(tenant):
    return Principal(name="p", tenant=tenant, scopes=("infer:*",))


@pytest.mark.parametrize("status", [DomainStatus.REVOKED, DomainStatus.DESTROYED])
def test_a_domain_that_is_not_live_is_refused_with_its_state(status):
    with pytest.raises(RefusedError) as refused:
        demand_live(Domain(name="d", tenant="t", status=status))
    assert (refused.value.code, refused.value.http_status) == ("key.revoked", 403)
    assert str(status) in refused.value.message


def test_a_domain_that_nothing_speaks_of_is_live_and_the_default_tenants():
    known = KnownDomains()
    demand_live(known.of("default"))
    assert known.is_open_to(of("default"), "default")
    assert not known.is_open_to(of("acme"), "default")


def test_a_tenants_domains_are_closed_to_others():
    more = Domain(name="acme-eu", tenant="acme")
    known = KnownDomains([more, Domain(name="acme-keys", tenant="default")], [ACME])
    for name in ("acme-keys", "acme-eu"):
        assert known.is_open_to(of("acme"), name)
        assert not known.is_open_to(of("default"), name)
        assert known.is_open_to(of(ANY_TENANT), name)


def test_a_tenants_own_domain_keeps_its_state():
    revoked = Domain(name="acme-keys", tenant="default", status=DomainStatus.REVOKED)
    known = KnownDomains([revoked], [ACME])
    with pytest.raises(RefusedError):
        demand_live(known.of("acme-keys"))
