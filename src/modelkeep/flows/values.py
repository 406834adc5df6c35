"""Private facts and their erasure: a key in every store, and its end in every store.

Writing: the key into every store that answers, the first one at least -> the entry. A crash
between leaves a key of nothing. Erasing: the entry `value.erased` -> in every store that answers,
the mark that the key is never to come back -> the key away. What a store that was away still
holds, the next backup, check or erasure there removes, because the marks of all stores count in
each. Reading asks for marks first, so a key that came back from an old copy of a store opens
nothing here; its bytes are gone only once that store was swept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from modelkeep.core.entry import Entry, Fact
from modelkeep.core.errors import (
    IntegrityError,
    MissingError,
    UnavailableError,
    UsageError,
)
from modelkeep.core.record import Record
from modelkeep.crypto.hierarchy import KeepKeys
from modelkeep.flows.approvals import demand_approval
from modelkeep.flows.keep import OpenKeep, record
from modelkeep.flows.ledger_find import entry_at, newest_first
from modelkeep.flows.settings import ApprovalSettings
from modelkeep.flows.store_format import StoreFormat
from modelkeep.ledger.value import (
    ERASED_KIND,
    RANDOM_BYTES,
    VALUE_KIND,
    demand_value,
    erased_name,
    erasure,
    opened_value,
    parsed_value_name,
    sealed_value,
    value_name,
    value_of,
)
from modelkeep.ports.store import ObjectStat, Store
from modelkeep.vault.objects import latest

REASON_CHARS_MAX = 500
ERASED_ENTRY = "value.erased"


class Erasure(Record, frozen=True):
    """What became of a value's key.

    Attributes:
        entry: index of the entry that says so.
        stores: labels of those that hold it no more.
        away: labels of those that did not answer and may still hold it.
    """

    index: int
    value: str
    entry: int
    stores: tuple[str, ...]
    away: tuple[str, ...]


def kept_value(keep: OpenKeep, facts: Mapping[str, Fact]) -> dict[str, Fact]:
    """Seal private facts and put their key into every store; what the entry holds of them.

    Raises:
        UnavailableError: of the first store; of the others, a backup makes up for it.
    """
    random = keep.entropy.random_bytes(RANDOM_BYTES)
    value = sealed_value(facts, body_key=keep.keys.ledger_body, random=random)
    name = value_name(value.value_id)
    keep.store.put(name, value.kept_key)
    _in_all(keep, lambda store: store.put(name, value.kept_key))
    return value.facts


def private_facts(keep: OpenKeep, entry: Entry) -> dict[str, Fact] | None:
    """The private facts of an entry; None when they were erased.

    Raises:
        IntegrityError: `ledger.value`, `aead.*` or `signature.bad`.
        MissingError: `ledger.value_lost`, when no store has the key, nor the mark of its erasure.
    """
    value_id = value_of(entry)
    name = value_name(value_id)
    if is_erased(keep, value_id):
        return None
    failure: IntegrityError | UnavailableError | None = None
    for store in keep.stores:
        try:
            return opened_value(entry, store.get(name), body_key=keep.keys.ledger_body)
        except MissingError:
            continue
        except (IntegrityError, UnavailableError) as error:
            failure = failure or error
    if failure is not None:
        raise failure
    raise MissingError(
        "ledger.value_lost",
        f"no store holds the key of value {value_id[:16]}…, and nobody erased it",
        hint="`modelkeep check --repair`, with every store attached",
    )


def is_erased(keep: OpenKeep, value_id: str) -> bool:
    """Whether any store holds a valid mark that the value is erased."""
    name = erased_name(value_id)
    return any(_is_marked(keep, store, name) for store in keep.stores)


def erased_value(
    keep: OpenKeep, index: int, *, reason: str, approvals: ApprovalSettings
) -> Erasure:
    """Erase the private facts of an entry; idempotent.

    Raises:
        UsageError: `ledger.no_value` or `ledger.reason`.
        MissingError: `ledger.no_entry`.
        RefusedError: `approval.needed`.
    """
    if not reason.strip() or len(reason) > REASON_CHARS_MAX:
        raise UsageError(
            "ledger.reason",
            f"an erasure needs a reason of at most {REASON_CHARS_MAX} characters",
            hint="--reason 'request 17 of the data subject'",
        )
    value_id = value_of(entry_at(keep, index))
    if not value_id:
        raise UsageError(
            "ledger.no_value",
            f"entry {index} has no private facts",
            hint="only what was appended with --private can be erased",
        )
    said = _said(keep, value_id) if is_erased(keep, value_id) else -1
    if said < 0:
        facts: dict[str, Fact] = {"index": index, "value": value_id, "reason": reason}
        subject = f"entry {index}"
        demand_approval(keep, approvals, verb="ledger.erase", subject=subject, details=facts)
        said = record(keep, ERASED_ENTRY, facts)
    mark = erasure(value_id, signer=keep.keys.signer)

    def end(store: Store) -> None:
        _put_mark(keep, store, erased_name(value_id), mark)
        store.delete(value_name(value_id))

    away = _in_all(keep, end)
    done = tuple(store.label for store in keep.stores if store.label not in away)
    return Erasure(index=index, value=value_id, entry=said, stores=done, away=away)


def swept(keep: OpenKeep) -> tuple[str, ...]:
    """Give every store the marks of all, and take from each what is marked as erased.

    Stores that do not answer are passed over. For backups and checks: an erased key that came
    back with an old copy of a store goes again.

    Returns:
        `store:object` for every key that was removed.
    """
    held = {store.label: _held(store) for store in keep.stores}
    marks = {
        name: store
        for store in reversed(keep.stores)
        for name in held[store.label]
        if _is(name, ERASED_KIND) and _is_marked(keep, store, name)
    }
    removed: list[str] = []

    def sweep(store: Store) -> None:
        names = held[store.label]
        for name in marks.keys() - names:
            _put_mark(keep, store, name, erasure(_id(name), signer=keep.keys.signer))
        for name in names & {value_name(_id(name)) for name in marks}:
            store.delete(name)
            removed.append(f"{store.label}:{name}")

    _in_all(keep, sweep)
    return tuple(sorted(removed))


def without_erased(objects: Sequence[ObjectStat]) -> list[ObjectStat]:
    """What a recovery copies from a store: no key that the store itself marks as erased.

    A mark is taken at its word here: who forges one could as well delete the key.
    """
    marked = {value_name(_id(each.name)) for each in objects if _is(each.name, ERASED_KIND)}
    return [each for each in objects if each.name not in marked]


def demand_kept(keys: KeepKeys, name: str, raw: bytes) -> None:
    """Check an object of kind `value` or `erased`.

    Raises:
        IntegrityError: `ledger.value`, `aead.*` or `signature.bad`.
    """
    demand_value(name, raw, body_key=keys.ledger_body, public=keys.signer.public)


def _said(keep: OpenKeep, value_id: str) -> int:
    """The entry that said that a value is erased; -1 when there is none (a mark from elsewhere)."""
    for index, entry in newest_first(keep):
        if entry.kind == ERASED_ENTRY and entry.facts.get("value") == value_id:
            return index
    return -1


def _is_marked(keep: OpenKeep, store: Store, name: str) -> bool:
    try:
        demand_kept(keep.keys, name, store.get(name))
    except (IntegrityError, MissingError, UnavailableError):
        return False
    return True


def _put_mark(keep: OpenKeep, store: Store, name: str, mark: bytes) -> None:
    """Write a mark, over a damaged one."""
    try:
        store.put(name, mark)
    except IntegrityError:
        if not _is_marked(keep, store, name):
            store.delete(name)
            store.put(name, mark)


def _held(store: Store) -> set[str]:
    """Names of all marks and keys in a store; none of one that does not answer."""
    try:
        return {stat.name for kind in (VALUE_KIND, ERASED_KIND) for stat in store.list(f"{kind}/")}
    except UnavailableError:
        return set()


def _is(name: str, kind: str) -> bool:
    return parsed_value_name(name)[0] == kind


def _id(name: str) -> str:
    return parsed_value_name(name)[1]


def _in_all(keep: OpenKeep, act: Callable[[Store], None]) -> tuple[str, ...]:
    """Act on every store; labels of those that did not answer.

    A folder that does not say whose store it is, signed, is another keep's or an empty place
    where a disk is not mounted: nothing is put there.
    """
    away = []
    for store in keep.stores:
        try:
            _demand_ours(keep, store)
            act(store)
        except UnavailableError:
            away.append(store.label)
    return tuple(away)


def _demand_ours(keep: OpenKeep, store: Store) -> None:
    try:
        own = latest(StoreFormat, store, "format", public=keep.public).member
    except MissingError:
        own = None
    if own is None or own.keep_id != keep.keep_id:
        raise UnavailableError(
            "ledger.no_store",
            f"{store.label} does not say that it is a store of this keep",
            hint="is it mounted?",
        )
