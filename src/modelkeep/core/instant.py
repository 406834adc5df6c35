"""Instants: nanoseconds since the Unix epoch, and how they are written."""

from __future__ import annotations

import datetime

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_FIRST_S = -62_135_596_800  # the years 1 to 9999, all that RFC 3339 can write
_LAST_S = 253_402_300_799


def rfc3339(at_ns: int) -> str:
    """Write an instant as RFC 3339 in UTC with milliseconds; years beyond 1 to 9999 are clamped."""
    seconds, rest_ns = divmod(at_ns, NS_PER_S)
    moment = _EPOCH + datetime.timedelta(seconds=min(max(seconds, _FIRST_S), _LAST_S))
    return f"{moment.isoformat()[:19]}.{rest_ns // NS_PER_MS:03d}Z"
