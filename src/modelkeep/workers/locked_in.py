"""How a replica gives up all but its sockets, before it serves."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from modelkeep.adapters.replica_sandbox import replica_grants, replica_limits
from modelkeep.adapters.sandboxes import this_sandbox
from modelkeep.ports.sandbox import CALLS, NETWORK


def lock_in(name: str, room_bytes: int, descriptors: Sequence[int]) -> None:
    """Give up the rest; what this kernel cannot take stays (`serve --explain-sandbox`).

    Args:
        name: of the model, for a warning.
        room_bytes: what the model takes in memory.
        descriptors: that are kept.

    Raises:
        UnavailableError: `sandbox.leaks`, when what is on does not hold.
    """
    kept = replica_grants(descriptors, sockets=True)
    for each in this_sandbox().lock_in(replica_limits(room_bytes), kept):
        if each.name in (CALLS, NETWORK) and not each.is_on:
            text = f"modelkeep: warning: a replica of {name} is not locked in"
            sys.stderr.write(f"{text} by {each.name!r}: {each.why}\n")
