"""Which tables `[[limits]]` bind a call."""

from __future__ import annotations

from fnmatch import fnmatchcase
from ipaddress import IPv6Address, ip_address, ip_network

from modelkeep.core.principal import Principal
from modelkeep.gate.limit_settings import LimitSettings

NOWHERE = "unknown"


def counted_network(address: str) -> str:
    """What an address counts under: itself for IPv4, its /64 for IPv6."""
    try:
        known = ip_address(address.partition("%")[0])
    except ValueError:
        return NOWHERE
    if isinstance(known, IPv6Address):
        if known.ipv4_mapped is None:
            return str(ip_network((known, 64), strict=False))
        known = known.ipv4_mapped
    return str(known)


def fits(rule: LimitSettings, principal: Principal, model: str, network: str) -> bool:
    """Whether a table binds the calls of a principal to a model from a counted network."""
    return (
        fnmatchcase(principal.name, rule.principal)
        and fnmatchcase(principal.tenant, rule.tenant)
        and (rule.role == "*" or any(fnmatchcase(each, rule.role) for each in principal.roles))
        and fnmatchcase(model, rule.model)
        and (rule.address == "*" or _is_within(network, rule.address))
    )


def _is_within(network: str, wider: str) -> bool:
    if network == NOWHERE:
        return True  # a limit on some addresses binds who has none
    inner, outer = ip_network(network), ip_network(wider, strict=False)
    if inner.version != outer.version:
        return False
    return inner.subnet_of(outer)  # type: ignore[arg-type]  # both are of one version
