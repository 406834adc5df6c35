"""Opens State in PostgreSQL as `[state]` says; the library is loaded only when it is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelkeep.adapters.keysources import secret_of
from modelkeep.core.errors import UsageError, extra_hint
from modelkeep.core.reference import parsed_secret_reference

if TYPE_CHECKING:
    from modelkeep.adapters.state_postgres import PostgresState


def postgres_state(
    url: str, *, password: str, origin: str, readonly: bool = False
) -> PostgresState:
    """Connect.

    Args:
        password: a reference, read anew at each call; empty for none.
        origin: of the log whose projection is meant.

    Raises:
        ConfigError: `state.url` or `reference.*`.
        UsageError: `state.extra`, when psycopg is not installed.
        UnavailableError: `state.unavailable`.
    """
    try:
        from modelkeep.adapters.state_postgres import PostgresState  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise UsageError(
            "state.extra",
            f"State in PostgreSQL needs {error.name}, which is not installed",
            hint=extra_hint("postgres"),
        ) from error
    secret = secret_of(parsed_secret_reference(password))() if password else None
    return PostgresState(url, origin=origin, password=secret, readonly=readonly)
