"""Recovery, the part that stores can tell: from one surviving store to a keep that can serve.

unlock -> configuration -> log verified -> objects copied, each proven -> a new log begins
What follows needs processes (serve, probe, measure) and is told by `sdk.recovery`. A drill runs
the same steps into a folder of its own and leaves the surviving store as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from modelkeep.core.entry import Entry
from modelkeep.core.errors import IntegrityError, KeepError, MissingError
from modelkeep.core.record import Record, replaced, to_msgpack
from modelkeep.flows.alive import alive_ns
from modelkeep.flows.create import Unlocked, origin_of
from modelkeep.flows.keep import LogEpoch
from modelkeep.flows.values import without_erased
from modelkeep.kernels.digest import keyed_id
from modelkeep.ledger.checkpoint import Checkpoint
from modelkeep.ledger.log import LogReader, published_bodies
from modelkeep.ledger.tree import TILE_WIDTH, leaf_hash, root_of
from modelkeep.ledger.verify import LogReport, demand_whole, verified_log
from modelkeep.ports.store import ObjectStat, Store
from modelkeep.ports.workers import SERIAL, Workers
from modelkeep.vault.check import needed
from modelkeep.vault.objects import (
    member_names,
    opened_member,
    sealed_object,
    series_member,
)
from modelkeep.vault.replicate import CONTENT_KINDS, MOVING_KINDS, VALUE_KINDS, kind_of
from modelkeep.vault.snapshot import Head


class Survived(Record, frozen=True):
    """What the surviving store proves of the ledger.

    Attributes:
        entries: under the checkpoint, all logs together.
        checkpoint: text of the last one; empty when the log had none.
        is_expected: whether the log contains the checkpoint that the operator expected.
        current_ns: when the store was last known to hold everything; 0 if nobody stated it.
        damaged: objects of its logs that are damaged, none of which an entry depends on.
    """

    entries: int
    checkpoint: str
    is_expected: bool
    current_ns: int = 0
    damaged: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Copied:
    """What was copied, and what could not be because its own bytes are damaged."""

    objects: int
    size_bytes: int
    damaged: tuple[str, ...]


def survived(
    store: Store, opened: Unlocked, *, public: bytes, expected: Checkpoint | None, now_ns: int
) -> Survived:
    """Verify every log of a surviving store, every object of it.

    Raises:
        IntegrityError: located, when a log is damaged, or does not contain what was expected.
    """
    was = Survived(entries=0, checkpoint="", is_expected=False)
    damaged: list[str] = []
    for epoch in opened.epochs:
        latest = LogReader(store, epoch.origin).latest(public=public)
        if latest.checkpoint is None:
            was = Survived(
                entries=epoch.base, checkpoint=epoch.resumed, is_expected=was.is_expected
            )
            continue
        is_here = expected is not None and expected.origin == epoch.origin
        report = verified_log(
            store,
            origin=epoch.origin,
            public=public,
            body_key=opened.keys.ledger_body,
            at_least=expected if is_here else None,
        )
        if not report.is_whole:
            hashes = _proven_leaves(store, epoch, opened, public, report)
            if (
                expected is not None
                and is_here
                and (
                    expected.size > len(hashes) or root_of(hashes[: expected.size]) != expected.root
                )
            ):
                demand_whole(report)
            damaged += [f"{each.subject}: {each.rule}" for each in report.findings]
        was = Survived(
            entries=epoch.base + report.size,
            checkpoint=latest.checkpoint.raw.decode(),
            is_expected=was.is_expected or is_here,
            current_ns=alive_ns(
                store, origin=epoch.origin, size=report.size, public=public, now_ns=now_ns
            ),
        )
    if expected is not None and not was.is_expected:
        raise IntegrityError(
            "recover.stale",
            f"{store.label} does not hold the log {expected.origin} that was expected",
            hint="recover from a store that is newer",
        )
    return replaced(was, damaged=tuple(damaged))


def _proven_leaves(
    store: Store, epoch: LogEpoch, opened: Unlocked, public: bytes, report: LogReport
) -> list[bytes]:
    """Go on with a damaged log only if every entry is there and the leaves give the signed root.

    What is damaged then is redundant: superseded tiles, hashes that the leaves give again.

    Returns:
        The hashes of all leaves.

    Raises:
        IntegrityError: the log's first finding.
    """
    fatal = ("ledger.fork", "ledger.checkpoint", "ledger.rollback")
    log = LogReader(store, epoch.origin)
    checkpoint = log.latest(public=public).checkpoint
    try:
        if checkpoint is None or any(each.rule in fatal for each in report.findings):
            demand_whole(report)
            return []
        hashes: list[bytes] = []
        for index in range(-(-checkpoint.size // TILE_WIDTH)):
            bodies = published_bodies(
                log, checkpoint.size, index=index, body_key=opened.keys.ledger_body
            )
            hashes += [leaf_hash(body.leaf) for body in bodies]
    except (IntegrityError, MissingError):
        demand_whole(report)
        raise
    if root_of(hashes) != checkpoint.root:
        demand_whole(report)
    return hashes


def copied(
    source: Store,
    target: Store,
    *,
    verify: Callable[[str, bytes], None],
    workers: Workers = SERIAL,
    progress: Callable[[int], None] = lambda _: None,
) -> Copied:
    """Copy everything that a keep needs into an empty store, the head last; repeatable.

    Ledger objects are copied as they are: `survived` has verified them.
    """
    kinds = (*CONTENT_KINDS, *VALUE_KINDS, "ledger", *MOVING_KINDS)
    order = {kind: place for place, kind in enumerate(kinds)}
    listed = [stat for stat in source.list("") if kind_of(stat.name) in order]
    wanted = without_erased(listed)
    count = size_bytes = 0
    damaged = []

    def proven(stat: ObjectStat) -> bytes | KeepError:
        try:
            raw = source.get(stat.name)
            if kind_of(stat.name) != "ledger":
                verify(stat.name, raw)
        except KeepError as error:
            return error
        return raw

    in_order = sorted(wanted, key=lambda each: (order[kind_of(each.name)], each.name))
    for stat, raw in zip(in_order, workers.map(proven, in_order), strict=True):
        if isinstance(raw, KeepError):
            if not isinstance(raw, MissingError):
                damaged.append(f"{stat.name}: {raw.code}")
            continue
        target.put(stat.name, raw)  # what the target cannot take ends the recovery
        count += 1
        size_bytes += len(raw)
        progress(len(raw))
    return Copied(objects=count, size_bytes=size_bytes, damaged=tuple(damaged))


@dataclass(frozen=True, slots=True)
class Backed:
    """What of the vault survived.

    Attributes:
        head: the newest head of the store all of whose objects are there.
        committed: number of the last head that the ledger knows; above `head.number` when
            something was committed after the last backup.
        lost: what was admitted after that head, as (name, version).
        lost_ns: when the first of it was admitted; 0 for nothing.
    """

    head: Head
    committed: int
    lost: tuple[tuple[str, int], ...]
    lost_ns: int = 0


def backed(store: Store, opened: Unlocked, entries: Iterable[Entry]) -> Backed:
    """Find the newest head that a surviving store can honour, and what is lost with later ones.

    Args:
        entries: the surviving history, from its beginning.

    Raises:
        MissingError: `recover.none`, when no head is whole.
    """
    head = _whole_head(store, opened)
    committed = 0
    pending: list[tuple[str, int]] = []
    lost: list[tuple[str, int]] = []
    lost_ns = 0
    for entry in entries:
        if entry.kind in ("model.admitted", "files.saved"):
            pending.append((str(entry.facts.get("model")), int(str(entry.facts.get("version")))))
        elif entry.kind == "vault.committed":
            number = entry.facts.get("head")
            committed = number if isinstance(number, int) else committed
            if committed > head.number:
                lost += pending
                lost_ns = lost_ns or entry.at_ns
            pending = []
    return Backed(head=head, committed=committed, lost=tuple(lost), lost_ns=lost_ns)


def _whole_head(store: Store, opened: Unlocked) -> Head:
    public = opened.keys.signer.public
    there = {stat.name: stat.size_bytes for stat in store.list("")}
    alone = opened.reader_of((store,))
    for name in member_names(store, "head"):
        try:
            head = opened_member(Head, name, store.get(name), kind="head", public=public)
            if all(
                each in there and size_bytes in (-1, there[each])
                for each, size_bytes in needed(alone, store, head.snapshot, is_lenient=True)
            ):
                return head
        except (IntegrityError, MissingError):
            continue
    raise MissingError(
        "recover.none",
        f"{store.label} holds no head whose objects are all there",
        hint="recover from another store",
    )


def honoured_snapshot(store: Store, opened: Unlocked, had: Backed, target: Store) -> str:
    """The snapshot a recovered keep begins with: the surviving one, with what was lost retired.

    It is sealed under a salt of its own content, so that a recovery that is run again writes the
    same bytes.
    """
    if not had.lost:
        return had.head.snapshot
    reader = opened.reader_of((store,))
    before = reader.snapshot(had.head.snapshot)
    after = to_msgpack(
        replaced(before, parent=had.head.snapshot, retired=(*before.retired, *had.lost))
    )
    name, raw = sealed_object(
        "snapshot",
        after,
        domain=opened.keys.own,
        signer=opened.keys.signer,
        salt=keyed_id(opened.keys.own.blobs.reveal(), after),
    )
    target.put(name, raw)
    return name


def next_epoch(
    opened: Unlocked, was: Survived, had: Backed, *, snapshot: str, is_empty: bool
) -> LogEpoch:
    """The log that a recovered keep goes on with: a new one, unless the newest is still empty.

    Where commits were lost, it begins with a new head that names the snapshot that survived, so
    that heads only ever go up.
    """
    newest = opened.epochs[-1]
    if is_empty:
        return newest
    number = newest.number + 1
    went_on = had.committed > had.head.number
    return LogEpoch(
        number=number,
        origin=origin_of(opened.keep_id, number),
        base=was.entries,
        resumed=was.checkpoint,
        head=had.committed + 1 if went_on else had.head.number,
        snapshot=snapshot,
    )


def put_epoch(store: Store, epoch: LogEpoch, opened: Unlocked) -> None:
    """Write a log's record into a store; idempotent."""
    name, raw = series_member("log", epoch, signer=opened.keys.signer)
    store.put(name, raw)
