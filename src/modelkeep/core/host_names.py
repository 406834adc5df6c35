"""What a machine may be called that runs replicas for a service elsewhere: one label of DNS."""

from __future__ import annotations

import re

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def is_host_name(name: str) -> bool:
    """Whether a host may have this name."""
    return _NAME.fullmatch(name) is not None
