"""Verbs about who may do what: tokens, principals, certificates, roles, tenants, approvals."""

from __future__ import annotations

import argparse
import getpass
import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from modelkeep.cli.opened import opened
from modelkeep.cli.output import print_json, print_table, safe_text, said
from modelkeep.core.errors import UsageError
from modelkeep.core.instant import NS_PER_S, rfc3339
from modelkeep.core.record import as_plain
from modelkeep.core.rows import DEFAULT_TENANT, RegisteredPrincipal
from modelkeep.crypto.secret import Secret

if TYPE_CHECKING:
    from modelkeep.sdk.keep import Keep

S_PER_DAY = 86_400
PASSWORD_BYTES_MAX = 4096  # the keep itself takes fewer, and says so
API_KEY_BYTES_MAX = 1024  # a key has 63; a file may end in blank lines
DAYS_MAX = 36_500  # a hundred years: far inside what 64 bits of nanoseconds hold


def token_new(options: argparse.Namespace) -> int:
    """Make an API key and show it, once."""
    expires_ns = _expires_ns(options.days)
    with opened(options) as keep:
        token_id, text = keep.access.new_token(
            options.principal, scopes=tuple(options.scope) or None, expires_ns=expires_ns
        )
        scopes = next(each.scopes for each in keep.access.tokens() if each.token_id == token_id)
        for note in _key_notes(keep, options.principal, scopes):
            print(f"modelkeep: note: {safe_text(note)}", file=sys.stderr)
    if options.json:
        print_json({"token_id": token_id, "api_key": text.reveal().decode(), "scopes": scopes})
    else:
        print(text.reveal().decode())
    return 0


def _key_notes(keep: Keep, principal: str, scopes: Sequence[str]) -> Iterator[str]:
    """What whoever makes a key may not have meant."""
    registered = {each.name for each in keep.access.principals()}
    if "infer:*" in scopes and principal not in registered:
        yield (
            f"{principal} is not registered: this key may call every model of the tenant "
            f"{DEFAULT_TENANT}; `modelkeep principals new {principal} --role caller` registers it"
        )
    served = {each.name for each in keep.config.upstreams}
    known = {"*"} | served | {each.name for each in keep.models()}
    for scope in scopes:
        family, _, model = scope.partition(":")
        if family == "infer" and model not in known:
            yield f"there is no model {model} yet: {scope} permits nothing until there is"


def token_list(options: argparse.Namespace) -> int:
    """List API keys, never their secrets."""
    with opened(options) as keep:
        tokens = keep.access.tokens()
    if options.json:
        names = ("token_id", "principal", "tenant", "scopes", "expires_ns", "revoked")
        print_json([{name: getattr(token, name) for name in names} for token in tokens])
        return 0
    print_table(
        ("id", "principal", "scopes", "expires", "state"),
        [
            (
                token.token_id,
                token.principal,
                ", ".join(token.scopes),
                rfc3339(token.expires_ns)[:19] if token.expires_ns else "never",
                "revoked" if token.revoked else "active",
            )
            for token in tokens
        ],
    )
    return 0


def token_revoke(options: argparse.Namespace) -> int:
    """Revoke an API key."""
    with opened(options) as keep:
        keep.access.revoke_token(options.token_id)
    if options.json:
        print_json({"token_id": options.token_id, "revoked": True})
    else:
        print(f"revoked {options.token_id}; a running gateway refuses it from now on")
    return 0


def principal_new(options: argparse.Namespace) -> int:
    """Register a principal."""
    with opened(options) as keep:
        row = keep.access.new_principal(
            options.principal, roles=options.role, tenant=options.tenant
        )
    return said(row, f"{row.name}: {_roles(row)}; tenant {row.tenant}", as_json=options.json)


def principal_list(options: argparse.Namespace) -> int:
    """List registered principals."""
    with opened(options) as keep:
        rows = keep.access.principals()
    if options.json:
        print_json(rows)
        return 0
    print_table(
        ("principal", "tenant", "roles", "state"),
        [
            (
                row.name,
                row.tenant,
                ", ".join(row.roles) or "none",
                "disabled" if row.disabled else "enabled",
            )
            for row in rows
        ],
    )
    return 0


def principal_set(options: argparse.Namespace) -> int:
    """Change a principal's roles."""
    with opened(options) as keep:
        row = keep.access.set_principal(options.principal, roles=options.role)
    return said(row, f"{row.name}: {_roles(row)}", as_json=options.json)


def principal_disable(options: argparse.Namespace) -> int:
    """Refuse a principal's keys."""
    with opened(options) as keep:
        row = keep.access.disable_principal(options.principal)
    return said(
        row, f"disabled {row.name}; a running gateway refuses their keys now", as_json=options.json
    )


def principal_enable(options: argparse.Namespace) -> int:
    """Accept a principal's keys again."""
    with opened(options) as keep:
        row = keep.access.enable_principal(options.principal)
    return said(
        row, f"enabled {row.name}; keys that were revoked stay revoked", as_json=options.json
    )


def principal_password(options: argparse.Namespace) -> int:
    """Set or remove a principal's password."""
    password = None if options.remove else _password()
    with opened(options) as keep:
        if password is None:
            was_there = keep.access.remove_password(options.principal)
            text = "removed the password" if was_there else "there is no password"
        else:
            keep.access.set_password(options.principal, password)
            text = "has a new password; tokens of an earlier one count no more"
    facts = {"name": options.principal, "has_password": password is not None}
    return said(facts, f"{options.principal}: {text}", as_json=options.json)


def principal_certificate(options: argparse.Namespace) -> int:
    """Issue or register a client certificate."""
    with opened(options) as keep:
        if options.register is not None:
            made = keep.access.register_certificate(options.principal, options.register)
        elif options.out is not None:
            made = keep.access.new_certificate(
                options.principal,
                out=options.out,
                key_out=options.key_out,
                request=options.csr,
                days=options.days,
            )
        else:
            raise UsageError(
                "certificate.out",
                "nobody says where the certificate goes",
                hint="--out FILE with --key-out FILE or --csr FILE; or --register FILE",
            )
    facts = {
        "principal": options.principal,
        "fingerprint": made.fingerprint,
        "expires_ns": made.expires_ns,
    }
    until = rfc3339(made.expires_ns)[:19]
    text = f"{made.fingerprint} speaks for {options.principal} until {until}"
    return said(facts, text, as_json=options.json)


def certificate_list(options: argparse.Namespace) -> int:
    """List client certificates."""
    with opened(options) as keep:
        rows = keep.access.certificates()
    if options.json:
        print_json(rows)
        return 0
    print_table(
        ("fingerprint", "principal", "expires", "state"),
        [
            (
                row.fingerprint,
                row.principal,
                rfc3339(row.expires_ns)[:19],
                "revoked" if row.revoked else "active",
            )
            for row in rows
        ],
    )
    return 0


def certificate_revoke(options: argparse.Namespace) -> int:
    """Revoke a client certificate."""
    with opened(options) as keep:
        keep.access.revoke_certificate(options.fingerprint)
    text = f"revoked {options.fingerprint}; a running gateway refuses it from now on"
    facts = {"fingerprint": options.fingerprint, "revoked": True}
    return said(facts, text, as_json=options.json)


def issuer_list(options: argparse.Namespace) -> int:
    """List issuers of tokens."""
    with opened(options) as keep:
        rows = keep.access.issuers()
    if options.json:
        print_json(rows)
        return 0
    print_table(
        ("issuer", "address", "audience", "scopes", "state"),
        [
            (
                row.label,
                row.issuer,
                row.audience,
                ", ".join(row.scopes),
                "disabled" if row.disabled else "enabled",
            )
            for row in rows
        ],
    )
    return 0


def issuer_disable(options: argparse.Namespace) -> int:
    """Refuse an issuer's tokens."""
    with opened(options) as keep:
        row = keep.access.disable_issuer(options.issuer)
    text = f"disabled {row.label}; a running gateway refuses its tokens now"
    return said(row, text, as_json=options.json)


def issuer_enable(options: argparse.Namespace) -> int:
    """Accept an issuer's tokens again."""
    with opened(options) as keep:
        row = keep.access.enable_issuer(options.issuer)
    return said(row, f"enabled {row.label}", as_json=options.json)


def role_list(options: argparse.Namespace) -> int:
    """List roles."""
    with opened(options) as keep:
        rows = keep.access.roles()
    if options.json:
        print_json(rows)
    else:
        cells = [(row.name, ", ".join(row.scopes) or "nothing") for row in rows]
        print_table(("role", "permits"), cells)
    return 0


def role_define(options: argparse.Namespace) -> int:
    """Make or change a role."""
    with opened(options) as keep:
        row = keep.access.define_role(options.role, scopes=options.scope)
    return said(
        row, f"{row.name} permits {', '.join(row.scopes) or 'nothing'}", as_json=options.json
    )


def role_remove(options: argparse.Namespace) -> int:
    """Remove a role."""
    with opened(options) as keep:
        was_there = keep.access.remove_role(options.role)
    text = f"removed {options.role}" if was_there else f"there is no role {options.role}"
    return said({"name": options.role, "removed": was_there}, text, as_json=options.json)


def tenant_new(options: argparse.Namespace) -> int:
    """Make a tenant."""
    with opened(options) as keep:
        row = keep.access.new_tenant(options.tenant, domain=options.domain)
        is_there = row.domain in keep.opened.domains.names()
    text = f"tenant {row.name} with domain {row.domain}"
    if not is_there:
        text += f"\n  next: `modelkeep keys new {row.domain} --tenant {row.name}` makes its key"
    return said(row, text, as_json=options.json)


def tenant_list(options: argparse.Namespace) -> int:
    """List tenants."""
    with opened(options) as keep:
        rows = keep.access.tenants()
    if options.json:
        print_json(rows)
    else:
        print_table(("tenant", "domain"), [(row.name, row.domain) for row in rows])
    return 0


def approval_list(options: argparse.Namespace) -> int:
    """List requests for approval."""
    with opened(options) as keep:
        rows = keep.access.approvals()
    if options.json:
        print_json([{**as_plain(row), "status": status} for row, status in rows])
        return 0
    print_table(
        ("id", "verb", "subject", "asked by", "agreed", "until", "state"),
        [
            (
                row.approval_id,
                row.verb,
                row.subject,
                row.requested_by,
                f"{len(row.given_by)} of {row.needed}: {', '.join(row.given_by) or 'nobody'}",
                rfc3339(row.expires_ns)[:19],
                f"{status} by {row.refused_by}" if row.refused_by else status,
            )
            for row, status in rows
        ],
    )
    return 0


def approval_give(options: argparse.Namespace) -> int:
    """Agree to a request."""
    with opened(options) as keep:
        row = keep.access.give_approval(options.approval_id, _api_key(options.token_file))
    agreed = f"{len(row.given_by)} of {row.needed} agreed"
    return said(row, f"{row.verb} of {row.subject}: {agreed}", as_json=options.json)


def approval_refuse(options: argparse.Namespace) -> int:
    """Say no to a request."""
    with opened(options) as keep:
        row = keep.access.refuse_approval(options.approval_id, _api_key(options.token_file))
    return said(
        row, f"{row.verb} of {row.subject}: refused by {row.refused_by}", as_json=options.json
    )


def _password() -> Secret:
    """A new password: asked for twice, or the first line that comes in.

    Raises:
        UsageError: `account.differs`.
    """
    if not sys.stdin.isatty():
        return Secret(sys.stdin.buffer.readline(PASSWORD_BYTES_MAX).rstrip(b"\r\n"))
    password = getpass.getpass("new password: ").encode()
    if getpass.getpass("again: ").encode() != password:
        raise UsageError("account.differs", "the two passwords differ")
    return Secret(password)


def _roles(row: RegisteredPrincipal) -> str:
    return f"roles {', '.join(row.roles)}" if row.roles else "no role, so no key permits anything"


def _api_key(path: Path) -> Secret:
    """An API key out of a file.

    Raises:
        UsageError: `token.file`.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(API_KEY_BYTES_MAX + 1)
    except OSError as error:
        raise UsageError("token.file", f"{path}: {error.strerror}") from error
    if len(raw) > API_KEY_BYTES_MAX:
        raise UsageError("token.file", f"{path} is too long for an API key")
    return Secret(raw.strip())


def _expires_ns(days: float) -> int:
    if not math.isfinite(days) or not 0 <= days <= DAYS_MAX:
        raise UsageError(
            "token.days",
            f"a key cannot expire in {days:g} days",
            hint=f"give a number above 0, at most {DAYS_MAX}, or 0 for never",
        )
    return time.time_ns() + int(days * S_PER_DAY * NS_PER_S) if days else 0
