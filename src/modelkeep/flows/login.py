"""A password for a token: the same work and the same words, whether or not there is an account.

Steps, numbered at the code:
 1. Name and password are within their bounds.
 2. There is room: so many passwords are checked at once, so many wait, more are turned away.
 3. The attempt is counted, for the account and for the network; who fails too often waits.
 4. Argon2id, off the event loop; for an account that does not exist with a salt of its own that
    is always the same, at the cost that other accounts have.
 5. The result is compared in constant time, and the account looked at again: it may have been
    disabled, or have another password, meanwhile.
 6. What was right is forgiven, and a token signed. It names the password that it was given for, so
    that another password ends it.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from modelkeep.core.call_record import address_prefix
from modelkeep.core.errors import UnavailableError, UsageError
from modelkeep.core.principal import Principal
from modelkeep.core.record import Row
from modelkeep.core.roles import bounded
from modelkeep.core.rows import Account
from modelkeep.crypto.kdf import Argon2Settings, derived_key
from modelkeep.crypto.secret import Secret
from modelkeep.flows.accounts import PASSWORD_BYTES_MAX, verifier_of
from modelkeep.flows.tokens import PRINCIPAL_CHARS_MAX
from modelkeep.gate.authn import Keyring
from modelkeep.gate.identity_settings import IdentitySettings
from modelkeep.gate.identity_token import invalid
from modelkeep.gate.lockout import Lockout
from modelkeep.ports.clock import Clock
from modelkeep.ports.entropy import Entropy

_TOKEN_ID_BYTES = 16
# Runs a function where it does not hold up the event loop.
Aside = Callable[[Callable[[], bytes]], Awaitable[bytes]]


class Signs(Protocol):
    """Signs tokens.

    Attributes:
        lifetime_s: of each.
    """

    lifetime_s: float

    def signed(
        self,
        subject: str,
        *,
        password_id: str,
        token_id: str,
        now_ns: int,
        scopes: Sequence[str] | None = None,
    ) -> bytes:
        """A token for whoever knew the password."""
        ...


class Granted(Row, frozen=True):
    """A token, and what it is good for.

    Attributes:
        principal: with the scopes that the token carries.
    """

    token: bytes
    principal: Principal
    lifetime_s: int


class Login:
    """Gives tokens for passwords, in one gateway.

    Args:
        keyring: who is known at this moment.
        key: of `flows.accounts.password_key`.
        aside: runs Argon2id, `password_checks_max` at once.
        gateways: that give tokens for the same passwords, each counting who guesses by itself.
    """

    def __init__(
        self,
        keyring: Callable[[], Keyring],
        *,
        key: Secret,
        signs: Signs,
        settings: IdentitySettings,
        aside: Aside,
        clock: Clock,
        entropy: Entropy,
        gateways: int = 1,
    ) -> None:
        self._keyring = keyring
        self._key = key
        self._signs = signs
        self._settings = settings
        self._aside = aside
        self._clock = clock
        self._entropy = entropy
        self._lockout = Lockout(
            failures_free=settings.failures_free,
            delay_s_max=settings.delay_s_max,
            gateways=gateways,
        )
        self._under_way = 0

    async def granted(
        self, name: str, password: Secret, *, address: str, scopes: Sequence[str] | None = None
    ) -> Granted:
        """A token for the holder of a password; the numbers are those of the module.

        Args:
            scopes: fewer than the principal's roles permit; None for all.

        Raises:
            UsageError: `auth.invalid`, or `auth.scope` for scopes that it does not have.
            LimitError: `quota.attempts`.
            UnavailableError: `gate.busy`.
        """
        if not 0 < len(name) <= PRINCIPAL_CHARS_MAX or len(password) > PASSWORD_BYTES_MAX:  # 1
            raise invalid("bounds")
        network = address_prefix(address)
        settings = self._settings
        if self._under_way >= settings.password_checks_max + settings.password_queue_max:  # 2
            raise UnavailableError(
                "gate.busy", "too many passwords are being checked", hint="try again in a second"
            )
        self._lockout.attempt(name, network, now_ns=self._clock.now_ns())  # 3
        account = self._keyring().account_of(name)
        self._under_way += 1
        try:
            found = await self._aside(self._check_of(name, password, account))  # 4
        finally:
            self._under_way -= 1
        now = self._keyring().account_of(name)  # 5
        wanted = bytes.fromhex(now.verifier) if now is not None else bytes(32)
        is_same = hmac.compare_digest(found, wanted)
        if now is None or account is None or not is_same:
            raise invalid("password")
        self._lockout.forgive(name, network, now_ns=self._clock.now_ns())  # 6
        return self._signed(now, scopes)

    def _signed(self, account: Account, scopes: Sequence[str] | None) -> Granted:
        principal = self._keyring().principal_of_account(account.principal, scopes)
        if scopes is not None and set(bounded(scopes, principal.scopes)) != set(scopes):
            raise UsageError(
                "auth.scope",
                "a scope that was asked for is not among the principal's",
                hint="ask for fewer, or for none to get them all",
            )
        token = self._signs.signed(
            account.principal,
            password_id=account.password_id,
            token_id=self._entropy.random_bytes(_TOKEN_ID_BYTES).hex(),
            now_ns=self._clock.now_ns(),
            scopes=scopes,
        )
        return Granted(token, principal, int(self._signs.lifetime_s))

    def _check_of(
        self, name: str, password: Secret, account: Account | None
    ) -> Callable[[], bytes]:
        """The work for one password: of the same cost whether or not there is an account."""
        like = account or self._keyring().some_account()
        cost = self._settings.passwords
        if like is not None:
            cost = Argon2Settings(memory_kib=like.memory_kib, passes=like.passes, lanes=like.lanes)
        dummy = derived_key(self._key, "no-account", salt=name.encode())
        salt = bytes.fromhex(account.salt) if account is not None else dummy.reveal()

        def work() -> bytes:
            return verifier_of(password, salt=salt, cost=cost, key=self._key)

        return work
