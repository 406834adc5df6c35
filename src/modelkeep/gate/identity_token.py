"""What a JSON Web Token says, read so strictly that no two readers can disagree on it.

JWT (RFC 7519) in JWS compact form (RFC 7515), after the advice of RFC 8725. Steps of a check; the
numbers are repeated at the code. Steps 1 to 4 and 7 are here; 5 and 6 are the adapter's, which
alone knows keys. Whatever fails, the caller gets the words that a wrong API key gets; why is in
the error's context, which never leaves.

 1. Size: 8 KiB; three parts in base64url, each in the one form that encodes its bytes.
 2. Header: JSON without duplicate names; `alg`, `kid`, `typ` and thumbprints, nothing else. So a
    token cannot bring its key or say where one is (`jwk`, `jku`, `x5c`, `x5u`), cannot be nested
    (`cty`), and cannot change how it is to be read (`crit`, `b64`, `zip`).
 3. `typ` is none, `JWT` or `at+jwt` (RFC 9068): not a logout token, not evidence of a host.
 4. Payload: a JSON object without duplicate names; its `iss` is exactly that of a known issuer.
 5. `alg` is one that this issuer signs with; `kid` names a key of this issuer, or none is named
    and only one fits; the key is of that algorithm's type, and strong enough.
 6. The signature is right.
 7. `aud` names us; `sub` is a text that can be shown; `exp` is there, ahead, and not too far ahead;
    `nbf` and `iat`, where they are, are past. Clocks may differ by the issuer's leeway.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelkeep.core.errors import UsageError
from modelkeep.core.instant import NS_PER_S
from modelkeep.gate.identity_settings import IssuerSettings

# Tokens with many groups have 2 to 4 KB; the whole head of a request has 32 KiB at most.
TOKEN_BYTES_MAX = 8 * 1024
HEADER_BYTES_MAX = 512
KID_CHARS_MAX = 256
SUBJECT_CHARS_MAX = 150
AUDIENCES_MAX = 32
ROLES_MAX = 256
# Seconds since 1970 that fit 64 signed bits of nanoseconds.
_SECONDS_MAX = 2**63 // NS_PER_S - 1
_HEADER_NAMES = frozenset({"alg", "kid", "typ", "x5t", "x5t#S256"})
_TYPES = ("jwt", "at+jwt", "application/at+jwt")


class Basis:
    """What a verified token rests on; shared by all tokens of one set of keys.

    Attributes:
        holds_until_ns: from then on, none of them is believed without another look. It is moved
            ahead when the same keys are fetched again, and to 0 when there are others.
    """

    __slots__ = ("holds_until_ns",)

    def __init__(self, holds_until_ns: int) -> None:
        self.holds_until_ns = holds_until_ns


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified token says, as far as it concerns us.

    Attributes:
        issuer: label of its issuer; empty for this service itself.
        name: of a registered principal; empty where the issuer does not name those.
        roles: names of the issuer's; None where it does not speak of roles.
        tenant: None where the issuer does not speak of tenants.
        scopes: what was asked for, of a token of our own; None for all.
        password_id: of the password that a token of our own was given for.
    """

    issuer: str
    subject: str
    begins_ns: int
    ends_ns: int
    basis: Basis
    name: str = ""
    roles: tuple[str, ...] | None = None
    tenant: str | None = None
    scopes: tuple[str, ...] | None = None
    password_id: str = ""


@dataclass(frozen=True, slots=True)
class UnverifiedToken:
    """A token of the right form; nothing in it is believed yet.

    Attributes:
        kid: None where no key is named.
    """

    algorithm: str
    kid: str | None
    issuer: str
    payload: Mapping[str, Any]


def invalid(reason: str) -> UsageError:
    """The one refusal of all that does not authenticate.

    Args:
        reason: for tests and logs; it never leaves.
    """
    return UsageError(
        "auth.invalid",
        "the credentials are not valid",
        hint="keys, tokens and certificates may expire or be revoked: `modelkeep tokens` makes "
        "keys",
        reason=reason,
    )


def unverified_token(token: bytes) -> UnverifiedToken:
    """Take a token apart, steps 1 to 4.

    Raises:
        UsageError: `auth.invalid`.
    """
    if len(token) > TOKEN_BYTES_MAX:
        raise invalid("size")
    parts = token.split(b".")
    if len(parts) != 3:
        raise invalid("form")
    header_raw, payload_raw, signature = map(_decoded, parts)  # 1
    if not signature:
        raise invalid("unsigned")
    if len(header_raw) > HEADER_BYTES_MAX:
        raise invalid("size")
    header = _object(header_raw)
    if not header.keys() <= _HEADER_NAMES:  # 2
        raise invalid("header")
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or not (kid is None or _is_kid(kid)):
        raise invalid("header")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:  # 3
        raise invalid("type")
    payload = _object(payload_raw)
    issuer = payload.get("iss")
    if not isinstance(issuer, str):  # 4
        raise invalid("issuer")
    return UnverifiedToken(algorithm=algorithm, kid=kid, issuer=issuer, payload=payload)


def verified_claims(
    payload: Mapping[str, Any], settings: IssuerSettings, *, now_ns: int, basis: Basis
) -> Claims:
    """What the payload of a token says whose signature is right, step 7.

    Raises:
        UsageError: `auth.invalid`.
    """
    if settings.audience not in _listed(payload.get("aud"), most=AUDIENCES_MAX):
        raise invalid("audience")
    subject = payload.get("sub")
    if not _is_shown(subject, SUBJECT_CHARS_MAX):
        raise invalid("subject")
    begins_ns, ends_ns = _lifetime(payload, settings, now_ns=now_ns)
    return Claims(
        issuer=settings.label,
        subject=str(subject),
        begins_ns=begins_ns,
        ends_ns=ends_ns,
        basis=basis,
        name=_named(payload, settings.principal_claim) or "",
        roles=_roles(payload, settings),
        tenant=_named(payload, settings.tenant_claim),
    )


def _lifetime(
    payload: Mapping[str, Any], settings: IssuerSettings, *, now_ns: int
) -> tuple[int, int]:
    """From when to when a token holds, leeway included.

    Raises:
        UsageError: `auth.invalid`.
    """
    leeway_ns = int(settings.leeway_s * NS_PER_S)
    ends_ns = _instant_ns(payload.get("exp"))
    begins_ns = max(_instant_ns(payload[name]) if name in payload else 0 for name in ("nbf", "iat"))
    if now_ns >= ends_ns + leeway_ns:
        raise invalid("expired")
    if now_ns < begins_ns - leeway_ns:
        raise invalid("early")
    if ends_ns - now_ns > int(settings.lifetime_s_max * NS_PER_S) + leeway_ns:
        raise invalid("lifetime")
    return begins_ns - leeway_ns, ends_ns + leeway_ns


def _instant_ns(value: object) -> int:
    """A NumericDate (RFC 7519, section 2): seconds, perhaps with a fraction; no text, no bool."""
    is_number = type(value) is int or (type(value) is float and math.isfinite(value))
    if not is_number or not 0 <= value <= _SECONDS_MAX:  # type: ignore[operator]  # a number
        raise invalid("instant")
    return int(value * NS_PER_S)  # type: ignore[operator]  # a number


def _named(payload: Mapping[str, Any], claim: str) -> str | None:
    """The text of a claim that the configuration names; None if it names none.

    Raises:
        UsageError: `auth.invalid`, when the token lacks it.
    """
    if not claim:
        return None
    value = _claim(payload, claim)
    if not _is_shown(value, SUBJECT_CHARS_MAX):
        raise invalid("claim")
    return str(value)


def _roles(payload: Mapping[str, Any], settings: IssuerSettings) -> tuple[str, ...] | None:
    """What the issuer's roles are called here; one that is not configured means nothing."""
    if not settings.roles_claim:
        return None
    value = _claim(payload, settings.roles_claim)
    said = value.split(" ") if isinstance(value, str) else _listed(value, most=ROLES_MAX)
    found = (name for role in said for name in settings.roles.get(role, ()))
    return tuple(dict.fromkeys(found))


def _claim(payload: Mapping[str, Any], name: str) -> object:
    """A claim by its own name, else by a path: `realm_access.roles`."""
    if name in payload:
        return payload[name]
    value: object = payload
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _listed(value: object, *, most: int) -> Sequence[str]:
    """A text, or a list of texts; nothing for anything else."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or len(value) > most:
        return ()
    return value if all(isinstance(each, str) for each in value) else ()


def _is_kid(value: object) -> bool:
    return _is_shown(value, KID_CHARS_MAX)


def _is_shown(value: object, chars_max: int) -> bool:
    return isinstance(value, str) and 0 < len(value) <= chars_max and value.isprintable()


def _decoded(part: bytes) -> bytes:
    """Decode base64url; only the form without padding, spare bits zero (RFC 7515, section 2).

    Raises:
        UsageError: `auth.invalid`.
    """
    try:
        raw = base64.b64decode(part + b"=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise invalid("form") from None
    if base64.urlsafe_b64encode(raw).rstrip(b"=") != part:
        raise invalid("form")
    return raw


def _object(raw: bytes) -> dict[str, Any]:
    """A JSON object without duplicate names at any depth, NaN or infinity.

    Raises:
        UsageError: `auth.invalid`.
    """
    try:
        value = json.loads(
            raw.decode(), object_pairs_hook=_without_duplicates, parse_constant=_no_constant
        )
    except (ValueError, RecursionError):
        raise invalid("json") from None
    if not isinstance(value, dict):
        raise invalid("json")
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _no_constant(text: str) -> object:
    raise ValueError(text)
