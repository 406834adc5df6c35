"""What a running service says of itself in its keep."""

from __future__ import annotations

import json

from command import Desk


def pids(desk: Desk) -> dict[str, int]:
    """Its processes by name, as they are now."""
    facts = json.loads((desk.keep / "run" / "service.json").read_bytes())
    found = dict(facts["processes"])
    assert min(found.values(), default=1) > 0, found  # `kill -1` would end every process there is
    return found
