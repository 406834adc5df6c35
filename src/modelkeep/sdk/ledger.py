"""The owner's view of the ledger: read it, verify it, prove what stands in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modelkeep.core.artifact import checked_model_name
from modelkeep.core.entry import Entry
from modelkeep.core.errors import IntegrityError, KeepError, MissingError, UsageError
from modelkeep.core.verdict import Finding, Severity
from modelkeep.flows.history import log_access
from modelkeep.flows.keep import LogEpoch, OpenKeep, record
from modelkeep.flows.ledger_read import LogAccess, healed_log, latest_checkpoint
from modelkeep.flows.prove import proven_call
from modelkeep.ledger.checkpoint import Checkpoint, verified_checkpoint, verifier_key
from modelkeep.ledger.log import LogReader
from modelkeep.ledger.verify import LogReport, verified_log
from modelkeep.ports.store import Store
from modelkeep.wiring import KeepFolder, folder_store, open_journal


class Ledger:
    """The ledger of an open keep."""

    def __init__(self, keep: OpenKeep, folder: KeepFolder) -> None:
        self._open = keep
        self._folder = folder

    def entries(self, start: int = 0) -> Iterator[tuple[int, Entry]]:
        """The ledger's entries from an index on."""
        return self._open.history(start)

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
        found = []
        for each in stores:
            for epoch in self._published():
                report = self._verified(each, epoch, expected)
                if repair and not report.is_whole:
                    self._heal_log(each, epoch)
                    report = self._verified(each, epoch, expected)
                found.append((each.label, report))
        return tuple(found)

    def checkpoint(self) -> Checkpoint:
        """The latest signed checkpoint."""
        return latest_checkpoint(self._access(self._open.store, self._open.epochs[-1]))

    def verifier_key(self) -> str:
        """The log's public key in C2SP form, for any public verifier of signed notes."""
        access = self._access(self._open.store, self._open.epochs[-1])
        return verifier_key(access.origin, access.public)

    def prove(self, receipt: str) -> dict[str, Any]:
        """Prove that one call was recorded, from its receipt; see `flows.prove`."""
        name, colon, position = receipt.rpartition(":")
        if not colon or not position.isdecimal() or not checked_model_name(name):
            raise UsageError(
                "receipt.form", f"{receipt[:80]!r} is no receipt", hint="gateway-0-0:17"
            )
        journal = open_journal(self._folder.journals_folder / name, writable=False)
        access = self._access(self._open.store, self._open.epochs[-1])
        return proven_call(access, journal, name=name, position=int(position))

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
        if expected and _origin_of(expected) == epoch.origin:
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
        if _origin_of(expected) not in origins:
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


def _origin_of(checkpoint: bytes) -> str:
    return checkpoint.partition(b"\n")[0].decode(errors="replace")
