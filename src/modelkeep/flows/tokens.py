"""API keys: made once, shown once, kept as a hash, revoked for good."""

from __future__ import annotations

from collections.abc import Sequence

from modelkeep.core.entry import Fact
from modelkeep.core.errors import MissingError, RefusedError, UsageError
from modelkeep.core.roles import APPROVE, bounded, is_scope, scopes_of
from modelkeep.core.rows import (
    ANY_TENANT,
    DEFAULT_TENANT,
    RegisteredPrincipal,
    Role,
    Tenant,
    Token,
)
from modelkeep.crypto.secret import Secret
from modelkeep.flows.approvals import demand_approval
from modelkeep.flows.keep import OpenKeep, record
from modelkeep.flows.settings import ApprovalSettings
from modelkeep.gate.authn import new_token

EXPIRES_NS_END = 2**63  # what others keep in 64 signed bits
PRINCIPAL_CHARS_MAX = 200


def created_token(
    keep: OpenKeep,
    *,
    principal: str,
    scopes: Sequence[str] | None = None,
    expires_ns: int = 0,
    tenant: str = DEFAULT_TENANT,
    approvals: ApprovalSettings | None = None,
) -> tuple[str, Secret]:
    """Make an API key; return its id and its text, which exists nowhere else.

    Args:
        scopes: by default all that the principal's roles permit, or `infer:*` for a principal
            that is not registered.
        tenant: of a principal that is not registered; others have one.
        approvals: whether a key that can approve needs approval itself.

    Raises:
        UsageError: `token.scope`, `token.principal` or `token.expires`.
        MissingError: `tenant.unknown`.
        RefusedError: `token.beyond`, `principal.disabled` or `approval.needed`.
    """
    demand_principal_name(principal)
    holder = registered_principal(keep, principal)
    chosen = _chosen(keep, holder, scopes)
    if not 0 <= expires_ns < EXPIRES_NS_END:
        raise UsageError(
            "token.expires",
            "the key's expiry is no moment that can be kept",
            hint="give nanoseconds since 1970, or 0 for never",
        )
    if approvals is not None and APPROVE in chosen:
        details: dict[str, Fact] = {"scopes": chosen}
        demand_approval(keep, approvals, verb="tokens.new", subject=principal, details=details)
    home = tenant if holder is None else holder.tenant
    demand_tenant(keep, home)
    return _recorded(keep, principal, scopes=chosen, tenant=home, expires_ns=expires_ns)


def probe_token(keep: OpenKeep, *, expires_ns: int) -> tuple[str, Secret]:
    """Make the key with which a recovery asks every model: the only one that is no tenant's."""
    return _recorded(
        keep,
        "recovery-probe",
        scopes=("infer:*",),
        tenant=ANY_TENANT,
        expires_ns=expires_ns,
    )


def _recorded(
    keep: OpenKeep, principal: str, *, scopes: tuple[str, ...], tenant: str, expires_ns: int
) -> tuple[str, Secret]:
    text, token = new_token(
        keep.entropy, principal=principal, scopes=scopes, tenant=tenant, expires_ns=expires_ns
    )
    record(
        keep,
        "token.created",
        {
            "token_id": token.token_id,
            "secret_sha256": token.secret_sha256,
            "principal": principal,
            "tenant": tenant,
            "scopes": scopes,
            "expires_ns": expires_ns,
        },
    )
    return token.token_id, text


def revoked_token(keep: OpenKeep, token_id: str) -> None:
    """Revoke an API key; a running gateway refuses it within a second. Idempotent.

    Raises:
        MissingError: `token.unknown`.
    """
    known = {token.token_id: token for token in keep.state.rows(Token)}
    if token_id not in known:
        raise MissingError(
            "token.unknown",
            f"there is no key with id {token_id[:40]!r}",
            hint="`modelkeep tokens list` shows the ids",
        )
    if not known[token_id].revoked:
        record(keep, "token.revoked", {"token_id": token_id})


def demand_principal_name(name: str) -> None:
    """Go on only with a name that can be shown.

    Raises:
        UsageError: `token.principal`.
    """
    if not name or len(name) > PRINCIPAL_CHARS_MAX or not name.isprintable():
        raise UsageError(
            "token.principal",
            "a principal needs a name of up to 200 printable characters",
            hint="`modelkeep tokens new alice`",
        )


def demand_scopes(scopes: Sequence[str]) -> None:
    """Go on only with scopes that somebody can hold.

    Raises:
        UsageError: `token.scope`.
    """
    for scope in scopes:
        if not is_scope(scope):
            raise UsageError(
                "token.scope",
                f"{scope[:120]!r} is no scope",
                hint="use infer:MODEL, infer:*, metrics, approve, operate or audit",
            )


def demand_tenant(keep: OpenKeep, name: str) -> None:
    """Go on only with a tenant that was made.

    Raises:
        MissingError: `tenant.unknown`.
    """
    if name not in (DEFAULT_TENANT, *(each.name for each in keep.state.rows(Tenant))):
        raise MissingError(
            "tenant.unknown",
            f"there is no tenant {name[:120]!r}",
            hint="`modelkeep tenants new` makes one",
        )


def registered_principal(keep: OpenKeep, name: str) -> RegisteredPrincipal | None:
    """The registered principal of this name."""
    found = (each for each in keep.state.rows(RegisteredPrincipal) if each.name == name)
    return next(found, None)


def _chosen(
    keep: OpenKeep, holder: RegisteredPrincipal | None, scopes: Sequence[str] | None
) -> tuple[str, ...]:
    """The scopes of a new key; what its holder's roles do not permit is refused, not dropped."""
    if holder is not None and holder.disabled:
        raise RefusedError(
            "principal.disabled",
            f"{holder.name} is disabled: no key of theirs is accepted",
            hint=f"`modelkeep principals enable {holder.name}`",
        )
    allowed = None if holder is None else scopes_of(holder.roles, keep.state.rows(Role))
    usual = ("infer:*",) if allowed is None else allowed
    chosen = usual if scopes is None else tuple(dict.fromkeys(scopes))
    demand_scopes(chosen)
    beyond = sorted(set(chosen) - set(bounded(chosen, allowed)))
    if beyond or not chosen:
        what = ", ".join(beyond) or "anything"
        if holder is None:
            said, hint = "is not registered", "`modelkeep principals new` gives a principal roles"
        else:
            said = f"has the roles {', '.join(holder.roles) or 'none'}"
            hint = "`modelkeep roles list` shows what a role permits"
        raise RefusedError(
            "token.beyond", f"a principal that {said} cannot be given {what}", hint=hint
        )
    return chosen
