"""Instants: nanoseconds since the Unix epoch, and how they are written."""

from __future__ import annotations

import datetime

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000


def rfc3339(at_ns: int) -> str:
    """Write an instant as RFC 3339 in UTC with milliseconds."""
    seconds, rest_ns = divmod(at_ns, NS_PER_S)
    moment = datetime.datetime.fromtimestamp(seconds, tz=datetime.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest_ns // NS_PER_MS:03d}Z"
