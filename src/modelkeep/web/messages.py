"""Requests and responses of HTTP, as connections hand them to applications and take them back."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Protocol

from modelkeep.core.errors import KeepError, MissingError
from modelkeep.core.record import Row
from modelkeep.web.bodies import Bodies, Body

TARGET_BYTES_MAX = 2048
_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    499: "Client Closed Request",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
STATUS_LINES = {
    status: f"HTTP/1.1 {status} {reason}\r\n".encode() for status, reason in _REASONS.items()
}


class Response(Row, frozen=True):
    """What is sent: header lines end in CRLF each; framing headers are the server's.

    Attributes:
        stream: an async generator of what is sent instead of `body`; it is closed in the end.
    """

    status: int
    headers: bytes
    body: bytes
    stream: Any = None


class Request:
    """One request as it arrives."""

    __slots__ = (
        "address",
        "application",
        "certificate",
        "content",
        "context",
        "ends_connection",
        "ends_with_client",
        "headers",
        "method",
        "refusal",
        "takes_chunks",
        "url",
    )

    def __init__(
        self, address: str, certificate: bytes = b"", *, bodies: Bodies | None = None
    ) -> None:
        self.address = address
        self.certificate = certificate  # DER, verified by TLS; empty for none
        self.application: Application | None = None  # the router's own, set in `begin`
        self.method = b""
        self.url = b""
        self.headers: dict[bytes, bytes] = {}
        self.content = Body(bodies)
        self.refusal: KeepError | None = None
        self.ends_connection = False
        # Whether its work ends when the client is gone; else it goes on to its record.
        self.ends_with_client = False
        self.takes_chunks = False
        self.context: Any = None  # the application's own, set in `begin`

    @property
    def body(self) -> bytes | bytearray:
        """The whole body; not to be changed."""
        return self.content.whole()


def head_of(response: Response, common: bytes, *, framing: bytes, closes: bool) -> bytes:
    """Status line and headers of a response.

    Args:
        common: header lines that every response has.
        framing: header lines that say where its body ends; empty for the connection's end.
        closes: whether the connection ends behind it.
    """
    return b"".join(
        (
            STATUS_LINES[response.status],
            common,
            framing,
            response.headers,
            b"connection: close\r\n\r\n" if closes else b"\r\n",
        )
    )


class Application(Protocol):
    """What the server serves."""

    def begin(self, request: Request) -> None:
        """Look at a complete head; raises KeepError to refuse before the body is read."""
        ...

    def respond(self, request: Request) -> Awaitable[Response]:
        """Answer a complete request, or explain `request.refusal`."""
        ...


def path_of(target: bytes) -> bytes:
    """The path of a target in origin form or absolute form (RFC 9112, 3.2), without its query.

    Raises:
        MissingError: `route.missing`.
    """
    if len(target) > TARGET_BYTES_MAX:
        raise MissingError("route.missing", "there is nothing here: the path is too long")
    scheme, separator, rest = target.partition(b"://")
    if separator and scheme.lower() in (b"http", b"https"):
        _, slash, tail = rest.partition(b"/")
        target = slash + tail
    return target.partition(b"?")[0]
