"""The id of the trace that a call belongs to: W3C Trace Context, `traceparent`."""

from __future__ import annotations

import re

# version 00, trace id, parent id, flags; an id of zeros is none (section 3.2.2).
_FORM = re.compile(rb"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def trace_id(traceparent: bytes) -> bytes:
    """The 16 bytes of the trace's id; empty for a header that is not one, which is no error."""
    match = _FORM.fullmatch(traceparent)
    return bytes.fromhex(match[1].decode()) if match is not None else b""
