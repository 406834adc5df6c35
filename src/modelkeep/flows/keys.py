"""The life of a keep's keys: domains made and destroyed, the root given to other holders.

rotate  a new root, wrapped by a new key-encryption key; domain keys are wrapped anew. Seconds. For
        a stolen passphrase, key file or HSM credential, as long as the thief had no copy of a store
        as well.
rekey   a new key for one domain, and everything in it encrypted anew (`flows.rekey`). Hours for
        terabytes. For a thief who had the root, or the domain's key, and a copy of a store: what he
        copied stays readable to him, what comes after does not.
destroy no key for a domain any more: everything in it is noise, in every store and backup.

Every change is a new keyring in the stores, then a ledger entry, then older keyrings go. A
destruction is in the ledger first: cut at any point, the next opening goes on with it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from modelkeep.core.artifact import is_model_name
from modelkeep.core.entry import Fact
from modelkeep.core.errors import MissingError, RefusedError, UnavailableError, UsageError
from modelkeep.core.names import key_id_of
from modelkeep.core.record import Record, replaced
from modelkeep.core.rows import DEFAULT_DOMAIN, DEFAULT_TENANT, Alias, Domain, DomainStatus, Tenant
from modelkeep.crypto.keyring import SHARES, SOURCE, RingBody
from modelkeep.crypto.secret import Secret
from modelkeep.flows.commit import committed
from modelkeep.flows.create import new_domain_key
from modelkeep.flows.keep import OpenKeep, current_head, record
from modelkeep.flows.keyring import (
    OpenRing,
    changed_ring,
    demand_ours,
    settled,
    with_domain,
    without_domain,
)
from modelkeep.flows.standing import demand_not_held
from modelkeep.ports.keyholder import Holders, RootRecipient
from modelkeep.vault.replicate import CONTENT_KINDS, kind_of
from modelkeep.vault.snapshot import Snapshot


class HolderFacts(Record, frozen=True):
    """Who can open the root."""

    kind: str
    holder: str
    note: str


class DomainFacts(Record, frozen=True):
    """One domain, for people.

    Attributes:
        key_ids: of its keys; two while a rekey is under way.
        models: versions that are kept in it, as `name:version`.
    """

    name: str
    tenant: str
    status: str
    key_ids: tuple[str, ...]
    models: tuple[str, ...]


class KeyFacts(Record, frozen=True):
    """All keys of a keep: never the keys."""

    keyring: int
    holders: tuple[HolderFacts, ...]
    domains: tuple[DomainFacts, ...]


class Doomed(Record, frozen=True):
    """What dies with a domain's key.

    Attributes:
        models: versions, as `name:version`.
        aliases: as `name:alias`.
        tenants: whose domain it is.
        objects: in the authoritative store, with their size.
        has_columns: whether columns of some database are encrypted under it too.
    """

    domain: str
    models: tuple[str, ...]
    aliases: tuple[str, ...]
    tenants: tuple[str, ...]
    objects: int
    size_bytes: int
    has_columns: bool = False


@dataclass(frozen=True, slots=True)
class Shredded:
    """What a destruction did; `away` are stores that still hold the key and wait for it."""

    keep: OpenKeep
    doomed: Doomed
    removed: int
    away: tuple[str, ...]


def key_facts(keep: OpenKeep) -> KeyFacts:
    """Who holds the root, and which domains there are."""
    rows = {row.name: row for row in keep.state.rows(Domain)}
    owners = {row.domain: row.name for row in keep.state.rows(Tenant)}
    snapshot = keep.reader().snapshot(current_head(keep).snapshot)
    names = sorted({*rows, *keep.domains.names()})
    return KeyFacts(
        keyring=keep.ring.number,
        holders=tuple(
            HolderFacts(kind=each.kind, holder=each.holder, note=each.note)
            for each in keep.ring.wraps
        ),
        domains=tuple(
            DomainFacts(
                name=name,
                tenant=owners.get(name, rows[name].tenant if name in rows else DEFAULT_TENANT),
                status=str(rows[name].status if name in rows else DomainStatus.LIVE),
                key_ids=tuple(each.key_id for each in keep.domains.all_of(name)),
                models=_models_in(snapshot, name),
            )
            for name in names
        ),
    )


def with_new_domains(keep: OpenKeep, names: Sequence[str], *, tenant: str) -> OpenKeep:
    """Make domains, each with a random key of its own; those that exist stay as they are.

    Raises:
        UsageError: `keys.domain_name`.
        RefusedError: `keys.destroyed_name`: a name is not used again.
    """
    if tenant != DEFAULT_TENANT and tenant not in {row.name for row in keep.state.rows(Tenant)}:
        raise MissingError(
            "tenant.unknown",
            f"there is no tenant {tenant[:80]!r}",
            hint="`modelkeep tenants new` makes one",
        )
    body, made = keep.ring.body, []
    for name in names:
        if not is_model_name(name):
            raise UsageError(
                "keys.domain_name",
                f"{name[:80]!r} cannot name a domain",
                hint="letters, digits, '.', '_' and '-', such as acme or fraud-eu",
            )
        if any(row.status is DomainStatus.DESTROYED for row in _rows_of(keep, name)):
            raise RefusedError(
                "keys.destroyed_name",
                f"the domain {name} was destroyed; its name is not used again",
                hint="make it under another name",
            )
        if name in made or name == DEFAULT_DOMAIN or _rows_of(keep, name):
            continue
        if name not in keep.domains.names():  # else a power cut came before the ledger knew of it
            body = with_domain(body, new_domain_key(name, keep.entropy))
        made.append(name)
    if body is not keep.ring.body:
        keep = with_ring(keep, body, reason="new domains")
    for name in made:
        record(keep, "domain.created", {"domain": name, "tenant": tenant})
    return keep


def rotated(keep: OpenKeep, *, source: str = "", passphrase: Secret | None = None) -> OpenKeep:
    """A new root under a new key-encryption key; every domain key is wrapped anew.

    Recovery keys and escrow recipients stay: the new root is sealed to them too.

    Args:
        source: reference of the key source; empty keeps its place.
        passphrase: the new one, where the source is a passphrase.
    """
    raw = b"" if passphrase is None else passphrase.reveal()
    holders = Holders(source=source, passphrase=raw, recipients=_recipients(keep.ring))
    return with_ring(keep, keep.ring.body, reason="rotate", holders=holders)


def with_recipient(keep: OpenKeep, added: RootRecipient) -> OpenKeep:
    """A new root, sealed to one more public key; of shares, only the latest split counts."""
    kept = tuple(
        each
        for each in _recipients(keep.ring)
        if each.text != added.text and not each.kind == added.kind == SHARES
    )
    holders = Holders(recipients=(*kept, added))
    return with_ring(keep, keep.ring.body, reason=added.kind, holders=holders)


def without_recipients(keep: OpenKeep, kind: str, *, text: str = "") -> OpenKeep:
    """A new root that is not sealed to these recipients any more.

    Args:
        text: the beginning of the one that is meant; without it, all of the kind.

    Raises:
        MissingError: `keys.recipient`.
        UsageError: `keys.which`, when several begin so.
    """
    start = text.rstrip("\u2026")  # as `keys list` shows it
    gone = tuple(
        each for each in _recipients(keep.ring) if each.kind == kind and each.text.startswith(start)
    )
    if not gone:
        raise MissingError(
            "keys.recipient",
            f"the root is not sealed to any such {kind} recipient",
            hint="`modelkeep keys list` shows who holds the root",
        )
    if text and len(gone) > 1:
        raise UsageError(
            "keys.which",
            f"{len(gone)} recipients begin with {start[:40]}",
            hint="give more of the one that is meant",
        )
    kept = tuple(each for each in _recipients(keep.ring) if each not in gone)
    return with_ring(
        keep, keep.ring.body, reason=f"revoke {kind}", holders=Holders(recipients=kept)
    )


def set_domain_status(keep: OpenKeep, name: str, status: DomainStatus) -> None:
    """Revoke a domain (a running gateway refuses its models within a second), or restore it.

    Raises:
        MissingError: `keys.domain`.
    """
    keep.domains.named(name)
    if any(row.status is status for row in _rows_of(keep, name)):
        return
    kind = "domain.revoked" if status is DomainStatus.REVOKED else "domain.restored"
    record(keep, kind, {"domain": name})


def with_columns(keep: OpenKeep, name: str) -> None:
    """Remember that a domain's keys are used outside of the vault, for columns of a database.

    Raises:
        MissingError: `keys.domain`.
    """
    keep.domains.named(name)
    if not has_columns(keep, name):
        record(keep, "domain.columns", {"domain": name})


def has_columns(keep: OpenKeep, name: str) -> bool:
    """Whether a domain's keys were handed out for encrypted columns."""
    return any(row.has_columns for row in _rows_of(keep, name))


def doomed(keep: OpenKeep, name: str) -> Doomed:
    """What would die with a domain's key; nothing is changed.

    Raises:
        MissingError: `keys.domain` or `keys.gone`.
        UsageError: `keys.default`: the keep itself needs that one.
    """
    if name == DEFAULT_DOMAIN:
        raise UsageError(
            "keys.default",
            "the default domain cannot be destroyed on its own",
            hint="to destroy a whole keep, destroy its key source and its stores",
        )
    if any(row.status is DomainStatus.DESTROYED for row in _rows_of(keep, name)):
        raise MissingError("keys.gone", f"the domain {name} was destroyed already")
    keep.domains.named(name)
    snapshot = keep.reader().snapshot(current_head(keep).snapshot)
    models = {each.name for each in snapshot.artifacts if each.domain == name}
    key_ids = {each.key_id for each in keep.domains.all_of(name)}
    stats = [stat for stat in keep.store.list("") if key_id_of(stat.name) in key_ids]
    return Doomed(
        domain=name,
        models=_models_in(snapshot, name),
        aliases=tuple(
            f"{row.model}:{row.alias}" for row in keep.state.rows(Alias) if row.model in models
        ),
        tenants=tuple(row.name for row in keep.state.rows(Tenant) if row.domain == name),
        objects=len(stats),
        size_bytes=sum(stat.size_bytes for stat in stats),
        has_columns=has_columns(keep, name),
    )


def destroyed(keep: OpenKeep, name: str) -> Shredded:
    """Destroy a domain's key, in every store that answers, and remove what was under it.

    ledger (no return from here) -> keyring without the key -> older keyrings gone -> objects gone

    Raises:
        MissingError: `keys.domain`.
        UsageError: `keys.default`: the keep itself needs that one.
        RefusedError: `remove.held`.
    """
    report = doomed(keep, name)
    head = current_head(keep)
    before = keep.reader().snapshot(head.snapshot)
    dying = [(each.name, each.version) for each in before.artifacts if each.domain == name]
    demand_not_held(keep, dying)
    after = _without(keep, before, head.snapshot, {name})
    facts: dict[str, Fact] = {"domain": name, "models": report.models, "tenants": report.tenants}
    committed(keep, after, ("domain.destroyed", facts))
    keep, away = shredded_keys(keep)
    return Shredded(
        keep=keep,
        doomed=report,
        removed=remove_unreadable(keep),
        away=away,
    )


def shredded_keys(keep: OpenKeep) -> tuple[OpenKeep, tuple[str, ...]]:
    """Take the keys of destroyed domains out of the keyring, if any is left; idempotent.

    Returns:
        The keep without them, and labels of stores that are away and still hold them.
    """
    body = keep.ring.body
    held = {each.name for each in body.domains}
    dead = [
        row.name
        for row in keep.state.rows(Domain)
        if row.status is DomainStatus.DESTROYED and row.name in held
    ]
    if not dead:
        return keep, ()
    for name in dead:
        body = without_domain(body, name)
    keep = with_ring(keep, body, reason="destroy " + ", ".join(dead))
    return keep, settled(keep.ring, keep.stores).away


def without_dead(keep: OpenKeep) -> None:
    """Drop what a snapshot still lists of destroyed domains: a commit may have come between."""
    dead = {row.name for row in keep.state.rows(Domain) if row.status is DomainStatus.DESTROYED}
    if not dead:
        return
    head = current_head(keep)
    snapshot = keep.reader().snapshot(head.snapshot)
    if any(each.domain in dead for each in snapshot.artifacts):
        committed(keep, _without(keep, snapshot, head.snapshot, dead))


def remove_unreadable(keep: OpenKeep) -> int:
    """Remove from every store what is under a key that no keyring holds; the number of objects.

    A store that is away, not mounted or another keep's is left as it is.
    """
    removed = 0
    for store in keep.stores:
        try:
            demand_ours(store, public=keep.public)
            for stat in list(store.list("")):
                if kind_of(stat.name) in CONTENT_KINDS and not keep.domains.holds(stat.name):
                    store.delete(stat.name)
                    removed += 1
        except (MissingError, UnavailableError):
            continue
    return removed


def with_ring(
    keep: OpenKeep, body: RingBody, *, reason: str, holders: Holders | None = None
) -> OpenKeep:
    """Make a keyring the one that counts: in the stores, in the ledger, older ones gone."""
    ring = changed_ring(keep.ring, keep.stores, body, holders=holders)
    record(keep, "keyring.changed", {"number": ring.number, "reason": reason})
    settled(ring, keep.stores)
    return replace(keep, ring=ring, domains=ring.domains)


def _without(keep: OpenKeep, before: Snapshot, parent: str, dead: Collection[str]) -> Snapshot:
    """A snapshot without the artifacts of some domains, whose version numbers are retired."""
    gone = tuple((each.name, each.version) for each in before.artifacts if each.domain in dead)
    return replaced(
        before,
        taken_ns=keep.clock.now_ns(),
        parent=parent,
        artifacts=tuple(each for each in before.artifacts if each.domain not in dead),
        indexes=(),
        retired=(*before.retired, *gone),
    )


def _recipients(ring: OpenRing) -> tuple[RootRecipient, ...]:
    return tuple(
        RootRecipient(kind=each.kind, text=each.holder, note=each.note)
        for each in ring.wraps
        if each.kind != SOURCE
    )


def _rows_of(keep: OpenKeep, name: str) -> tuple[Domain, ...]:
    return tuple(row for row in keep.state.rows(Domain) if row.name == name)


def _models_in(snapshot: Snapshot, domain: str) -> tuple[str, ...]:
    return tuple(
        f"{each.name}:{each.version}" for each in snapshot.artifacts if each.domain == domain
    )
