"""The owner's view of who may do what: API keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from modelkeep.crypto.secret import Secret
from modelkeep.flows.keep import OpenKeep
from modelkeep.flows.tokens import created_token, revoked_token
from modelkeep.ports.state import Token


class Access:
    """Who may do what in an open keep.

    Args:
        await_gateway: returns once a running gateway has read State again.
    """

    def __init__(self, keep: OpenKeep, await_gateway: Callable[[], None]) -> None:
        self._open = keep
        self._await_gateway = await_gateway

    def new_token(
        self, principal: str, *, scopes: Sequence[str] = ("infer:*",), expires_ns: int = 0
    ) -> tuple[str, Secret]:
        """Make an API key: its id, and its text, which exists nowhere else.

        A running gateway knows the key when this returns.
        """
        made = created_token(self._open, principal=principal, scopes=scopes, expires_ns=expires_ns)
        self._await_gateway()
        return made

    def tokens(self) -> tuple[Token, ...]:
        """All API keys: ids, holders, scopes; never the keys."""
        return self._open.state.tokens()

    def revoke_token(self, token_id: str) -> None:
        """Revoke an API key; a running gateway refuses it when this returns."""
        revoked_token(self._open, token_id)
        self._await_gateway()
