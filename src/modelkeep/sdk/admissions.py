"""The owner's side: admissions that are held, and who lets them in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelkeep.core.rows import HeldAdmission
from modelkeep.flows.admissions import approved, held_admissions, standing_of, withdrawn
from modelkeep.ledger.find import instant_ns

if TYPE_CHECKING:
    from modelkeep.sdk.keep import Keep


class Admissions:
    """What waits for somebody's decision in an open keep."""

    def __init__(self, keep: Keep) -> None:
        self._keep = keep

    def held(self) -> tuple[tuple[HeldAdmission, str], ...]:
        """All, the newest first, each with how it stands: waiting, approved, expired, withdrawn."""
        opened = self._keep.opened
        now_ns = opened.clock.now_ns()
        return tuple((each, standing_of(each, now_ns)) for each in held_admissions(opened))

    def approve(self, named: str, *, why: str, until: str) -> HeldAdmission:
        """Let a held admission in until an instant: these bytes, under this name, as found.

        Args:
            named: its id, or the model's name where only one waits under it.
            until: a date or time (RFC 3339).

        Raises:
            UsageError: `time.form`, `admission.why`, `admission.until`, `admission.ambiguous`.
            MissingError: `admission.unknown`.
            RefusedError: `admission.withdrawn` or `approval.needed`.
        """
        return approved(
            self._keep.opened,
            named,
            why=why,
            until_ns=instant_ns(until),
            approvals=self._keep.config.approvals,
        )

    def withdraw(self, named: str) -> HeldAdmission:
        """Take an approval back, or give up what waits for one.

        Raises:
            UsageError: `admission.ambiguous`.
            MissingError: `admission.unknown`.
        """
        return withdrawn(self._keep.opened, named)
