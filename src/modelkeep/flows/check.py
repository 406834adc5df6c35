"""Check: does every store hold what it must, and are its bytes what they claim; repair if asked.

Structure (names, sizes, small objects, series) always; with `read_data` every pack is read,
authenticated segment by segment and hashed against its ids. The ledger's objects are judged by
`ledger.verify`, which knows its tree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from modelkeep.core.entry import Fact
from modelkeep.core.errors import (
    IntegrityError,
    KeepError,
    MissingError,
    UnavailableError,
    UsageError,
)
from modelkeep.core.names import series_name
from modelkeep.core.record import Record
from modelkeep.core.verdict import Finding, Severity
from modelkeep.flows.create import ConfigCopy, Unlocked
from modelkeep.flows.keep import LogEpoch, OpenKeep, current_head, record, record_damages
from modelkeep.flows.keyring import Keyring
from modelkeep.flows.store_format import StoreFormat
from modelkeep.flows.values import demand_kept, swept
from modelkeep.ledger.verify import LogReport
from modelkeep.ports.store import Store
from modelkeep.vault.check import demand_content, needed
from modelkeep.vault.objects import Numbered, latest, opened_member
from modelkeep.vault.replicate import CONTENT_KINDS, MOVING_KINDS, VALUE_KINDS, kind_of
from modelkeep.vault.snapshot import Head

_SERIES: dict[str, type[Numbered]] = {
    "format": StoreFormat,
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


def demand_object(keep: OpenKeep | Unlocked, name: str, raw: bytes) -> None:
    """Check one object of the vault, whatever its kind.

    Raises:
        IntegrityError: the first thing that is wrong with it.
    """
    kind, public = kind_of(name), keep.keys.signer.public
    if kind in CONTENT_KINDS:
        demand_content(name, raw, domains=keep.domains, public=public)
    elif kind in VALUE_KINDS:
        demand_kept(keep.keys, name, raw)
    elif kind in _SERIES:
        opened_member(_SERIES[kind], name, raw, kind=kind, public=public)
    else:
        raise IntegrityError("check.unknown", f"{name} is nothing that modelkeep writes")


def checked(
    keep: OpenKeep,
    *,
    read_data: bool,
    repair: bool,
    logs: Sequence[tuple[str, LogReport]] = (),
    progress: Callable[[int], None] = lambda _: None,
) -> CheckReport:
    """Check every store, and with `repair` replace what another store has whole.

    Args:
        logs: what a verification of the ledger found in each store; it joins the report.
    """
    check = _Check(keep, read_data=read_data, repair=repair, progress=progress)
    current_head(keep)
    swept(keep)
    for store in keep.stores:
        try:
            check.store(store)
        except KeepError as error:
            check.note("check.store", store, store.label, str(error))
    for label, log in logs:
        check.objects += log.objects
        for each in log.findings:
            if each.severity is not Severity.NOTE:
                check.findings.append(
                    Finding(
                        rule=each.rule,
                        severity=each.severity,
                        subject=f"{label}:{each.subject}",
                        evidence=each.evidence,
                    )
                )
    report = CheckReport(
        objects=check.objects,
        size_bytes=check.size_bytes,
        findings=tuple(check.findings),
        repaired=check.repaired,
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


@dataclass(slots=True, kw_only=True)
class _Check:
    """One check under way: what it looks at, and what it has seen."""

    keep: OpenKeep = field(kw_only=False)
    read_data: bool
    repair: bool
    progress: Callable[[int], None]
    objects: int = 0
    size_bytes: int = 0
    repaired: int = 0
    findings: list[Finding] = field(default_factory=list)

    def store(self, store: Store) -> None:
        """Every object that is there, then everything that must be."""
        there: dict[str, int] = {}
        for stat in list(store.list("")):
            if kind_of(stat.name) in ("ledger", "alive"):
                continue  # the first is judged apart, the second by whoever uses it
            there[stat.name] = stat.size_bytes
            self.objects += 1
            if kind_of(stat.name) != "pack" or self.read_data:
                self.size_bytes += stat.size_bytes
                self.one(store, stat.name)
                self.progress(stat.size_bytes)
        for kind in MOVING_KINDS:
            if not any(kind_of(name) == kind for name in there):
                self.bad(store, series_name(kind, 0), f"there is no {kind}")
        self.reachable(store, there)

    def one(self, store: Store, name: str) -> None:
        """One object's own bytes."""
        try:
            demand_object(self.keep, name, store.get(name))
        except IntegrityError as error:
            self.bad(store, name, str(error))
        except (UnavailableError, UsageError) as error:
            self.note("check.stray", store, name, str(error), severity=Severity.MEDIUM)
        except MissingError as error:
            if error.code == "keys.destroyed":
                severity = Severity.MEDIUM
                self.note("check.shredded", store, name, str(error), severity=severity)

    def reachable(self, store: Store, there: dict[str, int]) -> None:
        """Everything that the store's own head needs, in the size that the index says."""
        keep = self.keep
        own = latest(Head, store, "head", public=keep.public).member
        newest = keep.state.applied().head
        if own.number < newest:
            self.note(
                "check.behind",
                store,
                "head",
                f"head {own.number} of {newest}: run `modelkeep backup`",
                severity=Severity.MEDIUM,
            )
        reader = keep.reader(may_heal=self.repair)
        for name, size_bytes in needed(reader, own.snapshot):
            if name not in there and store.stat(name) is None:
                self.bad(store, name, f"{name} is missing")
            elif size_bytes not in (-1, there.get(name, -1)):
                self.bad(store, name, f"{name} has another size than the index says")
        for damage in reader.damages:
            severity = Severity.NOTE if damage.healed else Severity.HIGH
            rule = "check.repaired" if damage.healed else "check.object"
            subject = f"{damage.store}:{damage.object}"
            self.findings.append(
                Finding(rule=rule, severity=severity, subject=subject, evidence=damage.code)
            )
            self.repaired += damage.healed
        record_damages(self.keep, reader.damages)

    def bad(self, store: Store, name: str, evidence: str) -> None:
        """Note a damaged or missing object; with `repair`, replace it from another store."""
        if self.repair and self.replaced(store, name):
            self.repaired += 1
            self.note("check.repaired", store, name, evidence, severity=Severity.NOTE)
            facts: dict[str, Fact] = {"store": store.label, "object": name, "code": "check"}
            record(self.keep, "vault.healed", facts)
        else:
            self.note("check.object", store, name, evidence)

    def replaced(self, bad: Store, name: str) -> bool:
        """Whether another store had the object whole; it then has replaced the bad one."""
        for store in self.keep.stores:
            if store is bad:
                continue
            try:
                raw = store.get(name)
                demand_object(self.keep, name, raw)
            except KeepError:
                continue
            bad.delete(name)
            bad.put(name, raw)
            return True
        return False

    def note(
        self,
        rule: str,
        store: Store,
        name: str,
        evidence: str,
        *,
        severity: Severity = Severity.HIGH,
    ) -> None:
        """Keep one finding."""
        subject = f"{store.label}:{name}"
        self.findings.append(
            Finding(rule=rule, severity=severity, subject=subject, evidence=evidence)
        )
