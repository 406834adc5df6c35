"""The owner's view of who may do what: keys, principals, roles, tenants, approvals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from modelkeep.adapters.keysource_file import create_protected
from modelkeep.core.errors import UsageError
from modelkeep.core.rows import (
    DEFAULT_TENANT,
    Approval,
    ClientCertificate,
    RegisteredPrincipal,
    Role,
    Tenant,
    Token,
)
from modelkeep.crypto.client_certificates import FILE_BYTES_MAX, IssuedCertificate
from modelkeep.crypto.link_certificates import HOST_DAYS, HostCertificate
from modelkeep.crypto.secret import Secret
from modelkeep.flows.accounts import removed_password, set_password
from modelkeep.flows.approvals import given_approval, refused_approval, status_of
from modelkeep.flows.certificates import (
    certificates_of,
    new_certificate,
    new_host_certificate,
    registered_certificate,
    revoked_certificate,
)
from modelkeep.flows.issuers import KnownIssuer, issuers_of, marked_issuer
from modelkeep.flows.keep import OpenKeep
from modelkeep.flows.principals import (
    changed_principal,
    created_principal,
    created_tenant,
    defined_role,
    disabled_principal,
    enabled_principal,
    removed_role,
    roles_of,
    tenants_of,
)
from modelkeep.flows.settings import ApprovalSettings
from modelkeep.flows.tokens import created_token, revoked_token
from modelkeep.gate.identity_settings import IdentitySettings

CERTIFICATE_DAYS = 90


class Access:
    """Who may do what in an open keep.

    What a method changed is in force in a running gateway when it returns.

    Args:
        approvals: table `[approvals]` of the keep.
        await_gateway: returns once a running gateway has read State again.
        identity: table `[identity]` of the keep.
    """

    def __init__(
        self,
        keep: OpenKeep,
        approvals: ApprovalSettings,
        await_gateway: Callable[[], None],
        identity: IdentitySettings = IdentitySettings(),  # noqa: B008 - frozen
    ) -> None:
        self._open = keep
        self._approvals = approvals
        self._await_gateway = await_gateway
        self._identity = identity

    def new_token(
        self,
        principal: str,
        *,
        scopes: Sequence[str] | None = None,
        expires_ns: int = 0,
        tenant: str = DEFAULT_TENANT,
    ) -> tuple[str, Secret]:
        """Make an API key: its id, and its text, which exists nowhere else.

        Args:
            scopes: by default all that the principal's roles permit, or `infer:*` for a principal
                that is not registered.
            tenant: of a principal that is not registered; others have one.

        Raises:
            UsageError: `token.*`.
            MissingError: `tenant.unknown`.
            RefusedError: `token.beyond`, `principal.disabled` or `approval.needed`.
        """
        made = created_token(
            self._open,
            principal=principal,
            scopes=scopes,
            expires_ns=expires_ns,
            tenant=tenant,
            approvals=self._approvals,
        )
        self._await_gateway()
        return made

    def tokens(self) -> tuple[Token, ...]:
        """All API keys: ids, holders, scopes; never the keys."""
        return self._open.state.rows(Token)

    def revoke_token(self, token_id: str) -> None:
        """Revoke an API key for good.

        Raises:
            MissingError: `token.unknown`.
        """
        revoked_token(self._open, token_id)
        self._await_gateway()

    def new_principal(
        self, name: str, *, roles: Sequence[str] = (), tenant: str = DEFAULT_TENANT
    ) -> RegisteredPrincipal:
        """Register a principal: from now on its roles bound what its keys may do.

        Raises:
            UsageError: `token.principal` or `principal.exists`.
            MissingError: `role.unknown` or `tenant.unknown`.
            RefusedError: `approval.needed`.
        """
        made = created_principal(
            self._open, name, roles=roles, tenant=tenant, approvals=self._approvals
        )
        self._await_gateway()
        return made

    def principals(self) -> tuple[RegisteredPrincipal, ...]:
        """All registered principals."""
        return self._open.state.rows(RegisteredPrincipal)

    def set_principal(self, name: str, *, roles: Sequence[str]) -> RegisteredPrincipal:
        """Give a principal these roles in place of those it has.

        Raises:
            MissingError: `principal.unknown` or `role.unknown`.
            RefusedError: `approval.needed`.
        """
        changed = changed_principal(self._open, name, roles=roles, approvals=self._approvals)
        self._await_gateway()
        return changed

    def disable_principal(self, name: str) -> RegisteredPrincipal:
        """Refuse every key of a principal until it is enabled.

        Raises:
            MissingError: `principal.unknown`.
        """
        changed = disabled_principal(self._open, name)
        self._await_gateway()
        return changed

    def enable_principal(self, name: str) -> RegisteredPrincipal:
        """Accept a principal's keys again; revoked ones stay revoked.

        Raises:
            MissingError: `principal.unknown`.
            RefusedError: `approval.needed`.
        """
        changed = enabled_principal(self._open, name, approvals=self._approvals)
        self._await_gateway()
        return changed

    def set_password(self, name: str, password: Secret) -> None:
        """Give a principal a password for `POST /v1/token`; tokens of an earlier one end.

        Raises:
            MissingError: `principal.unknown`.
            UsageError: `account.password`.
        """
        set_password(self._open, name, password, cost=self._identity.passwords)
        self._await_gateway()

    def remove_password(self, name: str) -> bool:
        """Take a principal's password away, with the tokens given for it; whether there was one.

        Raises:
            MissingError: `principal.unknown`.
        """
        was_there = removed_password(self._open, name)
        self._await_gateway()
        return was_there

    def new_certificate(
        self,
        name: str,
        *,
        out: Path,
        key_out: Path | None = None,
        request: Path | None = None,
        days: int = CERTIFICATE_DAYS,
    ) -> IssuedCertificate:
        """Issue a client certificate of the keep's own authority.

        Args:
            out: where the certificate goes; there must be nothing yet.
            key_out: where its private key goes, readable by its owner only; there must be nothing
                yet. Without it, `request` brings the public half.

        Raises:
            MissingError: `principal.unknown`.
            UsageError: `certificate.*`.
        """
        if (key_out is None) == (request is None):
            raise UsageError(
                "certificate.key_out",
                "either a file for the new key is given, or a request that brings one",
                hint="--key-out FILE or --csr FILE",
            )
        for path in filter(None, (out, key_out)):
            if path.exists() or path.is_symlink():
                raise UsageError("certificate.exists", f"{path} is there already")
        asked = b"" if request is None else _file_bytes(request)
        made = new_certificate(self._open, name, days=days, request=asked)
        hint = "choose a path where nothing is yet"
        if key_out is not None and made.key is not None:
            create_protected(key_out, made.key.reveal(), hint=hint)
        out.write_bytes(made.pem)
        self._await_gateway()
        return made

    def register_certificate(self, name: str, path: Path) -> IssuedCertificate:
        """Register a client certificate of another authority.

        Raises:
            MissingError: `principal.unknown`.
            UsageError: `certificate.*`.
            RefusedError: `certificate.taken`.
        """
        given = registered_certificate(self._open, name, _file_bytes(path))
        self._await_gateway()
        return given

    def host_certificate(self, host: str, *, out: Path, days: int = HOST_DAYS) -> HostCertificate:
        """Make the certificate of a machine that is to run replicas for this keep's service.

        Args:
            out: where it goes with its private key, readable by its owner only; there must be
                nothing yet.

        Raises:
            UsageError: `host.name`, `certificate.days` or `certificate.exists`.
        """
        if out.exists() or out.is_symlink():
            raise UsageError("certificate.exists", f"{out} is there already")
        made = new_host_certificate(self._open, host, days=days)
        create_protected(out, made.pem.reveal(), hint="choose a path where nothing is yet")
        return made

    def certificates(self) -> tuple[ClientCertificate, ...]:
        """All client certificates."""
        return certificates_of(self._open)

    def revoke_certificate(self, fingerprint: str) -> None:
        """Revoke a client certificate for good.

        Raises:
            MissingError: `certificate.unknown`.
        """
        revoked_certificate(self._open, fingerprint)
        self._await_gateway()

    def issuers(self) -> tuple[KnownIssuer, ...]:
        """All configured issuers of tokens."""
        return issuers_of(self._open, self._identity.issuers)

    def disable_issuer(self, label: str) -> KnownIssuer:
        """Refuse every token of an issuer until it is enabled.

        Raises:
            MissingError: `issuer.unknown`.
        """
        changed = marked_issuer(self._open, self._identity.issuers, label, disabled=True)
        self._await_gateway()
        return changed

    def enable_issuer(self, label: str) -> KnownIssuer:
        """Accept an issuer's tokens again.

        Raises:
            MissingError: `issuer.unknown`.
        """
        changed = marked_issuer(self._open, self._identity.issuers, label, disabled=False)
        self._await_gateway()
        return changed

    def roles(self) -> tuple[Role, ...]:
        """All roles, the built-in ones too."""
        return roles_of(self._open)

    def define_role(self, name: str, *, scopes: Sequence[str]) -> Role:
        """Make a role, or change what it permits.

        Raises:
            UsageError: `role.name`, `role.built_in` or `token.scope`.
            RefusedError: `approval.needed`.
        """
        made = defined_role(self._open, name, scopes=scopes, approvals=self._approvals)
        self._await_gateway()
        return made

    def remove_role(self, name: str) -> bool:
        """Remove a role that nobody holds; say whether it was there.

        Raises:
            UsageError: `role.built_in`.
            RefusedError: `role.held`.
        """
        return removed_role(self._open, name)

    def new_tenant(self, name: str, *, domain: str = "") -> Tenant:
        """Make a tenant; its domain of keys is called like it unless told otherwise.

        Raises:
            UsageError: `tenant.name`.
            RefusedError: `tenant.domain`.
        """
        made = created_tenant(self._open, name, domain=domain)
        self._await_gateway()
        return made

    def tenants(self) -> tuple[Tenant, ...]:
        """All tenants; the default one is always there."""
        return tenants_of(self._open)

    def approvals(self) -> tuple[tuple[Approval, str], ...]:
        """All requests, oldest first, each with `open`, `used`, `refused` or `expired`."""
        now_ns = self._open.clock.now_ns()
        rows = sorted(self._open.state.rows(Approval), key=lambda each: each.requested_ns)
        return tuple((row, status_of(row, now_ns)) for row in rows)

    def give_approval(self, approval_id: str, key: Secret) -> Approval:
        """Agree to a request in the name of whoever holds the API key.

        Raises:
            UsageError: `auth.invalid`.
            RefusedError: `auth.forbidden`, `approval.self` or `approval.closed`.
            MissingError: `approval.unknown`.
        """
        return given_approval(self._open, approval_id, key)

    def refuse_approval(self, approval_id: str, key: Secret) -> Approval:
        """Say no to a request, for good.

        Raises:
            UsageError: `auth.invalid`.
            RefusedError: `auth.forbidden` or `approval.closed`.
            MissingError: `approval.unknown`.
        """
        return refused_approval(self._open, approval_id, key)


def _file_bytes(path: Path) -> bytes:
    """A certificate or a request out of a file.

    Raises:
        UsageError: `certificate.file`.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise UsageError("certificate.file", f"{path}: {error.strerror}") from error
    if len(raw) > FILE_BYTES_MAX:
        raise UsageError("certificate.file", f"{path} is too long for a certificate")
    return raw
