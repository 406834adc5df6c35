"""The owner's side: keeping stores whole and small."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from modelkeep.adapters.upload_mark import is_uploading
from modelkeep.flows.approvals import demand_approval
from modelkeep.flows.check import CheckReport, checked
from modelkeep.flows.prune import PrunePolicy, PruneReport, pruned
from modelkeep.flows.remove import Removal, removal, removed
from modelkeep.flows.stats import Stats, stats_of
from modelkeep.wiring import KeepFolder, is_served

if TYPE_CHECKING:
    from modelkeep.core.entry import Fact
    from modelkeep.sdk.keep import Keep

Progress = Callable[[int], None]


class Upkeep:
    """Check, repair, prune, remove and stats of an open keep."""

    def __init__(self, keep: Keep) -> None:
        self._keep = keep

    def check(
        self,
        *,
        read_data: float = 0.0,
        repair: bool = False,
        progress: Progress = lambda _: None,
    ) -> CheckReport:
        """Check that every store holds what it must, the ledger included.

        Args:
            read_data: which share of the packs is read: 1 for every byte, 0.1 for a tenth.

        Raises:
            UsageError: `check.share`.
        """
        return checked(
            self._keep.opened,
            read_data=read_data,
            repair=repair,
            logs=self._keep.ledger.verify(repair=repair),
            progress=progress,
        )

    def repair(self, *, progress: Progress = lambda _: None) -> CheckReport:
        """Read every byte of every store, and make good whatever any store still has."""
        return self.check(read_data=1.0, repair=True, progress=progress)

    def prune(
        self,
        policy: PrunePolicy | None = None,
        *,
        dry_run: bool = False,
        progress: Progress = lambda _: None,
    ) -> PruneReport:
        """Drop old snapshots, and from every store what no other one needs.

        Args:
            policy: what is kept; by default every snapshot.
            dry_run: only say what would go.

        Raises:
            UsageError: `prune.policy`.
            RefusedError: `approval.needed`.
        """
        chosen = policy or PrunePolicy()
        if not dry_run:
            wish = f"last {chosen.keep_last}, within {chosen.keep_within_s:.0f} s"
            self._demand_approval("vault.prune", f"all but {wish}")
        return pruned(
            self._keep.opened,
            chosen,
            vault=self._keep.config.vault,
            dry_run=dry_run,
            uploading=is_uploading(upload_mark_of(self._keep.folder)),
            progress=progress,
        )

    def removal(self, reference: str) -> Removal:
        """What `remove` would take; nothing is changed."""
        return removal(self._keep.opened, reference)

    def remove(self, reference: str, *, force: bool = False) -> Removal:
        """Take a version, or all versions of a name, out of the current snapshot.

        Raises:
            MissingError: `model.unknown`.
            RefusedError: `remove.served`, `remove.alias` or `approval.needed`.
        """
        found = self.removal(reference)
        self._demand_approval("models.remove", reference, versions=found.versions)
        return removed(
            self._keep.opened, reference, served=served_by(self._keep.folder), force=force
        )

    def stats(self) -> Stats:
        """What the keep holds, and what each store takes for it."""
        return stats_of(self._keep.opened)

    def _demand_approval(self, verb: str, subject: str, **details: Fact) -> None:
        settings = self._keep.config.approvals
        if verb in settings.verbs:
            demand_approval(
                self._keep.opened, settings, verb=verb, subject=subject, details=details
            )


def upload_mark_of(folder: KeepFolder) -> Path:
    """The file whose lock says that something is being uploaded."""
    return folder.run_folder / "upload.lock"


def served_by(folder: KeepFolder) -> tuple[str, ...]:
    """What a running service answers for, as `name:version`."""
    if not is_served(folder):
        return ()
    try:
        facts = json.loads(folder.service_file.read_bytes())
    except (OSError, ValueError):
        return ()
    return tuple(map(str, facts.get("models", ())))
