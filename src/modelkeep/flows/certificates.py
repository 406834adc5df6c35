"""Certificates of others: a client's, registered for a principal until it is revoked; a host's.

A gateway believes a certificate if TLS verified it and its fingerprint is in State: a certificate
of an authority that is trusted says nothing about who a caller is until somebody registered it.
A host's is no caller's; it counts for as long as modelkeep.toml names that host.
"""

from __future__ import annotations

from modelkeep.core.errors import MissingError, RefusedError
from modelkeep.core.rows import ClientCertificate
from modelkeep.crypto.client_certificates import (
    IssuedCertificate,
    given_certificate,
    issued_certificate,
)
from modelkeep.crypto.link_certificates import HostCertificate, host_certificate
from modelkeep.flows.keep import OpenKeep, record
from modelkeep.flows.principals import known_principal


def new_certificate(
    keep: OpenKeep, name: str, *, days: int, request: bytes = b""
) -> IssuedCertificate:
    """Issue a certificate of the keep's own authority.

    Args:
        request: a CSR; empty to make a key too.

    Raises:
        MissingError: `principal.unknown`.
        UsageError: `certificate.*`.
    """
    known_principal(keep, name)
    made = issued_certificate(
        keep.authority, name=name, days=days, now_ns=keep.clock.now_ns(), request=request
    )
    _record(keep, name, made)
    return made


def registered_certificate(keep: OpenKeep, name: str, raw: bytes) -> IssuedCertificate:
    """Register a certificate of another authority, one of `[serve] client_ca`. Idempotent.

    Raises:
        MissingError: `principal.unknown`.
        UsageError: `certificate.*`.
        RefusedError: `certificate.taken`, when it is another principal's, or was revoked.
    """
    known_principal(keep, name)
    given = given_certificate(raw)
    there = next((each for each in certificates_of(keep) if _is(each, given.fingerprint)), None)
    if there is None:
        _record(keep, name, given)
    elif there.principal != name or there.revoked:
        raise RefusedError(
            "certificate.taken",
            f"the certificate is {there.principal}'s" + (", and revoked" * there.revoked),
            hint="a certificate speaks for one principal; what was revoked stays so",
        )
    return given


def new_host_certificate(keep: OpenKeep, host: str, *, days: int) -> HostCertificate:
    """Issue the certificate of a machine that is to run replicas.

    Raises:
        UsageError: `host.name` or `certificate.days`.
    """
    made = host_certificate(keep.authority, host=host, days=days, now_ns=keep.clock.now_ns())
    record(
        keep,
        "host.certified",
        {"host": host, "fingerprint": made.fingerprint, "expires_ns": made.expires_ns},
    )
    return made


def certificates_of(keep: OpenKeep) -> tuple[ClientCertificate, ...]:
    """All client certificates."""
    return keep.state.rows(ClientCertificate)


def revoked_certificate(keep: OpenKeep, fingerprint: str) -> None:
    """Revoke a client certificate; a running gateway refuses it within a second. Idempotent.

    Raises:
        MissingError: `certificate.unknown`.
    """
    there = next((each for each in certificates_of(keep) if _is(each, fingerprint)), None)
    if there is None:
        raise MissingError(
            "certificate.unknown",
            f"there is no client certificate {fingerprint[:64]!r}",
            hint="`modelkeep certificates list` shows their fingerprints",
        )
    if not there.revoked:
        record(keep, "certificate.revoked", {"fingerprint": there.fingerprint})


def _is(row: ClientCertificate, fingerprint: str) -> bool:
    return row.fingerprint == fingerprint.replace(":", "").lower()


def _record(keep: OpenKeep, name: str, made: IssuedCertificate) -> None:
    record(
        keep,
        "certificate.issued",
        {
            "fingerprint": made.fingerprint,
            "principal": name,
            "begins_ns": made.begins_ns,
            "expires_ns": made.expires_ns,
        },
    )
