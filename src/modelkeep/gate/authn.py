"""Who is calling: API keys, checked so that neither text nor timing tells an attacker anything.

A key is `mk_<16 hex digits>_<43 characters>`: a public id to look it up by, and 256 secret bits
in base64url. The keep holds only the SHA-256 of the 43 characters; a key with 256 random bits
needs no slow hash, because it cannot be guessed from it.

Steps of a check, numbered at the code:
 1. The header is of the one accepted form, else the rest runs on a dummy.
 2. The id is looked up; unknown ids get a dummy hash.
 3. The secret's SHA-256 is compared in constant time.
 4. Revoked and expired keys, and those of a disabled principal, fail now, after the comparison,
    with the same words as a wrong one.

What a key may do is settled when the keys are read, not at each call: its own scopes, bounded by
the roles that its principal holds (`core.roles`).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence

from modelkeep.core.errors import RefusedError, UsageError
from modelkeep.core.principal import Principal, is_permitted
from modelkeep.core.roles import bounded, scopes_of
from modelkeep.core.rows import DEFAULT_TENANT, RegisteredPrincipal, Role, Token
from modelkeep.crypto.secret import Secret
from modelkeep.ports.entropy import Entropy

TOKEN_ID_BYTES = 8
SECRET_BYTES = 32

_BEARER = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +mk_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_DUMMY_ID = b"0" * 16
_DUMMY_SECRET = b"0" * 43
_NOBODY = Principal(name="", tenant="", scopes=())


class _Known:
    """A token, prepared for comparison."""

    __slots__ = ("expires_ns", "is_revoked", "principal", "secret_sha256")

    def __init__(
        self, secret_sha256: bytes, principal: Principal, expires_ns: int, *, is_revoked: bool
    ) -> None:
        self.secret_sha256 = secret_sha256
        self.principal = principal
        self.expires_ns = expires_ns
        self.is_revoked = is_revoked


class Keyring:
    """All tokens as of one moment; replaced as a whole when State changes.

    Args:
        principals: those that are registered; a token of another holder is bounded by no role.
        roles: those that the operator defined, beside the built-in ones.
    """

    __slots__ = ("_by_id", "_stranger")

    def __init__(
        self,
        tokens: Iterable[Token],
        principals: Iterable[RegisteredPrincipal] = (),
        roles: Sequence[Role] = (),
    ) -> None:
        registered = {each.name: each for each in principals}
        self._by_id = {
            token.token_id.encode(): _prepared(token, registered.get(token.principal), roles)
            for token in tokens
        }
        # The dummy hash is of no known text: nobody can present a secret that matches it.
        self._stranger = _Known(bytes(32), _NOBODY, 0, is_revoked=True)

    def __len__(self) -> int:
        return len(self._by_id)

    def principal_of(self, authorization: bytes | None, *, now_ns: int) -> Principal:
        """Authenticate the value of an `Authorization` header.

        Raises:
            UsageError: `auth.missing`, or `auth.invalid` for an unknown, wrong, revoked or
                expired key alike.
        """
        if authorization is None:
            raise UsageError(
                "auth.missing",
                "this call needs an API key",
                hint="send the header `Authorization: Bearer mk_…`",
            )
        form = _BEARER.fullmatch(authorization)  # 1
        token_id, secret = form.groups() if form is not None else (_DUMMY_ID, _DUMMY_SECRET)
        known = self._by_id.get(token_id, self._stranger)  # 2
        presented = hashlib.sha256(secret).digest()
        is_right = hmac.compare_digest(presented, known.secret_sha256)  # 3
        is_current = not known.is_revoked and (known.expires_ns == 0 or now_ns < known.expires_ns)
        if not (is_right and is_current and form is not None):  # 4
            raise UsageError(
                "auth.invalid",
                "the API key is not valid",
                hint="keys are made with `modelkeep tokens` and may expire or be revoked",
            )
        return known.principal


def demand_scope(principal: Principal, scope: str) -> None:
    """Go on only if the principal holds the scope.

    Raises:
        RefusedError: `auth.forbidden`.
    """
    if not is_permitted(principal, scope):
        raise RefusedError(
            "auth.forbidden",
            f"this key does not hold the scope `{scope}`",
            hint="ask the keep's operator for a key with this scope",
        )


def new_token(
    entropy: Entropy,
    *,
    principal: str,
    scopes: tuple[str, ...],
    tenant: str = DEFAULT_TENANT,
    expires_ns: int = 0,
) -> tuple[Secret, Token]:
    """Make an API key.

    Returns:
        The key's text, to be shown once and never stored, and what the keep remembers of it.
    """
    token_id = entropy.random_bytes(TOKEN_ID_BYTES).hex()
    secret = base64.urlsafe_b64encode(entropy.random_bytes(SECRET_BYTES)).rstrip(b"=")
    token = Token(
        token_id=token_id,
        secret_sha256=hashlib.sha256(secret).hexdigest(),
        principal=principal,
        tenant=tenant,
        scopes=scopes,
        expires_ns=expires_ns,
    )
    return Secret(b"mk_" + token_id.encode() + b"_" + secret), token


def _prepared(
    token: Token, registered: RegisteredPrincipal | None, roles: Sequence[Role]
) -> _Known:
    allowed = None if registered is None else scopes_of(registered.roles, roles)
    principal = Principal(
        name=token.principal,
        tenant=token.tenant if registered is None else registered.tenant,
        scopes=bounded(token.scopes, allowed),
    )
    is_refused = token.revoked or (registered is not None and registered.disabled)
    digest = bytes.fromhex(token.secret_sha256)
    return _Known(digest, principal, token.expires_ns, is_revoked=is_refused)
