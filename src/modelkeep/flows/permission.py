"""Asking a model's own policy, in every flow that gives its plaintext to somebody.

Policies are asked at the moment of use: a keep that stays open notices that a policy has ended.
Which host this is, is proven when a policy first names hosts, recorded, and holds while the keep
is open.
"""

from __future__ import annotations

from collections.abc import Callable

from modelkeep.core.artifact import Manifest, parsed_reference
from modelkeep.core.errors import KeepError, MissingError, RefusedError, UnavailableError
from modelkeep.core.policy import Use
from modelkeep.flows.keep import OpenKeep, record
from modelkeep.flows.registry import manifest_of
from modelkeep.ports.attestor import Attested
from modelkeep.seal.policy import demand_permitted


def demand_use(keep: OpenKeep, manifest: Manifest, use: Use) -> None:
    """Go on only if the policy of a model permits this use, here and now, to who opened the keep.

    The host is attested only where the policy names hosts.

    Raises:
        RefusedError: `policy.*` or `attest.*`.
        UnavailableError: `attest.unavailable`.
    """
    host = keep.host() if manifest.policy.hosts else ""
    demand_permitted(manifest, use, actor=keep.actor, now_ns=keep.clock.now_ns(), host=host)


def demand_base(keep: OpenKeep, base: str) -> None:
    """Go on only if the version that another one is made from permits that.

    What the keep does not hold may be named as a base all the same: it says nothing here.

    Raises:
        RefusedError: `policy.*` or `attest.*`.
        UnavailableError: `attest.unavailable`.
        UsageError: `model.reference`.
    """
    if base:
        reference = parsed_reference(base)
        try:
            manifest = manifest_of(keep, reference)
        except MissingError:
            return
        demand_use(keep, manifest, Use.TRAIN)


class ProvenHost:
    """What `OpenKeep.host` asks: which host this is, proven once while a keep is open.

    Args:
        prove: asks the attester and verifies its evidence; None where none is configured, and then
            nothing is proven.
    """

    def __init__(self, prove: Callable[[], Attested] | None) -> None:
        self.keep: OpenKeep | None = None
        self._prove = prove
        self._ueid = ""

    def __call__(self) -> str:
        """The host's identifier; empty only where no attester is configured.

        Raises:
            RefusedError: `attest.*`.
            UnavailableError: `attest.unavailable`.
        """
        if self._prove is None or self._ueid:
            return self._ueid
        try:
            proven = self._prove()
        except (RefusedError, UnavailableError):
            raise
        except KeepError as error:
            raise UnavailableError("attest.unavailable", error.message, hint=error.hint) from error
        assert self.keep is not None
        record(
            self.keep,
            "host.attested",
            {
                "host": proven.ueid,
                "anchor": proven.anchor,
                "measurements": proven.measurements,
                "debug": proven.debug,
                "software": proven.software,
                "boot": proven.boot,
            },
        )
        self._ueid = proven.ueid
        return proven.ueid
