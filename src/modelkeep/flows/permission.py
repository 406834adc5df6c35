"""Asking a model's own policy, in every flow that gives its plaintext to somebody."""

from __future__ import annotations

from modelkeep.core.artifact import Manifest
from modelkeep.core.policy import Use
from modelkeep.flows.keep import OpenKeep
from modelkeep.seal.policy import demand_permitted


def demand_use(keep: OpenKeep, manifest: Manifest, use: Use) -> None:
    """Go on only if the policy of a model permits this use, here and now, to who opened the keep.

    The host is attested only where the policy names hosts.

    Raises:
        RefusedError: `policy.*`.
    """
    host = keep.host() if manifest.policy.hosts else ""
    demand_permitted(manifest, use, actor=keep.actor, now_ns=keep.clock.now_ns(), host=host)
