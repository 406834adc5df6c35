"""The owner's view of the ledger: read it, add to it, verify it, hand it to other tools."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

from modelkeep import __version__
from modelkeep.core.entry import Entry, Fact
from modelkeep.core.errors import IntegrityError, KeepError, MissingError, UsageError
from modelkeep.core.record import replaced
from modelkeep.core.verdict import Finding, Severity
from modelkeep.flows.history import log_access
from modelkeep.flows.keep import LogEpoch, OpenKeep, record
from modelkeep.flows.ledger_find import entry_at, found, tailed
from modelkeep.flows.ledger_read import LogAccess, healed_log, latest_checkpoint
from modelkeep.flows.ledger_write import appended
from modelkeep.flows.settings import ApprovalSettings
from modelkeep.flows.values import Erasure, erased_value, is_erased, private_facts
from modelkeep.ledger.checkpoint import Checkpoint, origin_in, verified_checkpoint, verifier_key
from modelkeep.ledger.export import exported
from modelkeep.ledger.find import Query
from modelkeep.ledger.log import LogReader
from modelkeep.ledger.value import RESERVED_FACTS, private_names, value_of
from modelkeep.ledger.verify import LogReport, verified_log
from modelkeep.ports.store import Store
from modelkeep.sdk.evidence import Evidence
from modelkeep.wiring import KeepFolder, folder_store

PRIVATE = "(private)"
ERASED = "(erased)"
EVERYTHING = Query()


class Ledger:
    """The ledger of an open keep.

    Args:
        approvals: table `[approvals]` of the keep.
    """

    def __init__(self, keep: OpenKeep, folder: KeepFolder, approvals: ApprovalSettings) -> None:
        self._open = keep
        self._folder = folder
        self._approvals = approvals

    @property
    def evidence(self) -> Evidence:
        """Proofs for strangers, witnesses and time stamps."""
        return Evidence(self._open, self._folder)

    # -- reading ------------------------------------------------------------------------------

    def entries(self, start: int = 0) -> Iterator[tuple[int, Entry]]:
        """The ledger's entries from an index on; indices count over all logs of the keep."""
        return self._open.history(start)

    def entry(self, index: int) -> Entry:
        """One entry.

        Raises:
            MissingError: `ledger.no_entry`.
        """
        return entry_at(self._open, index)

    def tail(self, last: int, query: Query = EVERYTHING) -> list[tuple[int, Entry]]:
        """The last entries that a query means, oldest first; reads from the end."""
        return tailed(self._open, last=last, query=query)

    def find(self, query: Query, *, limit: int | None = None) -> Iterator[tuple[int, Entry]]:
        """Entries that a query means, oldest first."""
        return islice(found(self._open, query), limit)

    def private_facts(self, entry: Entry) -> dict[str, Fact] | None:
        """The private facts of an entry, opened; None when they were erased."""
        return private_facts(self._open, entry) if value_of(entry) else {}

    def shown(self, entry: Entry, *, reveal: bool = False) -> Entry:
        """An entry for people: private facts by their names, or opened, or said to be erased."""
        value_id = value_of(entry)
        if not value_id:
            return entry
        plain = {name: fact for name, fact in entry.facts.items() if name not in RESERVED_FACTS}
        opened = private_facts(self._open, entry) if reveal else {}
        is_gone = opened is None or (not reveal and is_erased(self._open, value_id))
        word = ERASED if is_gone else PRIVATE
        hidden: dict[str, Fact] = dict.fromkeys(private_names(entry), word)
        return replaced(entry, facts={**plain, **hidden, **(opened or {})})

    def export(self, form: str, query: Query = EVERYTHING) -> Iterator[str]:
        """Lines in the form of other people's tools; private facts by their names only.

        Raises:
            UsageError: `export.format`.
        """
        entries: Iterable[tuple[int, Entry]] = (
            (index, self.shown(entry)) for index, entry in found(self._open, query)
        )
        return exported(entries, form, keep_id=self._open.keep_id, version=__version__)

    # -- writing ------------------------------------------------------------------------------

    def append(
        self, kind: str, facts: Mapping[str, Fact], *, private: Mapping[str, Fact] | None = None
    ) -> int:
        """Record an entry of a kind below `note.` or `x.`; its index.

        Args:
            private: facts that can be erased later, while every proof of the entry still holds.

        Raises:
            UsageError: `ledger.kind`, `ledger.fact` or `ledger.entry_size`.
        """
        return appended(self._open, kind, facts, private or {})

    def erase(self, index: int, *, reason: str) -> Erasure:
        """Destroy the key of an entry's private facts in every store; idempotent.

        Raises:
            UsageError: `ledger.no_value` or `ledger.reason`.
            MissingError: `ledger.no_entry`.
            RefusedError: `approval.needed`.
        """
        return erased_value(self._open, index, reason=reason, approvals=self._approvals)

    # -- verifying ----------------------------------------------------------------------------

    def verify(
        self, *, store: str = "", expected: bytes | None = None, repair: bool = False
    ) -> tuple[tuple[str, LogReport], ...]:
        """Verify every object of every log in every store (or in one).

        Args:
            expected: a signed checkpoint that must be in the history.
            repair: replace what another store has whole.

        Returns:
            (store label, report) per store and log.
        """
        if expected is not None:
            self._demand_expected(expected)
        stores = self._named_stores(store)
        reports = []
        for each in stores:
            for epoch in self._published():
                report = self._verified(each, epoch, expected)
                if repair and not report.is_whole:
                    self._heal_log(each, epoch)
                    report = self._verified(each, epoch, expected)
                reports.append((each.label, report))
        return tuple(reports)

    def checkpoint(self) -> Checkpoint:
        """The latest signed checkpoint."""
        return latest_checkpoint(self._access(self._open.store, self._open.epochs[-1]))

    def verifier_key(self) -> str:
        """The log's public key in C2SP form, for any public verifier of signed notes."""
        access = self._access(self._open.store, self._open.epochs[-1])
        return verifier_key(access.origin, access.public)

    def verifier_keys(self) -> tuple[str, ...]:
        """The keys of every log of this keep, the newest last: a recovery begins a new one."""
        accesses = [self._access(self._open.store, epoch) for epoch in self._open.epochs]
        return tuple(verifier_key(access.origin, access.public) for access in accesses)

    def _access(self, store: Store, epoch: LogEpoch) -> LogAccess:
        return log_access(self._open, epoch, store)

    def _named_stores(self, name: str) -> tuple[Store, ...]:
        """All stores, the one with a label, or a copy of a store in some folder."""
        stores = tuple(each for each in self._open.stores if name in ("", each.label))
        if stores:
            return stores
        if Path(name).is_dir():
            return (folder_store(Path(name), name),)
        raise MissingError(
            "store.unknown",
            f"there is no store {name[:80]!r}",
            hint=f"stores: {', '.join(each.label for each in self._open.stores)}; or a folder",
        )

    def _published(self) -> tuple[LogEpoch, ...]:
        """The logs of which some store holds a checkpoint; a new one is published at the end."""
        return tuple(
            epoch
            for epoch in self._open.epochs
            if any(LogReader(store, epoch.origin).checkpoint_sizes() for store in self._open.stores)
        )

    def _verified(self, store: Store, epoch: LogEpoch, expected: bytes | None) -> LogReport:
        access = self._access(store, epoch)
        at_least = None
        if expected and origin_in(expected) == epoch.origin:
            at_least = verified_checkpoint(expected, origin=epoch.origin, public=access.public)
        try:
            return verified_log(
                store,
                origin=epoch.origin,
                public=access.public,
                body_key=access.body_key,
                at_least=at_least,
            )
        except (IntegrityError, MissingError) as error:
            nothing = Finding(
                rule=error.code,
                severity=Severity.HIGH,
                subject=epoch.origin,
                evidence=error.message,
            )
            return LogReport(
                origin=epoch.origin,
                size=0,
                root=b"",
                objects=0,
                bodies_checked=False,
                findings=(nothing,),
                findings_total=1,
            )

    def _demand_expected(self, expected: bytes) -> None:
        origins = [epoch.origin for epoch in self._open.epochs]
        if origin_in(expected) not in origins:
            raise UsageError(
                "ledger.origin", "this checkpoint is of another log", hint=f"logs: {origins}"
            )

    def _heal_log(self, store: Store, epoch: LogEpoch) -> None:
        for other in self._open.stores:
            if other is store:
                continue
            try:
                names = healed_log(store, self._access(other, epoch))
            except KeepError:
                continue
            for name in names:
                record(
                    self._open,
                    "vault.healed",
                    {"store": store.label, "object": name, "code": "ledger"},
                )
