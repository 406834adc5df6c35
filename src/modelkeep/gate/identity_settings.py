"""The knobs of identity: issuers of tokens, passwords, and how much work a stranger can cause."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from modelkeep.core.artifact import is_model_name
from modelkeep.core.record import Record
from modelkeep.core.roles import APPROVE, is_scope
from modelkeep.crypto.kdf import LANES_MAX, PASSES_MAX, Argon2Settings

ISSUERS_MAX = 16
# Of one password: a gateway checks several at once, for whoever asks.
PASSWORD_KIB_MAX = 1024 * 1024
# Signatures with a public key only: with a shared secret, whoever can check could also issue.
ALGORITHMS = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "Ed25519",
    "EdDSA",
)
DISCOVER = "discover"
_LABEL = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_CLAIM = re.compile(r"[!-~]{1,200}")
_URL_CHARS_MAX = 2000


class IssuerSettings(Record, frozen=True):
    """A table `[[identity.issuers]]` of modelkeep.toml: whose tokens are believed, and how far.

    Attributes:
        label: a short name of ours; principals that are not registered are `jwt:LABEL:SUBJECT`.
        issuer: what the claim `iss` says, exactly.
        audience: what the claim `aud` must name, exactly.
        scopes: what a token of this issuer can do at most; a principal's roles bound it further.
        jwks: where its public keys are: `https://…`, `file:/path`, or `discover` for what
            `ISSUER/.well-known/openid-configuration` says.
        hosts: names of hosts that keys may be fetched from.
        ca: absolute path of a PEM file with the authorities that these hosts' certificates may come
            from; empty for the system's.
        algorithms: with which of them tokens may be signed; none with a shared secret.
        leeway_s: by how much the issuer's clock and ours may differ.
        lifetime_s_max: a token that says it lives longer, from now on, is refused.
        principal_claim: the claim that names a registered principal; empty for none: everybody is
            `jwt:LABEL:SUBJECT`.
        roles_claim: the claim that lists roles, such as `roles` or `realm_access.roles`; empty for
            none. With it a token can do only what its roles permit.
        roles: what a role of the issuer means here: a role of ours, or several.
        tenant_claim: the claim that names the tenant; empty for the first of `tenants`.
        tenants: whose principals its tokens can speak for.
    """

    label: str
    issuer: str
    audience: str
    scopes: tuple[str, ...]
    jwks: str = DISCOVER
    hosts: tuple[str, ...] = ()
    ca: str = ""
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    leeway_s: float = 30.0
    lifetime_s_max: float = 86_400.0
    principal_claim: str = ""
    roles_claim: str = ""
    roles: dict[str, tuple[str, ...]] = {}
    tenant_claim: str = ""
    tenants: tuple[str, ...] = ("default",)


class IdentitySettings(Record, frozen=True):
    """Table `[identity]` of modelkeep.toml: who may call beside the holders of API keys.

    Attributes:
        issuers: whose tokens (JWT, OpenID Connect) are accepted.
        jwks_refresh_s: how often an issuer's keys are fetched.
        jwks_refresh_s_min: a token with an unknown key has them fetched at once, but never sooner
            than this after the last time.
        jwks_stale_s_max: how long keys are believed that cannot be fetched again.
        jwks_timeout_s: of one fetch, from its start to its last byte.
        jwks_bytes_max: of one set of keys.
        token_s: how long a token lives that `POST /v1/token` gives for a password.
        passwords: what Argon2id spends on one password.
        password_checks_max: passwords that one gateway checks at once.
        password_queue_max: that wait for it; more are turned away with 503.
        failures_free: wrong passwords of one account, or from one network, before the next attempt
            has to wait; it waits twice as long after each further one.
        delay_s_max: the longest such wait; of several gateways each has it last as many times as
            long as there are gateways.
    """

    issuers: tuple[IssuerSettings, ...] = ()
    jwks_refresh_s: float = 300.0
    jwks_refresh_s_min: float = 10.0
    jwks_stale_s_max: float = 86_400.0
    jwks_timeout_s: float = 5.0
    jwks_bytes_max: int = 256 * 1024
    token_s: float = 600.0
    passwords: Argon2Settings = Argon2Settings()
    password_checks_max: int = 2
    password_queue_max: int = 16
    failures_free: int = 5
    delay_s_max: float = 900.0


def identity_problems(identity: IdentitySettings) -> list[tuple[bool, str]]:
    """What is wrong with `[identity]`."""
    labels = [each.label for each in identity.issuers]
    names = [each.issuer for each in identity.issuers]
    bounds = (
        ("jwks_refresh_s", 1, 86_400),
        ("jwks_refresh_s_min", 0.1, 3600),
        ("jwks_stale_s_max", 1, 7 * 86_400),
        ("jwks_timeout_s", 0.1, 60),
        ("jwks_bytes_max", 1024, 16 * 2**20),
        ("token_s", 1, 86_400),
        ("password_checks_max", 1, 64),
        ("password_queue_max", 0, 4096),
        ("failures_free", 1, 1000),
        ("delay_s_max", 1, 86_400),
    )
    return [
        *(
            (
                not low <= getattr(identity, name) <= high,
                f"identity.{name} is not {low} to {high}",
            )
            for name, low, high in bounds
        ),
        (
            not _is_affordable(identity.passwords),
            "identity.passwords: 8 KiB per lane to 1 GiB of memory, up to 16 passes and 16 lanes",
        ),
        (len(set(labels)) != len(labels), "identity.issuers: two have one label"),
        (len(set(names)) != len(names), "identity.issuers: two have one issuer"),
        (len(labels) > ISSUERS_MAX, f"identity.issuers: more than {ISSUERS_MAX}"),
        *(problem for each in identity.issuers for problem in _issuer_problems(each)),
    ]


def _is_affordable(cost: Argon2Settings) -> bool:
    return (
        1 <= cost.lanes <= LANES_MAX
        and 1 <= cost.passes <= PASSES_MAX
        and 8 * cost.lanes <= cost.memory_kib <= PASSWORD_KIB_MAX
    )


def _issuer_problems(issuer: IssuerSettings) -> list[tuple[bool, str]]:
    where = f"identity.issuers.{issuer.label[:40]!r}"
    claims = (issuer.principal_claim, issuer.roles_claim, issuer.tenant_claim)
    return [
        (_LABEL.fullmatch(issuer.label) is None, f"{where}.label: a-z, 0-9 and '-', at most 40"),
        (not _is_text(issuer.issuer), f"{where}.issuer is empty or not printable"),
        (not _is_text(issuer.audience), f"{where}.audience is empty or not printable"),
        (
            not issuer.scopes or not all(map(is_scope, issuer.scopes)),
            f"{where}.scopes names none, or what is no scope: an empty list would permit nothing",
        ),
        (APPROVE in issuer.scopes, f"{where}.scopes: approvals are given with API keys only"),
        (
            not issuer.algorithms or not set(issuer.algorithms) <= set(ALGORITHMS),
            f"{where}.algorithms: some of {', '.join(ALGORITHMS)}",
        ),
        (not 0 <= issuer.leeway_s <= 600, f"{where}.leeway_s is not 0 to 600"),
        (not 1 <= issuer.lifetime_s_max < math.inf, f"{where}.lifetime_s_max is not 1 or more"),
        (
            not all(each == "" or _CLAIM.fullmatch(each) for each in claims),
            f"{where}: a claim's name has up to 200 visible characters",
        ),
        (
            bool(issuer.roles) != bool(issuer.roles_claim),
            f"{where}: roles_claim and roles are given together or not at all",
        ),
        (
            not issuer.tenants or not all(map(is_model_name, issuer.tenants)),
            f"{where}.tenants names none, or what is no name of a tenant",
        ),
        (issuer.ca[:1] not in ("", "/"), f"{where}.ca is no absolute path"),
        *_key_problems(issuer, where),
    ]


def _key_problems(issuer: IssuerSettings, where: str) -> list[tuple[bool, str]]:
    if issuer.jwks.startswith("file:/"):
        return [(not issuer.jwks.isprintable(), f"{where}.jwks is not printable")]
    address = issuer.issuer if issuer.jwks == DISCOVER else issuer.jwks
    return [
        (
            not is_fetchable(address, issuer.hosts),
            f"{where}.jwks: `file:/path`, or (as `issuer`, if `discover`) https:// of `hosts`",
        )
    ]


def is_fetchable(address: str, hosts: Sequence[str]) -> bool:
    """Whether keys may be fetched from there: over TLS, and from a listed host."""
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    return (
        parts.scheme == "https"
        and host in hosts
        and "@" not in parts.netloc
        and not parts.fragment
        and len(address) <= _URL_CHARS_MAX
        and address.isascii()
        and address.isprintable()
        and " " not in address
    )


def _is_text(text: str) -> bool:
    return bool(text) and len(text) <= _URL_CHARS_MAX and text.isprintable()
