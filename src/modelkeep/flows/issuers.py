"""Issuers of tokens: taken out of force within a second, without a new configuration."""

from __future__ import annotations

from collections.abc import Sequence

from modelkeep.core.errors import MissingError
from modelkeep.core.record import Record
from modelkeep.core.rows import IssuerMark
from modelkeep.flows.keep import OpenKeep, record
from modelkeep.gate.identity_settings import IssuerSettings


class KnownIssuer(Record, frozen=True):
    """An issuer as the configuration and State together say."""

    label: str
    issuer: str
    audience: str
    scopes: tuple[str, ...]
    disabled: bool


def issuers_of(keep: OpenKeep, configured: Sequence[IssuerSettings]) -> tuple[KnownIssuer, ...]:
    """All configured issuers."""
    disabled = _disabled(keep)
    return tuple(
        KnownIssuer(each.label, each.issuer, each.audience, each.scopes, each.label in disabled)
        for each in configured
    )


def marked_issuer(
    keep: OpenKeep, configured: Sequence[IssuerSettings], label: str, *, disabled: bool
) -> KnownIssuer:
    """Refuse all tokens of an issuer, or accept them again. Idempotent.

    Raises:
        MissingError: `issuer.unknown`.
    """
    if label not in (each.label for each in configured):
        raise MissingError(
            "issuer.unknown",
            f"no issuer {label[:40]!r} is configured",
            hint="`modelkeep issuers list` shows them; [[identity.issuers]] in modelkeep.toml",
        )
    if (label in _disabled(keep)) != disabled:
        record(keep, "issuer.disabled" if disabled else "issuer.enabled", {"issuer": label})
    return next(each for each in issuers_of(keep, configured) if each.label == label)


def _disabled(keep: OpenKeep) -> set[str]:
    return {each.label for each in keep.state.rows(IssuerMark) if each.disabled}
