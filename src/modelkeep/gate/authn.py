"""Who is calling: by API key, token or certificate, so that no text or timing tells an attacker.

An API key is `mk_<16 hex digits>_<43 characters>`: a public id to look it up by, and 256 secret
bits in base64url. The keep holds only the SHA-256 of the 43 characters; a key with 256 random bits
needs no slow hash, because it cannot be guessed from it.

Steps of the check of a key, numbered at the code:
 1. The header is of the one accepted form.
 2. The id chooses an entry. An id that nobody has chooses somebody's too, so that the same memory
    is touched, and the same work done, whether or not a key exists (`_Table`).
 3. The id is compared, the secret's SHA-256 in constant time, and the time with the key's end. A
    revoked key, or one of a disabled principal, has a hash that nobody can match in place of its
    own.
 4. What fails in one of these fails in the same words. None of them is skipped.

A token (JWT) is verified once (`gate.identity_token`) and remembered by the SHA-256 of its header
line; what can change about it is looked at again at each call: its lifetime, and whether its
issuer's keys are still the same. A certificate was verified by TLS, which proves that the caller
has its key; whose it is says its fingerprint. Whoever shows a certificate and a bearer must be one
principal.

What a key may do is settled when State is read, not at each call: its own scopes, bounded by the
roles that its principal holds (`core.roles`). A change of State makes a new Keyring, which
remembers nothing of the one before; so what was taken away is gone.
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
from modelkeep.core.rows import (
    DEFAULT_TENANT,
    Account,
    ClientCertificate,
    IssuerMark,
    RegisteredPrincipal,
    Role,
    Token,
)
from modelkeep.crypto.secret import Secret
from modelkeep.gate.identity import Bearers, principal_of_token, registered_as, subject_of
from modelkeep.gate.identity_token import TOKEN_BYTES_MAX, Basis, Claims, invalid
from modelkeep.ports.entropy import Entropy
from modelkeep.ports.state import State

TOKEN_ID_BYTES = 8
SECRET_BYTES = 32
# Tokens that a Keyring remembers as verified; the oldest is forgotten first. 400 bytes each.
SEEN_MAX = 8192

_KEY = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +mk_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_TOKEN = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*)")
# Of the usual form, which is taken apart without a regular expression, at half the price of the
# whole check. Its characters need no look: a secret is right if its hash is.
_KEY_BYTES = len("Bearer mk_") + 16 + 1 + 43
_UNDERSCORE = ord("_")

_NOBODY = Principal(name="", tenant="", scopes=())
_NEVER_NS = 2**63


class _Known:
    """A key, prepared for comparison."""

    __slots__ = ("ends_ns", "principal", "secret_sha256", "token_id")

    def __init__(
        self, token_id: bytes, secret_sha256: bytes, principal: Principal, ends_ns: int
    ) -> None:
        self.token_id = token_id
        self.secret_sha256 = secret_sha256
        self.principal = principal
        self.ends_ns = ends_ns


class _Certified:
    """A certificate that speaks for somebody, and from when to when."""

    __slots__ = ("begins_ns", "ends_ns", "principal")

    def __init__(self, principal: Principal, row: ClientCertificate) -> None:
        self.principal = principal
        self.begins_ns = row.begins_ns
        self.ends_ns = row.expires_ns


def _row_of(entries: Sequence[_Known]) -> list[_Known]:
    """The entries of one group, each at a place of its own by the upper half of its id's hash."""
    size = 1
    while True:
        found = {hash(each.token_id) >> 32 & size - 1: each for each in entries}
        if len(found) == len(entries):
            return [found.get(place, entries[0]) for place in range(size)]
        size *= 2


class _Table:
    """Keys by id, such that every id leads to an entry: its own, or else somebody's.

    A dict tells who measures whether it found something: it looks at the key's bytes and at an
    entry that is not in the processor's cache, or at neither (100 ns of 2 us, measured). Here two
    steps lead anywhere (perfect hashing after Fredman, Komlos and Szemeredi: groups by the lower
    half of the id's hash, within a group by the upper half). Python's hash of bytes is SipHash with
    a key of this process, so nobody outside can choose where an id leads.
    """

    __slots__ = ("mask", "rows")

    def __init__(self, entries: Sequence[_Known]) -> None:
        self.mask = (1 << len(entries).bit_length()) - 1
        groups: list[list[_Known]] = [[] for _ in range(self.mask + 1)]
        for each in entries:
            groups[hash(each.token_id) & self.mask].append(each)
        self.rows = [
            _row_of(group or [entries[at % len(entries)]]) for at, group in enumerate(groups)
        ]


class _Seen:
    """A token that was verified, and for how long that may be remembered."""

    __slots__ = ("basis", "begins_ns", "ends_ns", "principal")

    def __init__(self, principal: Principal, claims: Claims) -> None:
        self.principal = principal
        self.begins_ns = claims.begins_ns
        self.ends_ns = claims.ends_ns
        self.basis: Basis = claims.basis


class Keyring:
    """All who are known as of one moment; replaced as a whole when State changes.

    Args:
        principals: those that are registered; a token of another holder is bounded by no role.
        roles: those that the operator defined, beside the built-in ones.
        accounts: who has a password.
        certificates: whose they are.
        issuers: what State says of issuers of tokens.
        bearers: verifies tokens; None accepts API keys and certificates only.
    """

    __slots__ = (
        "_accounts",
        "_bearers",
        "_certificates",
        "_count",
        "_disabled_issuers",
        "_mask",
        "_registered",
        "_roles",
        "_rows",
        "_seen",
    )

    def __init__(
        self,
        tokens: Iterable[Token],
        principals: Iterable[RegisteredPrincipal] = (),
        roles: Sequence[Role] = (),
        *,
        accounts: Iterable[Account] = (),
        certificates: Iterable[ClientCertificate] = (),
        issuers: Iterable[IssuerMark] = (),
        bearers: Bearers | None = None,
    ) -> None:
        self._registered = {each.name: each for each in principals}
        self._roles = tuple(roles)
        known = [_prepared(each, self._registered.get(each.principal), roles) for each in tokens]
        self._count = len(known)
        # Without any key an id leads to one that nobody has.
        table = _Table(known or [_Known(b"", bytes(32), _NOBODY, 0)])
        self._mask, self._rows = table.mask, table.rows
        self._accounts = {each.principal: each for each in accounts}
        self._certificates = {
            bytes.fromhex(each.fingerprint): _Certified(
                registered_as(self._registered[each.principal], self._roles), each
            )
            for each in certificates
            if not each.revoked and self._is_enabled(each.principal)
        }
        self._disabled_issuers = {each.label for each in issuers if each.disabled}
        self._bearers = bearers
        self._seen: dict[bytes, _Seen] = {}

    def __len__(self) -> int:
        return self._count

    def principal_of(
        self, authorization: bytes | None, *, certificate: bytes = b"", now_ns: int
    ) -> Principal:
        """Authenticate the value of an `Authorization` header, a client certificate, or both.

        Args:
            certificate: DER, verified by TLS; empty for none.

        Raises:
            UsageError: `auth.missing`, or `auth.invalid` for whatever is unknown, wrong, revoked
                or expired alike.
        """
        if certificate:
            return self._of_certificate(authorization, certificate, now_ns)
        if authorization is None:
            raise UsageError(
                "auth.missing",
                "this call needs an API key, a token or a client certificate",
                hint="send the header `Authorization: Bearer mk_…`",
            )
        if (
            len(authorization) == _KEY_BYTES
            and authorization[:10] == b"Bearer mk_"
            and authorization[26] == _UNDERSCORE
        ):  # 1
            token_id, secret = authorization[10:26], authorization[27:]
        elif (form := _KEY.fullmatch(authorization)) is not None:
            token_id, secret = form.groups()
        else:
            return self._of_token(authorization, now_ns)
        place = hash(token_id)
        row = self._rows[place & self._mask]
        known = row[place >> 32 & len(row) - 1]  # 2
        is_right = hmac.compare_digest(hashlib.sha256(secret).digest(), known.secret_sha256)  # 3
        if is_right & hmac.compare_digest(token_id, known.token_id) & (now_ns < known.ends_ns):
            return known.principal
        raise invalid("key")  # 4

    def account_of(self, name: str) -> Account | None:
        """The password of a principal that is registered and enabled."""
        return self._accounts.get(name) if self._is_enabled(name) else None

    def some_account(self) -> Account | None:
        """Any account: what the password of one that does not exist is checked at the cost of."""
        return next(iter(self._accounts.values()), None)

    def principal_of_account(self, name: str, scopes: Sequence[str] | None = None) -> Principal:
        """What somebody may do who knows the password of a registered principal.

        Raises:
            UsageError: `auth.invalid`.
        """
        return registered_as(self._registered.get(name), self._roles, wanted=scopes)

    def _of_token(self, authorization: bytes, now_ns: int) -> Principal:
        digest = hashlib.sha256(authorization).digest()
        seen = self._seen.get(digest)
        if (
            seen is not None
            and seen.begins_ns <= now_ns < seen.ends_ns
            and now_ns < seen.basis.holds_until_ns
        ):
            return seen.principal
        self._seen.pop(digest, None)
        form = _TOKEN.fullmatch(authorization) if len(authorization) <= TOKEN_BYTES_MAX else None
        if form is None or self._bearers is None:
            raise invalid("form")
        claims = self._bearers.claims_of(form[1], now_ns=now_ns)
        principal = self._mapped(claims)
        if len(self._seen) >= SEEN_MAX:
            del self._seen[next(iter(self._seen))]
        self._seen[digest] = _Seen(principal, claims)
        return principal

    def _mapped(self, claims: Claims) -> Principal:
        """The principal that a verified token speaks for."""
        assert self._bearers is not None
        if not claims.issuer:  # our own: for a password
            account = self.account_of(claims.subject)
            if account is None or account.password_id != claims.password_id:
                raise invalid("password")
            return self.principal_of_account(claims.subject, claims.scopes)
        settings = self._bearers.issuers.get(claims.issuer)
        if settings is None or claims.issuer in self._disabled_issuers:
            raise invalid("issuer")
        registered = self._registered.get(subject_of(claims))
        return principal_of_token(claims, settings, registered, self._roles)

    def _of_certificate(
        self, authorization: bytes | None, certificate: bytes, now_ns: int
    ) -> Principal:
        known = self._certificates.get(hashlib.sha256(certificate).digest())
        if known is None or not known.begins_ns <= now_ns < known.ends_ns:
            raise invalid("certificate")
        if authorization is None:
            return known.principal
        principal = self.principal_of(authorization, now_ns=now_ns)
        if (principal.name, principal.tenant) != (known.principal.name, known.principal.tenant):
            raise invalid("other")
        return principal

    def _is_enabled(self, name: str) -> bool:
        registered = self._registered.get(name)
        return registered is not None and not registered.disabled


def keyring_of(state: State, bearers: Bearers | None = None) -> Keyring:
    """Who is known, as State says it now.

    Raises:
        UnavailableError: `state.*`.
        IntegrityError: `state.row`.
    """
    return Keyring(
        state.rows(Token),
        state.rows(RegisteredPrincipal),
        state.rows(Role),
        accounts=state.rows(Account),
        certificates=state.rows(ClientCertificate),
        issuers=state.rows(IssuerMark),
        bearers=bearers,
    )


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
        roles=() if registered is None else registered.roles,
    )
    is_refused = token.revoked or (registered is not None and registered.disabled)
    digest = bytes.fromhex(token.secret_sha256)
    if is_refused:
        digest = hashlib.sha256(digest).digest()  # of no text that has the form of a secret
    return _Known(token.token_id.encode(), digest, principal, token.expires_ns or _NEVER_NS)
