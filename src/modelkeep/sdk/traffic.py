"""The owner's side: canaries and shadows of a model, in force on a running service at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelkeep.core.artifact import checked_model_name
from modelkeep.core.rows import LOTS, Traffic
from modelkeep.flows.traffic import parsed_share, traffic_ended, traffic_set

if TYPE_CHECKING:
    from modelkeep.sdk.keep import Keep


class TrafficRules:
    """Who answers a model's calls beside its default version."""

    def __init__(self, keep: Keep) -> None:
        self._keep = keep

    def all(self) -> tuple[Traffic, ...]:
        """Every canary and shadow, by model."""
        rows = self._keep.opened.state.rows(Traffic)
        return tuple(sorted(rows, key=lambda row: row.model))

    def set(
        self, model: str, *, canary: str = "", shadow: str = "", sticky: bool = False
    ) -> Traffic:
        """Give a model a canary, a shadow or both, in place of what it had.

        Args:
            canary: version and share of the calls that it answers: `4=5%`.
            shadow: version that is asked too, `5=10%`; without a share, of every call.
            sticky: the calls of one principal go all to the canary or none of them.

        Raises:
            UsageError: `traffic.share`, `traffic.nothing`, `traffic.same` or `model.name`.
            MissingError: `model.unknown`.
            RefusedError: `policy.*`, `version.ended` or `approval.needed`.
        """
        return traffic_set(
            self._keep.opened,
            model,
            canary=parsed_share(canary) if canary else None,
            shadow=parsed_share(shadow, otherwise=LOTS) if shadow else None,
            sticky=sticky,
            approvals=self._keep.config.approvals,
        )

    def end(self, model: str) -> bool:
        """End a model's canary and shadow; whether there was one.

        Raises:
            UsageError: `model.name`.
        """
        return traffic_ended(self._keep.opened, checked_model_name(model), reason="by hand")
