"""The owner's side: versions promoted, rolled back, deprecated, held, retired; their lineage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from modelkeep.core.artifact import Manifest, checked_model_name, parsed_reference
from modelkeep.core.errors import UsageError
from modelkeep.core.policy import Policy
from modelkeep.core.rows import Deprecation, Hold
from modelkeep.flows.lineage import Lineage, lineage_of
from modelkeep.flows.registry import signed_version
from modelkeep.flows.repolicy import repoliced
from modelkeep.flows.retention import Retirement, retired, retirement
from modelkeep.flows.version_list import AliasMove, VersionList, moves_of, versions_of
from modelkeep.flows.versions import (
    Move,
    aliased,
    deprecated,
    held,
    promoted,
    rolled_back,
    undeprecated,
    unheld,
)
from modelkeep.ledger.find import instant_ns
from modelkeep.sdk.papers import policy_of
from modelkeep.sdk.upkeep import served_by

if TYPE_CHECKING:
    from modelkeep.sdk.keep import Keep


class Versions:
    """Versions of the models in an open keep."""

    def __init__(self, keep: Keep) -> None:
        self._keep = keep
        self._approvals = keep.config.approvals

    def of(self, name: str) -> VersionList:
        """The versions of a name, each with how it stands.

        Raises:
            MissingError: `model.unknown`.
        """
        return versions_of(self._keep.opened, checked_model_name(name))

    def manifest(self, reference: str) -> tuple[Manifest, str]:
        """The verified manifest of a version, and its digest.

        Raises:
            MissingError: `model.unknown`.
        """
        return signed_version(self._keep.opened, parsed_reference(reference))

    def set_policy(self, reference: str, policy: Policy | str | Path) -> tuple[Manifest, str, bool]:
        """Make the next version of a name: the bytes of this one, under another policy.

        Returns:
            The manifest, its digest, and whether it is new.

        Raises:
            MissingError: `model.unknown`, `file.missing`.
            RefusedError: `approval.needed`.
            UsageError: `paper.*`, `policy.bounds`.
            UnavailableError: `policy.rekey`.
        """
        said = policy_of(policy)
        return repoliced(
            self._keep.opened,
            parsed_reference(reference),
            said,
            approvals=self._approvals,
            vault=self._keep.config.vault,
        )

    def moves(self, name: str) -> Iterator[AliasMove]:
        """Every move of a model's aliases, oldest first, from the whole ledger."""
        return moves_of(self._keep.opened, checked_model_name(name))

    def lineage(self, reference: str) -> Lineage:
        """What a version was made from, and what was made from it.

        Raises:
            MissingError: `model.unknown`.
        """
        return lineage_of(self._keep.opened, parsed_reference(reference))

    def alias(self, alias: str, version: str | int) -> Move:
        """Point `name:alias` at a version, unchecked.

        Raises:
            UsageError: `model.alias`.
            MissingError: `model.unknown`.
            RefusedError: `approval.needed`.
        """
        name, which = _alias(alias)
        target = parsed_reference(f"{name}:{version}")
        return aliased(self._keep.opened, target, which, approvals=self._approvals)

    def promote(self, reference: str, *, to: str, note: str = "", force: bool = False) -> Move:
        """Move an alias to a version that may be served.

        Args:
            reference: `fraud:3`, or another alias such as `fraud:staging`.
            to: the alias, such as `prod`.
            force: also a deprecated one, until its end.

        Raises:
            UsageError: `promote.version`, `model.alias` or `version.note`.
            MissingError: `model.unknown`.
            RefusedError: `policy.*`, `version.ended`, `promote.deprecated` or `approval.needed`.
        """
        return promoted(
            self._keep.opened,
            parsed_reference(reference),
            to,
            approvals=self._approvals,
            note=note,
            force=force,
        )

    def rollback(self, alias: str, *, to: int = 0, note: str = "") -> Move:
        """Move `name:alias` back to what it named before.

        Args:
            to: one of the versions that it named before; 0 for the last one that can be served.

        Raises:
            MissingError: `rollback.alias`.
            RefusedError: `rollback.*`, `policy.*`, `version.ended` or `approval.needed`.
        """
        name, which = _alias(alias)
        return rolled_back(
            self._keep.opened, name, which, approvals=self._approvals, to=to, note=note
        )

    def deprecate(
        self, reference: str, *, until: str = "", replaced_by: str = "", note: str = ""
    ) -> Deprecation:
        """Say that a version should not be used any more.

        Args:
            until: a date or time (RFC 3339) from which on no new start of the service takes it.

        Raises:
            UsageError: `time.form`, `version.*` or `deprecate.self`.
            MissingError: `model.unknown`.
        """
        return deprecated(
            self._keep.opened,
            parsed_reference(reference),
            until_ns=instant_ns(until) if until else 0,
            replaced_by=replaced_by,
            note=note,
        )

    def undeprecate(self, reference: str) -> bool:
        """Take a deprecation back; whether there was one."""
        return undeprecated(self._keep.opened, parsed_reference(reference))

    def hold(self, reference: str, *, note: str = "") -> Hold:
        """Say that a version must not go: neither `remove --force` nor `retire` takes it.

        Raises:
            UsageError: `version.*`.
            MissingError: `model.unknown`.
        """
        return held(self._keep.opened, parsed_reference(reference), note=note)

    def unhold(self, reference: str) -> bool:
        """Lift a hold; whether there was one.

        Raises:
            RefusedError: `approval.needed`.
        """
        opened = self._keep.opened
        return unheld(opened, parsed_reference(reference), approvals=self._approvals)

    def retire(self, *names: str, dry_run: bool = False) -> Retirement:
        """Take out what is past the retention of `[retention]`; the next prune frees it.

        Args:
            names: these models only; none for all.

        Raises:
            MissingError: `model.unknown`.
            RefusedError: `approval.needed`, where removing versions needs approval.
        """
        keep, served = self._keep.opened, served_by(self._keep.folder)
        wishes = self._keep.config.retention
        chosen = [checked_model_name(name) for name in names]
        if dry_run:
            return retirement(keep, wishes, names=chosen, served=served)
        return retired(keep, wishes, names=chosen, served=served, approvals=self._approvals)


def _alias(text: str) -> tuple[str, str]:
    """The model and the alias of `fraud:prod`.

    Raises:
        UsageError: `model.alias`, `model.reference` or `model.name`.
    """
    parsed = parsed_reference(text)
    if not parsed.selector:
        raise UsageError("model.alias", f"{text!r} is no alias", hint="write NAME:ALIAS")
    return parsed.name, parsed.selector
