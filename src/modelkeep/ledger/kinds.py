"""The catalogue of entries: every kind with its sentence, its facts, and what it means to a SIEM.

A kind is a promise: its name and the meaning of its facts do not change; new facts may come. A
test compares the catalogue with every place that records. What people and programs outside add
with `ledger append` lies under `note.` and `x.`, whose facts are their own.
"""

from __future__ import annotations

import re

from modelkeep.core.errors import UsageError
from modelkeep.core.verdict import Severity
from modelkeep.ledger.identity_kinds import IDENTITY_KINDS
from modelkeep.ledger.kind import Act, Kind, kind
from modelkeep.ledger.model_kinds import MODEL_KINDS
from modelkeep.ledger.service_kinds import SERVICE_KINDS

KIND_CHARS_MAX = 64
OWN_FAMILIES = ("note", "x")

_OWN = re.compile(rf"(?:{'|'.join(OWN_FAMILIES)})(?:\.[a-z0-9_]+){{1,4}}")
_PRIVATE = "value sealed private"

_ALL = (
    *IDENTITY_KINDS,
    *MODEL_KINDS,
    *SERVICE_KINDS,
    kind(
        "approval.given",
        "approval_id by",
        "Somebody agreed to what one alone may not do.",
        Act.UPDATE,
        entity="approval",
    ),
    kind(
        "approval.refused",
        "approval_id by",
        "Somebody refused what one alone may not do.",
        Act.UPDATE,
        entity="approval",
    ),
    kind(
        "approval.requested",
        "approval_id verb subject digest requested_by expires_ns needed",
        "Somebody asked for what one alone may not do.",
        Act.CREATE,
        entity="approval",
    ),
    kind(
        "approval.used",
        "approval_id",
        "What was agreed to was done.",
        Act.DELETE,
        entity="approval",
    ),
    kind("calls.covered", "", "How far each journal of calls, by its name, is committed."),
    kind(
        "calls.expired",
        "journal first next",
        "Records of calls that were committed went, as their retention says.",
    ),
    kind(
        "domain.created",
        "domain tenant",
        "A domain has its first key.",
        Act.CREATE,
        entity="domain",
    ),
    kind(
        "domain.destroyed",
        "domain",
        "A domain's key was destroyed; nothing in it can be read.",
        Act.DELETE,
        entity="domain",
        severity=Severity.MEDIUM,
    ),
    kind(
        "domain.rekeyed",
        "domain artifacts removed",
        "All that a domain holds was encrypted under a new key.",
        Act.UPDATE,
        entity="domain",
    ),
    kind(
        "domain.restored",
        "domain",
        "A domain that was revoked may be used again.",
        Act.UPDATE,
        entity="domain",
    ),
    kind(
        "domain.columns",
        "domain",
        "Keys for encrypted columns of a database were handed out from a domain.",
        Act.UPDATE,
        entity="domain",
    ),
    kind(
        "domain.revoked",
        "domain",
        "A domain may not be used until it is restored.",
        Act.UPDATE,
        entity="domain",
    ),
    kind(
        "principal.changed",
        "principal roles",
        "A principal has other roles.",
        Act.UPDATE,
        entity="principal",
    ),
    kind(
        "principal.created",
        "principal tenant roles",
        "A principal was registered.",
        Act.CREATE,
        entity="principal",
    ),
    kind(
        "principal.disabled",
        "principal",
        "A principal's keys open nothing until it is enabled.",
        Act.UPDATE,
        entity="principal",
    ),
    kind(
        "principal.enabled",
        "principal",
        "A principal's keys count again.",
        Act.UPDATE,
        entity="principal",
    ),
    kind("role.defined", "role scopes", "A role gives these scopes.", Act.UPDATE, entity="role"),
    kind("role.removed", "role", "A role gives nothing any more.", Act.DELETE, entity="role"),
    kind("tenant.created", "tenant domain", "A tenant was made.", Act.CREATE, entity="tenant"),
    kind(
        "backup.done",
        "store head objects size_bytes missing damaged error",
        "A store holds everything that the head needs.",
    ),
    kind(
        "backup.failed",
        "store head objects size_bytes missing damaged error",
        "A store could not be brought up to the head.",
        Act.DETECT,
    ),
    kind(
        "calls.batch",
        "journal first count root",
        "The Merkle root over the records of calls, from position `first` of a journal on.",
    ),
    kind(
        "calls.damaged",
        "journal first message",
        "A journal of calls is damaged from this position on.",
        Act.DETECT,
        severity=Severity.HIGH,
    ),
    kind(
        "calls.gap",
        "journal first next",
        "Records of calls were gone before they were committed.",
        Act.DETECT,
        severity=Severity.HIGH,
    ),
    kind(
        "check.done",
        "objects read_data share findings repaired lost",
        "All stores were checked; `lost` names versions of which something is in no store.",
    ),
    kind(
        "client.added",
        "client_id client public expires_ns size_bytes_max",
        "A machine may hand things into the inbox.",
        Act.CREATE,
        entity="client",
    ),
    kind(
        "client.revoked",
        "client_id client",
        "Nothing more is accepted of a machine.",
        Act.UPDATE,
        entity="client",
    ),
    kind(
        "config.changed",
        "number",
        "A new modelkeep.toml went to the stores.",
        Act.UPDATE,
        entity="configuration",
    ),
    kind(
        "drill.measured",
        "kind rto_s rpo_s met freshness digest result signature",
        "A recovery or its rehearsal was measured.",
    ),
    kind(
        "files.saved",
        "model version manifest size_bytes domain",
        "Files that are no model were kept as this version of a name; nothing was scanned.",
        Act.CREATE,
        entity="files",
    ),
    kind(
        "host.attested",
        "host anchor measurements debug software boot",
        "Evidence proved which host this is, because the policy of a model names hosts.",
        Act.READ,
        entity="host",
    ),
    kind(
        "key.used", "key purpose", "A root or key-encryption key was used.", Act.READ, entity="key"
    ),
    kind(
        "keyring.changed",
        "number reason",
        "The keep has a new keyring.",
        Act.UPDATE,
        entity="keyring",
    ),
    kind(
        "inbox.accepted",
        "submission client_id client model version files size_bytes",
        "What a client had handed in was stored as this version.",
        Act.CREATE,
        entity="submission",
    ),
    kind(
        "inbox.rejected",
        "submission client_id client objects",
        "What a client had handed in was removed unread; all of it, where no submission is named.",
        Act.DELETE,
        entity="submission",
    ),
    kind(
        "keep.created",
        "keep_id origin base stores",
        "The keep was made.",
        Act.CREATE,
        entity="keep",
    ),
    kind(
        "ledger.healed", "store object", "A damaged object of the log was written anew.", Act.DETECT
    ),
    kind(
        "ledger.resumed",
        "keep_id resumed size root origin base stores",
        "A recovered keep goes on as a new log from this checkpoint of the one before.",
        Act.DETECT,
    ),
    kind("ledger.store_caught_up", "store", "A store that had failed holds the whole log again."),
    kind("ledger.store_failed", "store code message", "A store does not take the log.", Act.DETECT),
    kind(
        "ledger.timestamped",
        "origin size authority at_s",
        "A time stamping authority signed the time of a checkpoint.",
    ),
    kind(
        "process.ended",
        "process pid status",
        "A process of the service ended by itself.",
        Act.DETECT,
    ),
    kind("process.started", "process pid", "A process of the service was started again."),
    kind(
        "token.created",
        "token_id secret_sha256 principal scopes expires_ns",
        "An API key was issued.",
        Act.CREATE,
        entity="token",
    ),
    kind("token.revoked", "token_id", "An API key was revoked.", Act.DELETE, entity="token"),
    kind(
        "value.erased",
        "index value reason",
        "The private facts of an entry were erased.",
        Act.DELETE,
        entity="value",
    ),
    kind(
        "vault.committed",
        "head snapshot",
        "A head names this snapshot from now on.",
        Act.UPDATE,
        entity="head",
    ),
    kind(
        "vault.copied",
        "store source versions objects size_bytes missing damaged",
        "Some versions were brought to a store, ahead of a backup.",
    ),
    kind(
        "vault.damaged",
        "store object code",
        "A damaged object was met; no store had it whole.",
        Act.DETECT,
        severity=Severity.HIGH,
    ),
    kind(
        "vault.healed",
        "store object code",
        "A damaged object was replaced from another store.",
        Act.DETECT,
    ),
    kind(
        "vault.mounted",
        "head snapshot",
        "What the keep held was shown in plaintext as a file system.",
        Act.READ,
        entity="vault",
    ),
    kind(
        "vault.pruned",
        "oldest snapshots",
        "Snapshots before this one are not kept any more.",
        Act.DELETE,
        entity="snapshot",
    ),
    kind(
        "vault.swept",
        "store objects freed_bytes refused error",
        "What no kept snapshot needs went from a store, as far as it let it.",
        Act.DELETE,
        entity="object",
    ),
    kind(
        "watermark.claimed",
        "mark method p_value suspect",
        "It was claimed that a suspect carries this mark; its seed is shown from then on.",
    ),
    kind(
        "watermark.registered",
        "mark method parameters commitment ordinal model",
        "A watermark was committed to, before anything that carries it was released.",
        Act.CREATE,
        entity="watermark",
    ),
    kind(
        "witness.cosigned",
        "origin size root note at_s",
        "This keep witnessed a checkpoint of another log.",
    ),
    kind(
        "witness.refused",
        "origin reason seen got",
        "This keep was asked to witness a log that had been rolled back or forked; both notes.",
        Act.DETECT,
        severity=Severity.HIGH,
    ),
    kind("note.", _PRIVATE, "What a person wrote down with `ledger append`; any facts."),
    kind("x.", _PRIVATE, "What a program outside wrote down; any facts."),
)

CATALOGUE: dict[str, Kind] = {each.name: each for each in sorted(_ALL, key=lambda each: each.name)}


def kind_named(name: str) -> Kind | None:
    """What the catalogue says of a kind; None for one that a newer modelkeep wrote."""
    own = name.partition(".")[0]
    return CATALOGUE.get(own + "." if own in OWN_FAMILIES else name)


def checked_own_kind(name: str) -> str:
    """Accept a kind that outsiders may write.

    Raises:
        UsageError: `ledger.kind`.
    """
    if len(name) <= KIND_CHARS_MAX and _OWN.fullmatch(name):
        return name
    raise UsageError(
        "ledger.kind",
        f"{name[:80]!r} is no kind that may be appended",
        hint="lower-case words below `note.` or `x.`, such as note.audit or x.ci.deployed",
    )
