"""Every expected error: seven classes that say what to do, codes that say what happened.

The class answers "what should the caller do?" and fixes the exit status and the HTTP status;
the code (dotted, lower case, stable) answers "what happened?"; the context holds facts and the
hint holds the remedy. `docs/reference/errors.md` is generated from the places that raise.

A code may carry a finer HTTP status than its class: see `HTTP_BY_CODE`.
"""

from __future__ import annotations

from typing import Any, ClassVar

# Longest prefix wins. The class's own status holds for every code that is not listed.
HTTP_BY_CODE: dict[str, int] = {
    "auth": 401,
    "auth.forbidden": 403,
    "client.gone": 499,  # nobody reads it; proxies count it by this number
    "schema": 400,
    "limit.body": 413,
    "limit.header": 431,
    "limit.time": 408,
    "media": 415,
    "quota": 429,
    "route": 404,
    "route.method": 405,
    "route.unsupported": 501,
    "gate.deadline": 504,
    "upstream.deadline": 504,
}


# Behind the error that a path which somebody named leads nowhere.
PATH_HINT = "look at its spelling; a relative path begins in the folder that you are in"


def extra_hint(*names: str) -> str:
    """How to add an extra. The package is in no index: pip takes it from a clone."""
    return (
        f"in the clone: .venv/bin/pip install -e '.[{','.join(names)}]'; "
        "elsewhere: docs/guide/operate.md, Extras"
    )


class KeepError(Exception):
    """The root of every expected error.

    Args:
        code: dotted, stable, lower case; it appears in the ledger and in JSON output.
        message: one sentence for a person, without the remedy.
        hint: what to do about it, one sentence; may be empty.
        context: facts, printable, never secret.
    """

    exit_status: ClassVar[int] = 1
    http_status_default: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, code: str, message: str, *, hint: str = "", **context: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.context = context

    def __str__(self) -> str:
        return f"{self.message} [{self.code}]"

    @property
    def http_status(self) -> int:
        """The HTTP status: the finest code prefix that has one, else the class's."""
        parts = self.code.split(".")
        for length in range(len(parts), 0, -1):
            status = HTTP_BY_CODE.get(".".join(parts[:length]))
            if status is not None:
                return status
        return self.http_status_default

    def as_facts(self) -> dict[str, Any]:
        """The error as one flat, JSON-ready object: code, message, hint, exit status, context."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "exit_status": self.exit_status,
            "context": {key: str(value) for key, value in self.context.items()},
        }


class UsageError(KeepError):
    """The caller asked for nonsense."""

    exit_status = 2
    http_status_default = 400


class ConfigError(UsageError):
    """modelkeep.toml does not say what it must."""


class RefusedError(KeepError):
    """A policy said no."""

    exit_status = 3
    http_status_default = 403


class LimitError(RefusedError):
    """A quota, a size or a budget is spent."""

    http_status_default = 429


class IntegrityError(KeepError):
    """Bytes are not what they claim."""

    exit_status = 4
    http_status_default = 502


class MissingError(KeepError):
    """The named thing does not exist."""

    exit_status = 5
    http_status_default = 404


class UnavailableError(KeepError):
    """The world failed; trying again may help."""

    exit_status = 6
    http_status_default = 503
    retryable = True


_KIND_BY_EXIT: dict[int, type[KeepError]] = {
    kind.exit_status: kind
    for kind in (UsageError, RefusedError, IntegrityError, MissingError, UnavailableError)
}


def error_of(facts: dict[str, Any]) -> KeepError:
    """The error that another process described with `as_facts`; an unknown one is Unavailable."""
    kind = _KIND_BY_EXIT.get(int(facts.get("exit_status", 0)), UnavailableError)
    context = dict(facts.get("context") or {})
    return kind(
        str(facts["code"]), str(facts["message"]), hint=str(facts.get("hint", "")), **context
    )
