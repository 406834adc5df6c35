"""Check: does every store hold what it must, and are its bytes what they claim; repair if asked.

Structure (names, sizes, small objects, series) always; with `read_data` every pack is read,
authenticated segment by segment and hashed against its ids. The ledger's objects are judged by
`flows.ledger`, which knows its tree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from modelkeep.core.errors import IntegrityError, KeepError, MissingError
from modelkeep.core.record import Record
from modelkeep.core.verdict import Finding, Severity
from modelkeep.flows.create import ConfigCopy, Keyring, Root, StoreFormat, Unlocked
from modelkeep.flows.keep import LogEpoch, OpenKeep, current_head, record
from modelkeep.ports.store import ObjectStat, Store
from modelkeep.vault.check import demand_content, needed
from modelkeep.vault.load import Reader
from modelkeep.vault.objects import Numbered, latest, opened_member
from modelkeep.vault.replicate import CONTENT_KINDS, MOVING_KINDS, kind_of
from modelkeep.vault.snapshot import Head

_SERIES: dict[str, type[Numbered]] = {
    "format": StoreFormat,
    "root": Root,
    "keyring": Keyring,
    "config": ConfigCopy,
    "log": LogEpoch,
    "head": Head,
}


class CheckReport(Record, frozen=True):
    """What a check saw.

    Attributes:
        repaired: objects that were replaced from another store.
    """

    objects: int
    size_bytes: int
    findings: tuple[Finding, ...]
    repaired: int

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left to repair."""
        return not any(each.severity is Severity.HIGH for each in self.findings)


@dataclass(slots=True)
class _Seen:
    objects: int = 0
    size_bytes: int = 0
    repaired: int = 0
    findings: list[Finding] = field(default_factory=list)


def demand_object(keep: OpenKeep | Unlocked, name: str, raw: bytes) -> None:
    """Check one object of the vault, whatever its kind.

    Raises:
        IntegrityError: the first thing that is wrong with it.
    """
    kind, public = kind_of(name), keep.keys.signer.public
    if kind in CONTENT_KINDS:
        demand_content(name, raw, domain=keep.domain, public=public)
    elif kind in _SERIES:
        opened_member(_SERIES[kind], name, raw, kind=kind, public=public)
    else:
        raise IntegrityError("check.unknown", f"{name} is nothing that modelkeep writes")


def checked(
    keep: OpenKeep,
    *,
    read_data: bool,
    repair: bool,
    progress: Callable[[int], None] = lambda _: None,
) -> CheckReport:
    """Check every store, and with `repair` replace what another store has whole."""
    seen = _Seen()
    current_head(keep)
    for store in keep.stores:
        try:
            _store(keep, store, seen, read_data=read_data, repair=repair, progress=progress)
        except KeepError as error:
            seen.findings.append(_finding("check.store", store, store.label, str(error)))
    report = CheckReport(
        objects=seen.objects,
        size_bytes=seen.size_bytes,
        findings=tuple(seen.findings),
        repaired=seen.repaired,
    )
    record(
        keep,
        "check.done",
        {
            "objects": report.objects,
            "read_data": read_data,
            "findings": len(report.findings),
            "repaired": report.repaired,
        },
    )
    return report


def _store(
    keep: OpenKeep,
    store: Store,
    seen: _Seen,
    *,
    read_data: bool,
    repair: bool,
    progress: Callable[[int], None],
) -> None:
    there: dict[str, int] = {}
    for stat in list(store.list("")):
        if kind_of(stat.name) == "ledger":
            continue
        there[stat.name] = stat.size_bytes
        seen.objects += 1
        if kind_of(stat.name) == "pack" and not read_data:
            continue
        seen.size_bytes += stat.size_bytes
        _object(keep, store, stat, seen, repair=repair)
        progress(stat.size_bytes)
    for kind in MOVING_KINDS:
        if not any(kind_of(name) == kind for name in there):
            _lost(keep, store, f"{kind}/000000000000", seen, repair=repair)
    own = latest(Head, store, "head", public=keep.public).member
    if own.number < keep.state.applied().head:
        evidence = f"head {own.number} of {keep.state.applied().head}: run `modelkeep backup`"
        seen.findings.append(
            _finding("check.behind", store, "head", evidence, severity=Severity.MEDIUM)
        )
    alone = Reader(stores=keep.stores, domain=keep.domain, public=keep.public, may_heal=repair)
    for name, size_bytes in needed(alone, own.snapshot):
        if name not in there and store.stat(name) is None:
            _lost(keep, store, name, seen, repair=repair)
        elif size_bytes not in (-1, there.get(name, -1)):
            _bad(keep, store, name, f"{name} has another size than the index says", seen, repair)


def _object(
    keep: OpenKeep, store: Store, stat: ObjectStat, seen: _Seen, *, repair: bool
) -> None:
    try:
        demand_object(keep, stat.name, store.get(stat.name))
    except IntegrityError as error:
        _bad(keep, store, stat.name, str(error), seen, repair)
    except MissingError:
        return  # deleted since it was listed


def _lost(keep: OpenKeep, store: Store, name: str, seen: _Seen, *, repair: bool) -> None:
    _bad(keep, store, name, f"{name} is missing", seen, repair)


def _bad(  # noqa: PLR0913, PLR0917
    keep: OpenKeep, store: Store, name: str, evidence: str, seen: _Seen, repair: bool
) -> None:
    if repair and _replaced(keep, store, name):
        seen.repaired += 1
        seen.findings.append(
            _finding("check.repaired", store, name, evidence, severity=Severity.NOTE)
        )
        record(keep, "vault.healed", {"store": store.label, "object": name, "code": "check"})
    else:
        seen.findings.append(_finding("check.object", store, name, evidence))


def _replaced(keep: OpenKeep, bad: Store, name: str) -> bool:
    for store in keep.stores:
        if store is bad:
            continue
        try:
            raw = store.get(name)
            demand_object(keep, name, raw)
        except KeepError:
            continue
        bad.delete(name)
        bad.put(name, raw)
        return True
    return False


def _finding(
    rule: str, store: Store, name: str, evidence: str, *, severity: Severity = Severity.HIGH
) -> Finding:
    return Finding(rule=rule, severity=severity, subject=f"{store.label}:{name}", evidence=evidence)
