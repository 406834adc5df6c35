"""The keep's whole history: every log in order, from whichever store has it whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from modelkeep.core.entry import Entry
from modelkeep.core.errors import IntegrityError, KeepError, MissingError, UnavailableError
from modelkeep.crypto.signatures import Signer
from modelkeep.flows.create import Unlocked
from modelkeep.flows.keep import LogEpoch, OpenKeep
from modelkeep.flows.ledger_read import LogAccess, healed_log, log_size, read_entries
from modelkeep.ports.journal import Journal
from modelkeep.ports.store import Store


def history(
    opened: Unlocked,
    stores: Sequence[Store],
    journal: Journal | None,
    start: int,
    healed: list[str],
) -> Iterator[tuple[int, Entry]]:
    """All entries of a keep's logs from an index on, from whichever store has them whole.

    An index counts over all logs. What the authoritative store has damaged is healed from the
    store that answered, and named in `healed`.
    """
    at = start
    for number, epoch in enumerate(opened.epochs):
        is_last = number == len(opened.epochs) - 1
        end = None if is_last else opened.epochs[number + 1].base
        accesses = [
            log_access(opened, epoch, store, journal if is_last else None) for store in stores
        ]
        while end is None or at < end:
            before = at
            for index, entry in _of_epoch(accesses, at - epoch.base, healed):
                at = epoch.base + index + 1
                yield at - 1, entry
                if end is not None and at >= end:
                    break
            if at == before:
                break
        if end is not None and at < end:
            raise IntegrityError("keep.history", f"the log {epoch.origin} ends at {at}, not {end}")
        if is_last and at == start > epoch.base + log_size(accesses[0]):
            raise IntegrityError(
                "keep.history",
                f"State has applied {start} entries, the ledger holds fewer: it was rolled back",
                hint="`modelkeep recover` from the store that holds the newest checkpoint",
            )


def log_access(
    opened: Unlocked | OpenKeep, epoch: LogEpoch, store: Store, journal: Journal | None = None
) -> LogAccess:
    """How one log is read from one store."""
    keys = opened.keys
    return LogAccess(
        store=store,
        origin=epoch.origin,
        public=Signer(keys.ledger_seed).public,
        body_key=keys.ledger_body,
        journal=journal,
    )


def _of_epoch(
    accesses: Sequence[LogAccess], start: int, healed: list[str]
) -> Iterator[tuple[int, Entry]]:
    """One log's entries from an index on, from the first store that has them whole."""
    failures: list[tuple[Store, KeepError]] = []
    at = start
    for access in accesses:
        try:
            for index, entry in read_entries(access, at):
                yield index, entry
                at = index + 1
        except (IntegrityError, MissingError, UnavailableError) as error:
            failures.append((access.store, error))
            continue
        for bad, failure in failures:
            if not isinstance(failure, UnavailableError):
                healed += [f"{bad.label}:{name}" for name in healed_log(bad, access)]
        return
    raise failures[0][1]
