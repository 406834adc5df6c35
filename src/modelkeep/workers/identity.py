"""Who may call one gateway: its verifier of tokens, its fetcher of keys, its check of passwords.

Composed from the gateway's plan. The fetcher is a thread, Argon2id runs in a bounded pool; both end
with the process. A gateway without a signing key gives no tokens and takes none of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from modelkeep.adapters.jwks_fetch import KeyFetcher
from modelkeep.adapters.jwt_joserfc import Issuer, JoseBearers, OwnIssuer
from modelkeep.crypto.secret import Secret
from modelkeep.flows.accounts import password_key
from modelkeep.flows.login import Login
from modelkeep.flows.serve import Serving
from modelkeep.gate.authn import Keyring, keyring_of
from modelkeep.ports.state import State
from modelkeep.web.tokens import TokenApplication
from modelkeep.wiring import system_clock, system_entropy
from modelkeep.workers.plan import GatewayPlan, read_fd


class GatewayIdentity:
    """What one gateway knows of callers beside their API keys.

    Args:
        complain: writes one line for developers.
    """

    def __init__(self, plan: GatewayPlan, *, complain: Callable[[str], None]) -> None:
        self._settings = plan.identity
        self._gateways = plan.gateways
        self._password_key = password_key(Secret(read_fd(plan.commitment_key_fd)))
        self._own: OwnIssuer | None = None
        if plan.token_key_fd >= 0:
            seed = Secret(read_fd(plan.token_key_fd))
            self._own = OwnIssuer(seed, lifetime_s=plan.identity.token_s)
        issuers = [Issuer(each) for each in plan.identity.issuers]
        self._bearers = JoseBearers(issuers, self._own)
        self._fetcher = KeyFetcher(issuers, plan.identity, complain=complain)

    def start(self) -> None:
        """Begin to fetch the keys of issuers."""
        self._fetcher.start()

    def keyring_of(self, state: State) -> Keyring:
        """Who is known, as State says it now; see `gate.authn.keyring_of`."""
        return keyring_of(state, self._bearers)

    def tokens(self, serving: Serving) -> TokenApplication | None:
        """The endpoint for tokens; None where none are given."""
        if self._own is None:
            return None
        pool = ThreadPoolExecutor(self._settings.password_checks_max, "passwords")
        loop = asyncio.get_running_loop()

        def aside(work: Callable[[], bytes]) -> Awaitable[bytes]:
            return loop.run_in_executor(pool, work)

        login = Login(
            lambda: serving.keyring,
            key=self._password_key,
            signs=self._own,
            settings=self._settings,
            aside=aside,
            clock=system_clock(),
            entropy=system_entropy(),
            gateways=self._gateways,
        )
        return TokenApplication(serving, login, system_clock())
