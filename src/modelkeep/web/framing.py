"""What two readers of one byte stream could take differently, though the parser takes it."""

from __future__ import annotations

from typing import Any

from modelkeep.web.messages import Request

# Headers that we read: a second one of them would be read by others differently.
SINGLE = frozenset(
    {
        b"host",
        b"authorization",
        b"content-length",
        b"content-type",
        b"content-encoding",
        b"transfer-encoding",
        b"inference-header-content-length",
        b"expect",
        b"traceparent",
    }
)


def framing_fault(request: Request, parser: Any) -> str:
    """What makes a head ambiguous to other readers, though llhttp takes it; empty for nothing.

    Notes on the way whether chunks may be sent back.
    """
    headers = request.headers
    version = parser.get_http_version()
    request.takes_chunks = version == "1.1"
    if version not in ("1.1", "1.0"):
        return "only HTTP/1.1 and HTTP/1.0 are spoken here"
    if version == "1.1" and not headers.get(b"host"):
        return "the header Host is missing"
    coding = headers.get(b"transfer-encoding")
    if coding is not None and (version == "1.0" or coding.lower() != b"chunked"):
        return "the only Transfer-Encoding is chunked, on HTTP/1.1"
    if parser.should_upgrade():
        return "the connection cannot be upgraded"
    return ""
