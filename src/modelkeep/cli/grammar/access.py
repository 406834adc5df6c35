"""Verbs about who may do what: API keys, principals, certificates, roles, tenants, approvals."""

from __future__ import annotations

import argparse
from pathlib import Path

from modelkeep.cli.grammar.verb import Verb, nothing

_SCOPES = "infer:MODEL, infer:*, metrics, approve, operate or audit; may be repeated"


def _token_new(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("principal", help="who will hold the key")
    parser.add_argument(
        "--scope",
        action="append",
        default=[],
        help=f"{_SCOPES}; default all that the principal's roles permit, or infer:*",
    )
    parser.add_argument("--days", type=float, default=0, help="days until it expires; 0 is never")


def _token_revoke(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("token_id", help="as `modelkeep tokens list` shows it")


def _principal(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("principal", help="the principal's name")


def _roles(parser: argparse.ArgumentParser) -> None:
    _principal(parser)
    parser.add_argument(
        "--role", action="append", default=[], help="may be repeated; none permits nothing"
    )


def _principal_new(parser: argparse.ArgumentParser) -> None:
    _roles(parser)
    parser.add_argument("--tenant", default="default", help="whose models it may call")


def _password(parser: argparse.ArgumentParser) -> None:
    _principal(parser)
    parser.add_argument("--remove", action="store_true", help="take the password away instead")


def _certificate(parser: argparse.ArgumentParser) -> None:
    _principal(parser)
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="where the certificate goes, PEM; a new file"
    )
    parser.add_argument(
        "--key-out", type=Path, metavar="FILE", help="where its new private key goes, mode 0600"
    )
    parser.add_argument(
        "--csr", type=Path, metavar="FILE", help="a certificate request, in place of a new key"
    )
    parser.add_argument("--days", type=int, default=90, help="until it expires; 825 at most")
    parser.add_argument(
        "--register",
        type=Path,
        metavar="FILE",
        help="a certificate of another authority, one of [serve] client_ca, in place of a new one",
    )


def _fingerprint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("fingerprint", help="as `modelkeep certificates list` shows it")


def _issuer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("issuer", help="its label in [[identity.issuers]] of modelkeep.toml")


def _role(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("role", help="the role's name")


def _role_define(parser: argparse.ArgumentParser) -> None:
    _role(parser)
    parser.add_argument("--scope", action="append", default=[], help=_SCOPES)


def _tenant_new(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tenant", help="the tenant's name")
    parser.add_argument(
        "--domain", default="", help="the name of its domain of keys; default its own name"
    )


def _approval(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("approval_id", help="as `modelkeep approvals list` shows it")
    parser.add_argument(
        "--token-file",
        type=Path,
        required=True,
        metavar="FILE",
        help="file with an API key that has the scope approve: it says who agrees",
    )


VERBS: tuple[Verb, ...] = (
    Verb(
        "tokens new",
        "Make an API key; it is shown once and kept only as a hash.",
        "access:token_new",
        ("modelkeep tokens new alice", "modelkeep tokens new prometheus --scope metrics --days 90"),
        _token_new,
    ),
    Verb(
        "tokens list",
        "List API keys: ids, holders, scopes; never the keys.",
        "access:token_list",
        ("modelkeep tokens list",),
        nothing,
    ),
    Verb(
        "tokens revoke",
        "Revoke an API key; a running gateway refuses it within a second.",
        "access:token_revoke",
        ("modelkeep tokens revoke 0123456789abcdef",),
        _token_revoke,
    ),
    Verb(
        "principals new",
        "Register a principal: its roles bound what its keys may do.",
        "access:principal_new",
        (
            "modelkeep principals new alice --role caller",
            "modelkeep principals new bob --role approver --tenant default",
        ),
        _principal_new,
    ),
    Verb(
        "principals list",
        "List registered principals with their roles and tenants.",
        "access:principal_list",
        ("modelkeep principals list",),
        nothing,
    ),
    Verb(
        "principals set",
        "Give a principal these roles in place of those it has.",
        "access:principal_set",
        ("modelkeep principals set alice --role caller --role scraper",),
        _roles,
    ),
    Verb(
        "principals disable",
        "Refuse every key of a principal, within a second, until it is enabled.",
        "access:principal_disable",
        ("modelkeep principals disable alice",),
        _principal,
    ),
    Verb(
        "principals enable",
        "Accept a principal's keys again; revoked ones stay revoked.",
        "access:principal_enable",
        ("modelkeep principals enable alice",),
        _principal,
    ),
    Verb(
        "principals password",
        "Set a principal's password for POST /v1/token; read from a prompt or standard input.",
        "access:principal_password",
        (
            "modelkeep principals password robot",
            "modelkeep principals password robot < password.txt",
            "modelkeep principals password robot --remove",
        ),
        _password,
    ),
    Verb(
        "principals certificate",
        "Issue a client certificate for a principal, or register one of another authority.",
        "access:principal_certificate",
        (
            "modelkeep principals certificate robot --out robot.pem --key-out robot.key",
            "modelkeep principals certificate robot --csr robot.csr --out robot.pem --days 30",
            "modelkeep principals certificate robot --register robot-corporate.pem",
        ),
        _certificate,
    ),
    Verb(
        "certificates list",
        "List client certificates: fingerprints, whose they are, until when.",
        "access:certificate_list",
        ("modelkeep certificates list",),
        nothing,
    ),
    Verb(
        "certificates revoke",
        "Revoke a client certificate; a running gateway refuses it within a second.",
        "access:certificate_revoke",
        ("modelkeep certificates revoke 3f0c…",),
        _fingerprint,
    ),
    Verb(
        "issuers list",
        "List the issuers of tokens that modelkeep.toml names.",
        "access:issuer_list",
        ("modelkeep issuers list",),
        nothing,
    ),
    Verb(
        "issuers disable",
        "Refuse every token of an issuer, within a second, until it is enabled.",
        "access:issuer_disable",
        ("modelkeep issuers disable corporate",),
        _issuer,
    ),
    Verb(
        "issuers enable",
        "Accept an issuer's tokens again.",
        "access:issuer_enable",
        ("modelkeep issuers enable corporate",),
        _issuer,
    ),
    Verb(
        "roles list",
        "List roles and what each permits, the built-in ones too.",
        "access:role_list",
        ("modelkeep roles list",),
        nothing,
    ),
    Verb(
        "roles define",
        "Make a role, or change what it permits; whoever holds it follows.",
        "access:role_define",
        ("modelkeep roles define night --scope infer:fraud --scope metrics",),
        _role_define,
    ),
    Verb(
        "roles remove",
        "Remove a role that nobody holds.",
        "access:role_remove",
        ("modelkeep roles remove night",),
        _role,
    ),
    Verb(
        "tenants new",
        "Make a tenant: its principals see the models of its own domain only.",
        "access:tenant_new",
        ("modelkeep tenants new acme", "modelkeep tenants new acme --domain acme-keys"),
        _tenant_new,
    ),
    Verb(
        "tenants list",
        "List tenants and their domains.",
        "access:tenant_list",
        ("modelkeep tenants list",),
        nothing,
    ),
    Verb(
        "approvals list",
        "List requests for approval: what is asked, by whom, who agreed.",
        "access:approval_list",
        ("modelkeep approvals list",),
        nothing,
    ),
    Verb(
        "approvals give",
        "Agree to a request; the API key in the file says who you are.",
        "access:approval_give",
        ("modelkeep approvals give 0123456789abcdef --token-file bob.key",),
        _approval,
    ),
    Verb(
        "approvals refuse",
        "Say no to a request, for good.",
        "access:approval_refuse",
        ("modelkeep approvals refuse 0123456789abcdef --token-file bob.key",),
        _approval,
    ),
)

GROUPS = {
    "tokens": "API keys: new, list, revoke.",
    "principals": "Who is known: new, list, set, disable, enable, password, certificate.",
    "certificates": "Client certificates: list, revoke; and of hosts of replicas: host.",
    "issuers": "Whose tokens are accepted: list, disable, enable.",
    "roles": "Names for sets of scopes: list, define, remove.",
    "tenants": "Whose models and principals are kept apart: new, list.",
    "approvals": "What one person alone may not do: list, give, refuse.",
}
