"""The kinds of ledger entries that are about passwords, certificates and issuers of tokens."""

from __future__ import annotations

from modelkeep.ledger.kind import Act, kind

IDENTITY_KINDS = (
    kind(
        "account.password",
        "principal password_id salt verifier memory_kib passes lanes",
        "A principal has a new password; tokens of the one before count no more.",
        Act.UPDATE,
        entity="account",
    ),
    kind(
        "account.removed",
        "principal",
        "A principal has no password any more.",
        Act.DELETE,
        entity="account",
    ),
    kind(
        "certificate.issued",
        "fingerprint principal begins_ns expires_ns",
        "A client certificate speaks for a principal.",
        Act.CREATE,
        entity="certificate",
    ),
    kind(
        "certificate.revoked",
        "fingerprint",
        "A client certificate speaks for nobody any more.",
        Act.DELETE,
        entity="certificate",
    ),
    kind(
        "issuer.disabled",
        "issuer",
        "No token of an issuer is accepted until it is enabled.",
        Act.UPDATE,
        entity="issuer",
    ),
    kind(
        "issuer.enabled",
        "issuer",
        "Tokens of an issuer count again.",
        Act.UPDATE,
        entity="issuer",
    ),
)
