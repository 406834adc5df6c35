"""API keys: made once, shown once, kept as a hash, revoked for good."""

from __future__ import annotations

from collections.abc import Sequence

from modelkeep.core.artifact import is_model_name
from modelkeep.core.errors import MissingError, UsageError
from modelkeep.crypto.secret import Secret
from modelkeep.flows.keep import OpenKeep, record
from modelkeep.gate.authn import new_token

WIDE_SCOPES = ("metrics", "infer:*")
EXPIRES_NS_END = 2**63  # State keeps it in 64 signed bits


def created_token(
    keep: OpenKeep, *, principal: str, scopes: Sequence[str], expires_ns: int = 0
) -> tuple[str, Secret]:
    """Make an API key; return its id and its text, which exists nowhere else.

    Raises:
        UsageError: `token.scope`, `token.principal` or `token.expires`.
    """
    if not principal or len(principal) > 200 or not principal.isprintable():
        raise UsageError(
            "token.principal",
            "a key needs the name of who holds it",
            hint="`modelkeep tokens new alice`",
        )
    for scope in scopes:
        if not _is_scope(scope):
            raise UsageError(
                "token.scope",
                f"{scope[:120]!r} is no scope",
                hint="use infer:MODEL, infer:* or metrics",
            )
    if not 0 <= expires_ns < EXPIRES_NS_END:
        raise UsageError(
            "token.expires",
            "the key's expiry is no moment that can be kept",
            hint="give nanoseconds since 1970, or 0 for never",
        )
    text, token = new_token(
        keep.entropy, principal=principal, scopes=tuple(scopes), expires_ns=expires_ns
    )
    record(
        keep,
        "token.created",
        {
            "token_id": token.token_id,
            "secret_sha256": token.secret_sha256,
            "principal": principal,
            "scopes": tuple(scopes),
            "expires_ns": expires_ns,
        },
    )
    return token.token_id, text


def revoked_token(keep: OpenKeep, token_id: str) -> None:
    """Revoke an API key; a running gateway refuses it within a second. Idempotent.

    Raises:
        MissingError: `token.unknown`.
    """
    known = {token.token_id: token for token in keep.state.tokens()}
    if token_id not in known:
        raise MissingError(
            "token.unknown",
            f"there is no key with id {token_id[:40]!r}",
            hint="`modelkeep tokens list` shows the ids",
        )
    if not known[token_id].revoked:
        record(keep, "token.revoked", {"token_id": token_id})


def _is_scope(scope: str) -> bool:
    family, _, model = scope.partition(":")
    return scope in WIDE_SCOPES or (family == "infer" and is_model_name(model))
