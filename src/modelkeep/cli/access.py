"""Verbs about who may call: tokens new, list, revoke."""

from __future__ import annotations

import argparse
import math
import time

from modelkeep.cli.opened import opened
from modelkeep.cli.output import print_json, print_table
from modelkeep.core.errors import UsageError
from modelkeep.core.instant import NS_PER_S, rfc3339

S_PER_DAY = 86_400
DAYS_MAX = 36_500  # a hundred years: far inside what 64 bits of nanoseconds hold


def token_new(options: argparse.Namespace) -> int:
    """Make an API key and show it, once."""
    expires_ns = _expires_ns(options.days)
    scopes = tuple(options.scope) or ("infer:*",)
    with opened(options) as keep:
        token_id, text = keep.access.new_token(
            options.principal, scopes=scopes, expires_ns=expires_ns
        )
    if options.json:
        print_json({"token_id": token_id, "api_key": text.reveal().decode(), "scopes": scopes})
    else:
        print(text.reveal().decode())
    return 0


def token_list(options: argparse.Namespace) -> int:
    """List API keys, never their secrets."""
    with opened(options) as keep:
        tokens = keep.access.tokens()
    if options.json:
        names = ("token_id", "principal", "tenant", "scopes", "expires_ns", "revoked")
        print_json([{name: getattr(token, name) for name in names} for token in tokens])
        return 0
    print_table(
        ("id", "principal", "scopes", "expires", "state"),
        [
            (
                token.token_id,
                token.principal,
                ", ".join(token.scopes),
                rfc3339(token.expires_ns)[:19] if token.expires_ns else "never",
                "revoked" if token.revoked else "active",
            )
            for token in tokens
        ],
    )
    return 0


def token_revoke(options: argparse.Namespace) -> int:
    """Revoke an API key."""
    with opened(options) as keep:
        keep.access.revoke_token(options.token_id)
    if options.json:
        print_json({"token_id": options.token_id, "revoked": True})
    else:
        print(f"revoked {options.token_id}; a running gateway refuses it from now on")
    return 0


def _expires_ns(days: float) -> int:
    if not math.isfinite(days) or not 0 <= days <= DAYS_MAX:
        raise UsageError(
            "token.days",
            f"a key cannot expire in {days:g} days",
            hint=f"give a number above 0, at most {DAYS_MAX}, or 0 for never",
        )
    return time.time_ns() + int(days * S_PER_DAY * NS_PER_S) if days else 0
