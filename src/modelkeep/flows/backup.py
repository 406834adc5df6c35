"""Backup: bring every other store up to the authoritative one, then prove that it would do alone.

is it ours? -> objects -> moving series -> head (last) -> what was copied, all small objects and a
sample of packs read back and proven -> everything the head needs is there -> ledger
The ledger's own tiles travel with every checkpoint and not here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial

from modelkeep.core.errors import (
    IntegrityError,
    KeepError,
    MissingError,
    RefusedError,
    UnavailableError,
)
from modelkeep.core.instant import NS_PER_S
from modelkeep.core.record import Record
from modelkeep.flows.carry import carried
from modelkeep.flows.check import demand_object
from modelkeep.flows.keep import OpenKeep, current_head, mended, record
from modelkeep.flows.keys import remove_unreadable
from modelkeep.flows.store_format import StoreFormat
from modelkeep.flows.values import swept
from modelkeep.ports.range_store import uncached
from modelkeep.ports.store import ObjectStat, Store
from modelkeep.vault.check import needed
from modelkeep.vault.load import Damage, Reader
from modelkeep.vault.objects import latest, member_names, unverified_member
from modelkeep.vault.replicate import (
    CONTENT_KINDS,
    MOVING_KINDS,
    VALUE_KINDS,
    copy_objects,
    kind_of,
    missing_in,
)
from modelkeep.vault.settings import VaultSettings

# Packs that were there before and are read back in each run; `check --read-data` reads them all.
SAMPLE_PACKS = 8


class BackupReport(Record, frozen=True):
    """What one store got, and whether it now holds all that it needs.

    Attributes:
        objects: copied in this run; an unchanged keep copies none.
        damaged: objects whose own copy in the authoritative store is damaged; not copied.
        missing: objects that the head needs and this store still lacks.
        error: why the store could not be brought up, or empty.
    """

    store: str
    head: int
    objects: int
    size_bytes: int
    replaced: int
    seconds: float
    damaged: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    error: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether this store alone could bring the keep back."""
        return not (self.error or self.missing or self.damaged)


def backed_up(
    keep: OpenKeep,
    *,
    fresh: Collection[str] = (),
    vault: VaultSettings | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[BackupReport, ...]:
    """Replicate to every store but the first; one that fails does not stop the others.

    Args:
        fresh: labels of stores that may be empty: replacements, to be filled from nothing.
    """
    vault = vault or VaultSettings()
    swept(keep)
    remove_unreadable(keep)  # what is left of a destroyed key would fail the copy
    reports = []
    for target in keep.stores[1:]:
        started_ns = keep.clock.monotonic_ns()
        try:
            demand_own(keep, target, may_be_empty=target.label in fresh)
            report = _to_store(keep, target, started_ns, vault=vault, progress=progress)
        except KeepError as error:
            report = BackupReport(
                store=target.label,
                head=-1,
                objects=0,
                size_bytes=0,
                replaced=0,
                seconds=_seconds_since(keep, started_ns),
                error=str(error),
            )
        _record(keep, report)
        reports.append(report)
    return tuple(reports)


def demand_own(keep: OpenKeep, target: Store, *, may_be_empty: bool) -> None:
    """Check that a store is one of this keep's before anything is written into it.

    Raises:
        UnavailableError: `backup.empty`, for an empty store that nobody announced: a folder whose
            disk is not mounted looks like that.
        RefusedError: `backup.foreign`, for another keep's store.
    """
    names = member_names(target, "format")
    if not names:
        if may_be_empty and next(iter(target.list("")), None) is None:
            return
        raise UnavailableError(
            "backup.empty",
            f"{target.label} holds no store of this keep; is it mounted?",
            hint=f"to fill a new, empty one: `modelkeep backup --new {target.label}`; "
            "to mend a damaged one: `modelkeep check --repair`",
        )
    try:
        found = latest(StoreFormat, target, "format", public=keep.public).member.keep_id
    except MissingError:
        found = unverified_member(StoreFormat, names[0], target.get(names[0])).keep_id
        if found == keep.keep_id:
            raise UnavailableError(
                "backup.damaged",
                f"{target.label} is damaged where it says whose it is",
                hint="`modelkeep check --repair`",
            ) from None
    if found != keep.keep_id:
        raise RefusedError(
            "backup.foreign",
            f"{target.label} belongs to the keep {found}; nothing was written",
            hint="correct its path in modelkeep.toml",
        )


def _to_store(
    keep: OpenKeep,
    target: Store,
    started_ns: int,
    *,
    vault: VaultSettings,
    progress: Callable[[int], None],
) -> BackupReport:
    head = current_head(keep)
    reader = keep.reader(may_heal=False)
    lacking = missing_in(keep.store.list(""), target.list(""))
    first = [stat for stat in lacking if stat.name.startswith("format/")]
    rest = [stat for stat in lacking if not stat.name.startswith("format/")]

    def verify(name: str, raw: bytes) -> None:
        demand_object(keep, name, raw, reader=reader)

    copy = partial(copy_objects, source=keep.store, target=target, verify=verify)
    counts = [copy(first, progress=progress)]
    chunks = carried(keep, target, head.snapshot, vault=vault, progress=progress)
    counts.append(
        copy(rest, progress=progress) if not chunks.damaged else copy(_without_head(rest))
    )
    fresh = {stat.name for stat in lacking} | set(chunks.packs)
    sampled = _sample(keep, target, fresh)
    bad = [stat for stat in sampled if not _is_good(keep, target, stat.name, reader)]
    healed = [
        mended(
            keep, Damage(store=target.label, object=each.name, code="vault.digest", healed=False)
        )
        for each in bad
        if kind_of(each.name) in ("pack", "index")
    ]
    counts.append(copy([stat for stat in bad if kind_of(stat.name) not in ("pack", "index")]))
    return BackupReport(
        store=target.label,
        head=head.number,
        objects=sum(each.objects for each in counts) + chunks.objects,
        size_bytes=sum(each.size_bytes for each in counts) + chunks.size_bytes,
        replaced=sum(each.replaced for each in counts)
        + chunks.replaced
        + sum(each.healed for each in healed),
        seconds=_seconds_since(keep, started_ns),
        damaged=tuple(name for each in counts for name in each.damaged) + chunks.damaged,
        missing=_missing(target, keep.reader_of((target,)), head.snapshot),
    )


def _without_head(lacking: Sequence[ObjectStat]) -> list[ObjectStat]:
    """A target never names what it does not hold."""
    return [stat for stat in lacking if kind_of(stat.name) != "head"]


def _sample(keep: OpenKeep, target: Store, copied: Collection[str]) -> list[ObjectStat]:
    """What is read back: all that was copied, everything small, and a few packs at random."""
    kinds = CONTENT_KINDS + VALUE_KINDS + MOVING_KINDS
    there = [stat for stat in target.list("") if kind_of(stat.name) in kinds]
    packs = [stat for stat in there if kind_of(stat.name) == "pack" and stat.name not in copied]
    draws = keep.entropy.random_bytes(4 * SAMPLE_PACKS)
    chosen = {
        packs[int.from_bytes(draws[at : at + 4], "big") % len(packs)].name
        for at in range(0, len(draws), 4)
        if packs
    }
    return [
        stat
        for stat in there
        if kind_of(stat.name) != "pack" or stat.name in copied or stat.name in chosen
    ]


def _is_good(keep: OpenKeep, target: Store, name: str, reader: Reader) -> bool:
    try:
        demand_object(keep, name, uncached(target).get(name), reader=reader)
    except (IntegrityError, MissingError):
        return False
    return True


def _missing(target: Store, alone: Reader, snapshot: str) -> tuple[str, ...]:
    """What the snapshot needs and the target, read on its own, does not have in full size."""
    there = {stat.name: stat.size_bytes for stat in target.list("")}
    try:
        return tuple(
            name
            for name, size_bytes in needed(alone, target, snapshot)
            if name not in there or size_bytes not in (-1, there[name])
        )
    except (IntegrityError, MissingError) as error:
        return (str(error.context.get("object", error.code)),)


def _record(keep: OpenKeep, report: BackupReport) -> None:
    record(
        keep,
        "backup.done" if report.is_whole else "backup.failed",
        {
            "store": report.store,
            "head": report.head,
            "objects": report.objects,
            "size_bytes": report.size_bytes,
            "missing": len(report.missing),
            "damaged": len(report.damaged),
            "error": report.error,
        },
    )


def _seconds_since(keep: OpenKeep, started_ns: int) -> float:
    return round((keep.clock.monotonic_ns() - started_ns) / NS_PER_S, 3)
