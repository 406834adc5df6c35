"""What every remote KeySource says when it fails: one wording, and nothing that a server wrote.

A server's error text is never repeated: it may quote the request, and the request holds the key.
Only identifiers that we recognise by their form (`AccessDeniedException`, `404`) are passed on.
"""

from __future__ import annotations

import re

from modelkeep.core.errors import MissingError, RefusedError, UnavailableError

_IDENTIFIER = re.compile(r"[A-Za-z0-9_.-]{1,60}")


def said(reason: object) -> str:
    """A reason that may be shown: an identifier, else nothing."""
    text = str(reason)
    return f" ({text})" if _IDENTIFIER.fullmatch(text) else ""


def wrong_key(where: str) -> RefusedError:
    """The key-encryption key is there, and these bytes do not open under it."""
    return RefusedError(
        "keys.source",
        f"the key in {where} does not open the keep",
        hint="check `[keys] source`; a damaged root key looks the same (try another store)",
    )


def missing(where: str) -> MissingError:
    """There is no such key."""
    return MissingError(
        "keysource.missing",
        f"{where}: there is no such key",
        hint="docs/guide/key-sources.md has the commands that make it",
    )


def forbidden(where: str, reason: object = "") -> RefusedError:
    """The holder knows the key and refuses us, or does not know us."""
    return RefusedError(
        "keysource.forbidden",
        f"{where} refuses the use of the key{said(reason)}",
        hint="check the credentials, their permissions, and that the key is enabled",
    )


def unavailable(where: str, reason: object = "") -> UnavailableError:
    """The holder cannot be reached, or failed."""
    return UnavailableError(
        "keysource.unavailable",
        f"{where} cannot be used now{said(reason)}",
        hint="try again; check that it runs and that its address and CA are right",
    )
