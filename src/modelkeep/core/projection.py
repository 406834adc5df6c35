"""From ledger entries to rows of State: the one function that every State shares.

State is a projection: what an entry puts or removes depends on the entry and on the rows that are
there, on nothing else; no clock, no order of arrival but the index. So two States that applied
the same entries hold the same rows, whatever keeps them and however often the power failed.

Entries are authenticated before they come here; one that lacks a fact, or whose fact has another
type, is an IntegrityError and nothing of its batch is applied. An entry about a row that is not
there (a revocation of an unknown key) changes nothing. A kind that is not listed counts only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from modelkeep.core.entry import Entry
from modelkeep.core.errors import IntegrityError
from modelkeep.core.record import Record, converted, replaced
from modelkeep.core.rows import (
    ALIAS_HISTORY_MAX,
    DEFAULT_TENANT,
    TABLES,
    Account,
    Alias,
    Applied,
    Approval,
    ClientCertificate,
    Deprecation,
    Domain,
    DomainStatus,
    HeldAdmission,
    Hold,
    InboxClient,
    IssuerMark,
    KeyringMark,
    R,
    RegisteredPrincipal,
    Role,
    Settled,
    Tenant,
    Token,
    Traffic,
)

KEYRING_KEY = "keyring"
_DESTROYED = DomainStatus.DESTROYED


class Present(Protocol):
    """Reads one row as it is before an entry is applied; None where there is none."""

    def __call__(self, kind: type[R], key: str) -> R | None:
        """The row under this key."""
        ...


@dataclass(frozen=True, slots=True)
class Change:
    """One row that an entry puts, or removes where `row` is None."""

    table: str
    key: str
    row: Record | None


def changes(entry: Entry, present: Present) -> tuple[Change, ...]:
    """The rows that one entry puts or removes.

    Raises:
        IntegrityError: `record.plain`, when the entry lacks a fact of its kind.
    """
    projecting = _KINDS.get(entry.kind)
    return projecting(entry, present) if projecting is not None else ()


def projected(
    applied: Applied, first: int, entries: Sequence[Entry], present: Present
) -> tuple[Applied, tuple[Change, ...]]:
    """What a batch does: how far State has come after it, and each changed row once.

    Entries before `applied.entries` are skipped.

    Args:
        first: index of the first entry.
        present: reads the rows as they are before the batch.

    Raises:
        IntegrityError: see `changes`.
    """
    if first > applied.entries:
        raise AssertionError(f"state has {applied.entries} entries, got {first} next")
    changed: dict[tuple[str, str], Change] = {}

    def seen(kind: type[R], key: str) -> R | None:
        change = changed.get((TABLES[kind], key))
        if change is None:
            return present(kind, key)
        assert change.row is None or isinstance(change.row, kind)
        return change.row

    for entry in entries[applied.entries - first :]:
        if entry.kind == "vault.committed":
            applied = _committed(applied, entry)
        for change in changes(entry, seen):
            changed[change.table, change.key] = change
    reached = max(applied.entries, first + len(entries))
    return replaced(applied, entries=reached), tuple(changed.values())


def alias_key(model: str, alias: str) -> str:
    """The key of an alias; a space sorts before every character of a name."""
    return f"{model} {alias}"


def version_key(model: str, version: int | str) -> str:
    """The key of what is said of one version."""
    return f"{model} {version}"


def settled_key(client_id: str, submission: str) -> str:
    """The key of a submission that was settled."""
    return f"{client_id} {submission}"


# ---- one function per kind of entry --------------------------------------------------------------


def _fact(entry: Entry, name: str, kind: type[Any]) -> Any:
    value = entry.facts.get(name)
    if type(value) is not kind:
        raise IntegrityError("state.entry", f"a {entry.kind} entry says no {name}")
    return value


def _text(entry: Entry, name: str) -> str:
    return str(_fact(entry, name, str))


def _taken(kind: type[R], entry: Entry, names: str, **more: object) -> R:
    """A row whose fields are facts of the entry."""
    facts = {name: entry.facts[name] for name in names.split() if name in entry.facts}
    return converted(kind, {**facts, **more}, what=f"the {entry.kind} entry")


def _put(key: str, row: Record) -> tuple[Change, ...]:
    return (Change(TABLES[type(row)], key, row),)


def _again(kind: type[R], key: str, present: Present, **fields: object) -> tuple[Change, ...]:
    """The row that is there, with some fields changed."""
    row = present(kind, key)
    return () if row is None else _put(key, replaced(row, **fields))


def _committed(applied: Applied, entry: Entry) -> Applied:
    """Of two commits with one number the first counts."""
    head, snapshot = _fact(entry, "head", int), _text(entry, "snapshot")
    return applied if head <= applied.head else replaced(applied, head=head, snapshot=snapshot)


def _token_created(entry: Entry, _: Present) -> tuple[Change, ...]:
    tenant = entry.facts.get("tenant", entry.tenant)
    names = "token_id secret_sha256 principal scopes expires_ns"
    row = _taken(Token, entry, names, tenant=tenant)
    return _put(row.token_id, row)


def _token_revoked(entry: Entry, present: Present) -> tuple[Change, ...]:
    return _again(Token, _text(entry, "token_id"), present, revoked=True)


def _alias_moved(entry: Entry, present: Present) -> tuple[Change, ...]:
    """What it named before is the first step of the way back."""
    row = _taken(Alias, entry, "model alias version")
    key = alias_key(row.model, row.alias)
    before = present(Alias, key)
    if before is not None:
        if before.version == row.version:
            return ()
        way_back = (before.version, *before.previous)[:ALIAS_HISTORY_MAX]
        row = replaced(row, previous=way_back)
    return _put(key, row)


def _alias_back(entry: Entry, present: Present) -> tuple[Change, ...]:
    """The way back ends where the alias now is; what was beyond that step is forgotten."""
    row = _taken(Alias, entry, "model alias version")
    key = alias_key(row.model, row.alias)
    before = present(Alias, key)
    if before is not None and row.version in before.previous:
        row = replaced(row, previous=before.previous[before.previous.index(row.version) + 1 :])
    return _put(key, row)


def _model_removed(entry: Entry, present: Present) -> tuple[Change, ...]:
    """Aliases of versions that are gone name nothing, and nothing is said of these any more."""
    model, versions = _text(entry, "model"), _fact(entry, "versions", tuple)
    gone = [
        Change(TABLES[kind], version_key(model, version), None)
        for version in versions
        for kind in (Deprecation, Hold)
    ]
    names = [str(each).partition(":") for each in _fact(entry, "aliases", tuple)]
    keys = [alias_key(name, alias) for name, _, alias in names]
    rule = present(Traffic, model)
    if rule is not None and {str(rule.canary), str(rule.shadow)} & set(map(str, versions)):
        gone.append(Change(TABLES[Traffic], model, None))
    return (*gone, *(Change(TABLES[Alias], key, None) for key in keys))


def _deprecated(entry: Entry, _: Present) -> tuple[Change, ...]:
    names = "model version until_ns replaced_by note"
    row = _taken(Deprecation, entry, names, since_ns=entry.at_ns)
    return _put(version_key(row.model, row.version), row)


def _held(entry: Entry, _: Present) -> tuple[Change, ...]:
    row = _taken(Hold, entry, "model version note", by=entry.actor, since_ns=entry.at_ns)
    return _put(version_key(row.model, row.version), row)


def _version_freed(kind: type[Record]) -> Callable[[Entry, Present], tuple[Change, ...]]:
    """What was said of a version does not hold any more."""

    def change(entry: Entry, _: Present) -> tuple[Change, ...]:
        key = version_key(_text(entry, "model"), _fact(entry, "version", int))
        return (Change(TABLES[kind], key, None),)

    return change


def _tenant_created(entry: Entry, _: Present) -> tuple[Change, ...]:
    row = _taken(Tenant, entry, "domain", name=_text(entry, "tenant"))
    return _put(row.name, row)


def _principal_created(entry: Entry, _: Present) -> tuple[Change, ...]:
    row = _taken(RegisteredPrincipal, entry, "tenant roles", name=_text(entry, "principal"))
    return _put(row.name, row)


def _principal_changed(entry: Entry, present: Present) -> tuple[Change, ...]:
    roles = _fact(entry, "roles", tuple)
    return _again(RegisteredPrincipal, _text(entry, "principal"), present, roles=roles)


def _principal_disabled(entry: Entry, present: Present) -> tuple[Change, ...]:
    return _again(RegisteredPrincipal, _text(entry, "principal"), present, disabled=True)


def _principal_enabled(entry: Entry, present: Present) -> tuple[Change, ...]:
    return _again(RegisteredPrincipal, _text(entry, "principal"), present, disabled=False)


def _account_password(entry: Entry, _: Present) -> tuple[Change, ...]:
    names = "principal password_id salt verifier memory_kib passes lanes"
    row = _taken(Account, entry, names)
    return _put(row.principal, row)


def _account_removed(entry: Entry, _: Present) -> tuple[Change, ...]:
    return (Change(TABLES[Account], _text(entry, "principal"), None),)


def _certificate_issued(entry: Entry, present: Present) -> tuple[Change, ...]:
    """One that was revoked stays revoked, whoever registers it again."""
    row = _taken(ClientCertificate, entry, "fingerprint principal begins_ns expires_ns")
    before = present(ClientCertificate, row.fingerprint)
    return () if before is not None and before.revoked else _put(row.fingerprint, row)


def _certificate_revoked(entry: Entry, present: Present) -> tuple[Change, ...]:
    return _again(ClientCertificate, _text(entry, "fingerprint"), present, revoked=True)


def _issuer_marked(*, disabled: bool) -> Callable[[Entry, Present], tuple[Change, ...]]:
    def change(entry: Entry, _: Present) -> tuple[Change, ...]:
        label = _text(entry, "issuer")
        return _put(label, IssuerMark(label=label, disabled=disabled))

    return change


def _role_defined(entry: Entry, _: Present) -> tuple[Change, ...]:
    row = _taken(Role, entry, "scopes", name=_text(entry, "role"))
    return _put(row.name, row)


def _role_removed(entry: Entry, _: Present) -> tuple[Change, ...]:
    return (Change(TABLES[Role], _text(entry, "role"), None),)


def _domain_created(entry: Entry, _: Present) -> tuple[Change, ...]:
    row = _taken(Domain, entry, "tenant", name=_text(entry, "domain"))
    return _put(row.name, row)


def _domain_became(status: DomainStatus) -> Callable[[Entry, Present], tuple[Change, ...]]:
    def change(entry: Entry, present: Present) -> tuple[Change, ...]:
        name = _text(entry, "domain")
        row = present(Domain, name)
        if row is None:  # the first domain of a keep is made with it and has no entry of its own
            row = Domain(name=name, tenant=DEFAULT_TENANT)
        return () if row.status == _DESTROYED else _put(name, replaced(row, status=status))

    return change


def _domain_columns(entry: Entry, present: Present) -> tuple[Change, ...]:
    name = _text(entry, "domain")
    row = present(Domain, name) or Domain(name=name, tenant=DEFAULT_TENANT)
    return _put(name, replaced(row, has_columns=True))


def _keyring_changed(entry: Entry, present: Present) -> tuple[Change, ...]:
    row = _taken(KeyringMark, entry, "number")
    before = present(KeyringMark, KEYRING_KEY)
    return () if before and before.number >= row.number else _put(KEYRING_KEY, row)


def _approval_requested(entry: Entry, _: Present) -> tuple[Change, ...]:
    names = "approval_id verb subject digest requested_by expires_ns needed"
    row = _taken(Approval, entry, names, requested_ns=entry.at_ns)
    return _put(row.approval_id, row)


def _approval_given(entry: Entry, present: Present) -> tuple[Change, ...]:
    key, by = _text(entry, "approval_id"), _text(entry, "by")
    row = present(Approval, key)
    if row is None or by in row.given_by:
        return ()
    return _put(key, replaced(row, given_by=(*row.given_by, by)))


def _approval_refused(entry: Entry, present: Present) -> tuple[Change, ...]:
    key, by = _text(entry, "approval_id"), _text(entry, "by")
    row = present(Approval, key)
    return () if row is None or row.refused_by else _put(key, replaced(row, refused_by=by))


def _approval_used(entry: Entry, present: Present) -> tuple[Change, ...]:
    return _again(Approval, _text(entry, "approval_id"), present, used=True)


def _admission_held(entry: Entry, _: Present) -> tuple[Change, ...]:
    """What was withdrawn and is asked for again waits anew."""
    names = "hold_id model digest subject rules evidence size_bytes"
    row = _taken(HeldAdmission, entry, names, asked_by=entry.actor, asked_ns=entry.at_ns)
    return _put(row.hold_id, row)


def _admission_approved(entry: Entry, present: Present) -> tuple[Change, ...]:
    return _again(
        HeldAdmission,
        _text(entry, "hold_id"),
        present,
        approved_by=entry.actor,
        approved_ns=entry.at_ns,
        until_ns=_fact(entry, "until_ns", int),
        why=_text(entry, "why"),
        withdrawn=False,
    )


def _admission_withdrawn(entry: Entry, present: Present) -> tuple[Change, ...]:
    return _again(HeldAdmission, _text(entry, "hold_id"), present, withdrawn=True)


def _client_added(entry: Entry, _: Present) -> tuple[Change, ...]:
    names = "client_id public expires_ns size_bytes_max"
    row = _taken(InboxClient, entry, names, name=_text(entry, "client"))
    return _put(row.client_id, row)


def _client_revoked(entry: Entry, present: Present) -> tuple[Change, ...]:
    return _again(InboxClient, _text(entry, "client_id"), present, revoked=True)


def _submission_settled(entry: Entry, _: Present) -> tuple[Change, ...]:
    """A rejection that names no submission is of all that a client handed in."""
    row = _taken(Settled, entry, "client_id submission", accepted=entry.kind == "inbox.accepted")
    return _put(settled_key(row.client_id, row.submission), row) if row.submission else ()


def _traffic_set(entry: Entry, _: Present) -> tuple[Change, ...]:
    names = "model canary canary_lots shadow shadow_lots sticky"
    row = _taken(Traffic, entry, names, by=entry.actor, since_ns=entry.at_ns)
    return _put(row.model, row)


def _traffic_ended(entry: Entry, _: Present) -> tuple[Change, ...]:
    return (Change(TABLES[Traffic], _text(entry, "model"), None),)


_KINDS: dict[str, Callable[[Entry, Present], tuple[Change, ...]]] = {
    "account.password": _account_password,
    "account.removed": _account_removed,
    "admission.approved": _admission_approved,
    "admission.held": _admission_held,
    "admission.withdrawn": _admission_withdrawn,
    "alias.set": _alias_moved,
    "approval.given": _approval_given,
    "approval.refused": _approval_refused,
    "approval.requested": _approval_requested,
    "approval.used": _approval_used,
    "certificate.issued": _certificate_issued,
    "certificate.revoked": _certificate_revoked,
    "client.added": _client_added,
    "client.revoked": _client_revoked,
    "domain.columns": _domain_columns,
    "domain.created": _domain_created,
    "domain.destroyed": _domain_became(DomainStatus.DESTROYED),
    "domain.restored": _domain_became(DomainStatus.LIVE),
    "domain.revoked": _domain_became(DomainStatus.REVOKED),
    "inbox.accepted": _submission_settled,
    "inbox.rejected": _submission_settled,
    "issuer.disabled": _issuer_marked(disabled=True),
    "issuer.enabled": _issuer_marked(disabled=False),
    "keyring.changed": _keyring_changed,
    "model.deprecated": _deprecated,
    "model.held": _held,
    "model.promoted": _alias_moved,
    "model.removed": _model_removed,
    "model.rolled_back": _alias_back,
    "model.undeprecated": _version_freed(Deprecation),
    "model.unheld": _version_freed(Hold),
    "principal.changed": _principal_changed,
    "principal.created": _principal_created,
    "principal.disabled": _principal_disabled,
    "principal.enabled": _principal_enabled,
    "role.defined": _role_defined,
    "role.removed": _role_removed,
    "tenant.created": _tenant_created,
    "token.created": _token_created,
    "token.revoked": _token_revoked,
    "traffic.ended": _traffic_ended,
    "traffic.set": _traffic_set,
}
