"""Backup: bring every other store up to the authoritative one, then prove that it would do alone.

objects -> moving series -> head (last) -> sample check of the copy -> ledger
The ledger's own tiles travel with every checkpoint and not here.
"""

from __future__ import annotations

from collections.abc import Callable

from modelkeep.core.errors import IntegrityError, KeepError
from modelkeep.core.instant import NS_PER_S
from modelkeep.core.record import Record
from modelkeep.flows.check import demand_object
from modelkeep.flows.keep import OpenKeep, current_head, record
from modelkeep.ports.store import Store
from modelkeep.vault.check import needed
from modelkeep.vault.load import Reader
from modelkeep.vault.replicate import copy_objects, missing_in


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
    keep: OpenKeep, *, progress: Callable[[int], None] = lambda _: None
) -> tuple[BackupReport, ...]:
    """Replicate to every store but the first; one that fails does not stop the others."""
    reports = []
    for target in keep.stores[1:]:
        started_ns = keep.clock.monotonic_ns()
        try:
            report = _to_store(keep, target, started_ns, progress)
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


def _to_store(
    keep: OpenKeep, target: Store, started_ns: int, progress: Callable[[int], None]
) -> BackupReport:
    head = current_head(keep)
    lacking = missing_in(keep.store.list(""), target.list(""))
    copied = copy_objects(
        lacking,
        source=keep.store,
        target=target,
        verify=lambda name, raw: demand_object(keep, name, raw),
        progress=progress,
    )
    alone = Reader(stores=(target,), domain=keep.domain, public=keep.public, may_heal=False)
    return BackupReport(
        store=target.label,
        head=head.number,
        objects=copied.objects,
        size_bytes=copied.size_bytes,
        replaced=copied.replaced,
        seconds=_seconds_since(keep, started_ns),
        damaged=copied.damaged,
        missing=_missing(target, alone, head.snapshot),
    )


def _missing(target: Store, alone: Reader, snapshot: str) -> tuple[str, ...]:
    """What the snapshot needs and the target, read on its own, does not have in full size."""
    there = {stat.name: stat.size_bytes for stat in target.list("")}
    try:
        return tuple(
            name
            for name, size_bytes in needed(alone, snapshot)
            if name not in there or size_bytes not in (-1, there[name])
        )
    except IntegrityError as error:
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
