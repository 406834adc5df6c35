"""What State holds: one record per kind of row, each under one key.

Rows are values of the projection in `core.projection`; every State stores them as JSON under
(table, key). A field that a later release adds needs a default, or State is made anew.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

from modelkeep.core.errors import IntegrityError
from modelkeep.core.record import Record, from_json

DEFAULT_TENANT = "default"
DEFAULT_DOMAIN = "default"
# No tenant can be called so: a key of the keep itself, such as the probe of a recovery.
ANY_TENANT = "*"


class Applied(Record, frozen=True):
    """How far State has come.

    Attributes:
        entries: ledger entries applied so far: the index of the next one.
        head: number of the last committed head.
        snapshot: name of the snapshot that this head names; empty before the first commit.
    """

    entries: int
    head: int
    snapshot: str


class Token(Record, frozen=True):
    """An API key as the keep knows it: never the secret, only its SHA-256.

    Attributes:
        token_id: public part of the key, 16 lower-case hex digits.
        secret_sha256: 64 hex digits; the secret has 256 bits, so a plain hash is enough.
        expires_ns: 0 for never.
    """

    token_id: str
    secret_sha256: str
    principal: str
    tenant: str
    scopes: tuple[str, ...]
    expires_ns: int
    revoked: bool = False


# How many versions an alias remembers that it named before.
ALIAS_HISTORY_MAX = 16


class Alias(Record, frozen=True):
    """A name for one version of a model: `fraud:prod`.

    Attributes:
        previous: versions that it named before, the last one first; the way back of `rollback`.
    """

    model: str
    alias: str
    version: int
    previous: tuple[int, ...] = ()


class Deprecation(Record, frozen=True):
    """A version that should not be used any more.

    Attributes:
        until_ns: from this instant on no new start of the service takes it; 0 for no end.
        replaced_by: reference of the version to use; empty where nobody said.
        note: a sentence for people.
        since_ns: when it was said.
    """

    model: str
    version: int
    until_ns: int = 0
    replaced_by: str = ""
    note: str = ""
    since_ns: int = 0

    def is_over(self, now_ns: int) -> bool:
        """Whether its end has come."""
        return 0 < self.until_ns <= now_ns


# Shares of a model's calls are whole numbers of these.
LOTS = 10_000


class Traffic(Record, frozen=True):
    """Who else answers a model's calls beside its default version.

    Attributes:
        canary: version that answers `canary_lots` of every 10,000 calls that name none; 0 for none.
        shadow: version that is asked `shadow_lots` of every 10,000 such calls too, whose answers
            are compared, counted and never returned; 0 for none.
        sticky: whether the calls of one principal go all to the canary or none of them.
        by: who said so, and `since_ns` when.
    """

    model: str
    canary: int = 0
    canary_lots: int = 0
    shadow: int = 0
    shadow_lots: int = 0
    sticky: bool = False
    by: str = ""
    since_ns: int = 0


class Hold(Record, frozen=True):
    """A version that must not go, such as one that a court may ask for.

    Attributes:
        by: who said so, and `since_ns` when.
        note: why.
    """

    model: str
    version: int
    by: str
    note: str = ""
    since_ns: int = 0


class Tenant(Record, frozen=True):
    """Whose models, principals and calls are kept apart from others'.

    Attributes:
        domain: the tenant's own domain of keys.
    """

    name: str
    domain: str


class RegisteredPrincipal(Record, frozen=True):
    """A principal that is known by more than its keys.

    Attributes:
        roles: bound what its keys may do; none permits nothing.
    """

    name: str
    tenant: str
    roles: tuple[str, ...]
    disabled: bool = False


class Role(Record, frozen=True):
    """A name for a set of scopes, beside the built-in ones of `core.roles`."""

    name: str
    scopes: tuple[str, ...]


class Account(Record, frozen=True):
    """The password of a registered principal, as the keep knows it.

    Attributes:
        password_id: another one with every password; 16 hex digits. Tokens name it, so that those
            of an earlier password end.
        salt: 64 hex digits.
        verifier: 64 hex digits: Argon2id of the password, then HMAC-SHA-256 under a key of the
            keep, so that these rows alone let nobody test a guess.
        memory_kib: cost of Argon2id, as are `passes` and `lanes`.
    """

    principal: str
    password_id: str
    salt: str
    verifier: str
    memory_kib: int
    passes: int
    lanes: int


class ClientCertificate(Record, frozen=True):
    """A certificate that a client shows in TLS, and whose it is.

    Attributes:
        fingerprint: SHA-256 of its DER, 64 hex digits.
        begins_ns: from when on it counts, and `expires_ns` until when.
    """

    fingerprint: str
    principal: str
    begins_ns: int
    expires_ns: int
    revoked: bool = False


class IssuerMark(Record, frozen=True):
    """What is said of an issuer of tokens beside the configuration.

    Attributes:
        label: of its table `[[identity.issuers]]`.
        disabled: no token of it is accepted.
    """

    label: str
    disabled: bool = False


class DomainStatus(StrEnum):
    """What may be done with what a domain's key protects."""

    LIVE = "live"
    REVOKED = "revoked"
    DESTROYED = "destroyed"


class Domain(Record, frozen=True):
    """A unit of keys and sharing.

    Attributes:
        has_columns: whether its keys were handed out for encrypted columns of a database.
    """

    name: str
    tenant: str
    status: DomainStatus = DomainStatus.LIVE
    has_columns: bool = False


class KeyringMark(Record, frozen=True):
    """The newest keyring that the ledger knows of: an older one in a store was rolled back."""

    number: int


class Approval(Record, frozen=True):
    """A request to do what others must agree to.

    Attributes:
        digest: SHA-256 over everything that the request is about, 64 hex digits.
        requested_by: the actor that asked.
        needed: how many others must agree.
        given_by: principals that agreed, in order, each once.
        refused_by: the first principal that said no; empty while nobody did.
        used: an approval serves one act.
    """

    approval_id: str
    verb: str
    subject: str
    digest: str
    requested_by: str
    requested_ns: int
    expires_ns: int
    needed: int
    given_by: tuple[str, ...] = ()
    refused_by: str = ""
    used: bool = False


class HeldAdmission(Record, frozen=True):
    """An admission that waits for somebody's decision, or that somebody lets in for a while.

    Attributes:
        hold_id: follows from model, digest and findings.
        digest: over the paths and digests of all its files.
        subject: the file that was not to be let in.
        rules: what was found, with the first of the `evidence`; other findings are another
            admission.
        asked_by: who wanted to admit it, and `asked_ns` when first.
        approved_by: who lets it in, from `approved_ns` to `until_ns`; empty while nobody does.
        why: in their words.
        withdrawn: whether that was taken back, or the admission given up.
    """

    hold_id: str
    model: str
    digest: str
    subject: str
    rules: tuple[str, ...]
    size_bytes: int
    asked_by: str
    asked_ns: int
    evidence: tuple[str, ...] = ()
    approved_by: str = ""
    approved_ns: int = 0
    until_ns: int = 0
    why: str = ""
    withdrawn: bool = False


class InboxClient(Record, frozen=True):
    """A machine that may hand things in, and nothing else.

    Attributes:
        client_id: follows from its key; 16 hex digits.
        public: its Ed25519 key, 64 hex digits.
        expires_ns: from when on nothing of it is accepted; 0 for never.
        size_bytes_max: of one submission's files.
    """

    client_id: str
    name: str
    public: str
    expires_ns: int
    size_bytes_max: int
    revoked: bool = False


class Settled(Record, frozen=True):
    """A submission that was accepted or rejected: its id does not count again."""

    client_id: str
    submission: str
    accepted: bool


R = TypeVar("R", bound=Record)

TABLES: dict[type[Record], str] = {
    Account: "accounts",
    Alias: "aliases",
    Approval: "approvals",
    ClientCertificate: "certificates",
    Deprecation: "deprecations",
    Domain: "domains",
    HeldAdmission: "admissions",
    Hold: "holds",
    InboxClient: "clients",
    IssuerMark: "issuers",
    KeyringMark: "keyrings",
    RegisteredPrincipal: "principals",
    Role: "roles",
    Settled: "submissions",
    Tenant: "tenants",
    Token: "tokens",
    Traffic: "traffic",
}


def row_of(kind: type[R], raw: bytes | memoryview, *, key: str) -> R:
    """Decode a stored row strictly.

    Raises:
        IntegrityError: `state.row`.
    """
    try:
        return from_json(kind, raw, what=f"the row {key[:80]!r} of {TABLES[kind]}")
    except IntegrityError as error:
        raise IntegrityError(
            "state.row",
            f"State is damaged: {error.message}",
            hint="`modelkeep state rebuild` makes it anew from the ledger",
        ) from error
