"""One HTTP/1.1 connection on asyncio: framing, bounds, order of answers, lingering close.

llhttp (through httptools) parses, in its strict mode; what it leaves open is refused here when a
head is complete, so that no two readers can disagree on where a request ends:

- llhttp refuses: duplicate, signed, listed or overflowing Content-Length; Content-Length beside
  Transfer-Encoding; bad chunk sizes, extensions and ends; obs-fold; bare CR and LF; whitespace
  before a colon; bad names and control characters.
- `_framing_fault` refuses: another version than 1.0 and 1.1; no Host or several; any
  Transfer-Encoding but one `chunked` on 1.1; any upgrade; a repeated header that we read.

Requests of one connection are answered in order, one at a time. A refusal that is known when the
head is complete is sent before the body (413, 401 …); the rest of the body is read and thrown
away within bounds (lingering close), because a client that is still sending would otherwise meet
a reset instead of the answer. After anything malformed the connection is closed: nothing that
follows can be trusted to be a request.

Time is bounded by the server, which sweeps over all connections, instead of a timer for each.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, cast

import httptools

from modelkeep.core.errors import KeepError, LimitError, UsageError
from modelkeep.core.record import Row
from modelkeep.gate.limits import demand_body_within, demand_head_within
from modelkeep.gate.settings import GateSettings

# A refused body this small is read before the refusal is sent, so the connection lives on.
EARLY_REFUSAL_BYTES = 64 * 1024
# Requests that a client sent ahead; past it reading pauses, and far past it we hang up.
PIPELINED_MAX = 16
PIPELINED_ABUSE = 256
# How long a connection with a malformed request may linger to read the refusal.
MALFORMED_LINGER_S = 0.5
# Headers that we read: a second one of them would be read by others differently.
_SINGLE = frozenset(
    {
        b"host",
        b"authorization",
        b"content-length",
        b"content-type",
        b"content-encoding",
        b"transfer-encoding",
        b"inference-header-content-length",
        b"expect",
    }
)
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
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
_STATUS_LINES = {
    status: f"HTTP/1.1 {status} {reason}\r\n".encode() for status, reason in _REASONS.items()
}


class Response(Row, frozen=True):
    """What is sent: header lines end in CRLF each; framing headers are the server's."""

    status: int
    headers: bytes
    body: bytes


class Request:
    """One request as it arrives."""

    __slots__ = (
        "address",
        "body_bytes",
        "context",
        "ends_connection",
        "headers",
        "method",
        "parts",
        "refusal",
        "url",
    )

    def __init__(self, address: str) -> None:
        self.address = address
        self.method = b""
        self.url = b""
        self.headers: dict[bytes, bytes] = {}
        self.parts: list[bytes] = []
        self.body_bytes = 0
        self.refusal: KeepError | None = None
        self.ends_connection = False
        self.context: Any = None  # the application's own, set in `begin`

    @property
    def body(self) -> bytes:
        """The whole body."""
        return self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)


class Application(Protocol):
    """What the server serves."""

    def begin(self, request: Request) -> None:
        """Look at a complete head; raises KeepError to refuse before the body is read."""
        ...

    def respond(self, request: Request) -> Awaitable[Response]:
        """Answer a complete request, or explain `request.refusal`."""
        ...


class Host(Protocol):
    """The server, as its connections see it."""

    application: Application
    settings: GateSettings
    loop: asyncio.AbstractEventLoop
    common_headers: bytes
    is_stopping: bool
    complain: Callable[[str], None]

    def admits(self, connection: Connection) -> bool:
        """Count a new connection in, if there is room."""
        ...

    def forget(self, connection: Connection) -> None:
        """Count a closed connection out."""
        ...


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, server: Host) -> None:
        self._server = server
        self._settings = server.settings
        self._head_bytes_max = server.settings.header_bytes_max
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._address = ""
        self._request: Request | None = None  # the one that is being read
        self._head_bytes = 0  # as parsed
        self._head_fed_bytes = 0  # as fed so far, of a head that is not complete
        self._header_count = 0
        self._in_head = False
        self._queue: deque[Request] = deque()
        self._task: asyncio.Task[None] | None = None
        self._discarding = False  # a refusal is sent or on its way: the rest is thrown away
        self._discarded_bytes = 0
        self._is_over = False  # the refused request has arrived to its end
        self._is_deaf = False  # the parser may not be fed any more
        self._must_close = False
        self._is_paused = False
        self._is_reading_paused = False
        self._wait_ends = 0.0  # monotonic; the sweep hangs up past it; 0 while we compute

    # ---- asyncio -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start to count and to time a client."""
        # uvloop's transports have the methods of asyncio.Transport but are no subclass of it.
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._address = peer[0] if isinstance(peer, tuple) else ""
        self._wait_ends = time.monotonic() + self._settings.idle_timeout_s
        if not self._server.admits(self):
            self.hang_up()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        """Forget the client; a call under way goes on to its record."""
        self._server.forget(self)
        self._transport = None
        self._is_deaf = True
        self._queue.clear()

    def data_received(self, data: bytes) -> None:
        """Feed the parser, or throw away what a refused client still sends."""
        if self._discarding:
            self._discarded_bytes += len(data)
            if self._discarded_bytes > self._settings.drain_bytes_max:
                self.hang_up()
        if self._is_deaf:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._malformed("the connection cannot be upgraded")
        except httptools.HttpParserError as error:
            self._malformed(str(error))
        else:
            if self._in_head:
                self._head_fed_bytes += len(data)
                self._demand_head(self._head_fed_bytes)

    def pause_writing(self) -> None:
        """Note that the client does not read; the sweep hangs up if it stays so."""
        self._is_paused = True
        self._wait_ends = time.monotonic() + self._settings.read_timeout_s

    def resume_writing(self) -> None:
        """Note that the client reads again, and go on answering."""
        self._is_paused = False
        if self._task is None:
            if self._queue:
                self._start(self._queue.popleft())
            else:
                self._rest()

    # ---- httptools -----------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Start a request."""
        if self._discarding:
            return
        self._request = Request(self._address)
        self._head_bytes = self._head_fed_bytes = 0
        self._header_count = 0
        self._in_head = True
        if self._task is None:
            self._wait_ends = time.monotonic() + self._settings.read_timeout_s

    def on_url(self, url: bytes) -> None:
        """Take (a part of) the target."""
        request = self._request
        if request is not None and request.refusal is None:
            request.url += url
            self._head_bytes += len(url)
            if self._head_bytes > self._head_bytes_max:
                self._demand_head(self._head_bytes)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header."""
        request = self._request
        if request is None or request.refusal is not None:
            return
        self._header_count += 1
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > self._head_bytes_max:
            self._demand_head(self._head_bytes)
        if self._header_count > self._settings.headers_max:
            request.refusal = LimitError("limit.header", "too many headers")
        name = name.lower()
        if name in _SINGLE:
            if name in request.headers:
                request.ends_connection = True
                request.refusal = UsageError(
                    "http.header", f"the header {name.decode()} stands twice"
                )
            request.headers[name] = value

    def on_headers_complete(self) -> None:
        """Judge the head."""
        self._in_head = False
        request = self._request
        if request is None or self._discarding:
            return
        request.method = self._parser.get_method()
        if not self._parser.should_keep_alive():
            request.ends_connection = True
        length = int(request.headers.get(b"content-length", b"0"))
        if request.refusal is None:
            self._judge_head(request, length)
        if request.refusal is not None and self._is_large(request, length):
            self._refuse_early(request)
        elif request.refusal is None and b"expect" in request.headers:
            self._continue(request)

    def on_body(self, part: bytes) -> None:
        """Take (a part of) the body."""
        request = self._request
        if request is None or request.refusal is not None:
            return
        request.body_bytes += len(part)
        if request.body_bytes > self._settings.body_bytes_max:  # only chunked bodies get here
            request.parts.clear()
            try:
                demand_body_within(request.body_bytes, self._settings)
            except KeepError as error:
                request.refusal = error
            self._refuse_early(request)
            return
        request.parts.append(part)

    def on_message_complete(self) -> None:
        """Queue the request, or note that a refused one is over."""
        request, self._request = self._request, None
        if self._discarding:
            self._is_deaf = self._is_over = True
            if self._must_close and self._task is None:
                self._close()
        elif request is not None:
            self._enqueue(request)

    # ---- judging -------------------------------------------------------------------------------

    def _judge_head(self, request: Request, length: int) -> None:
        fault = _framing_fault(request, self._parser)
        try:
            if fault:
                request.ends_connection = True
                raise UsageError("http.framing", fault)
            self._server.application.begin(request)
            demand_body_within(length, self._settings)
        except KeepError as error:
            request.refusal = error

    def _is_large(self, request: Request, length: int) -> bool:
        is_chunked = b"transfer-encoding" in request.headers
        return is_chunked or length > EARLY_REFUSAL_BYTES or b"expect" in request.headers

    def _demand_head(self, size_bytes: int) -> None:
        try:
            demand_head_within(size_bytes, self._settings)
        except KeepError as error:
            request = self._request
            if request is not None and request.refusal is None:
                request.refusal = error
                self._refuse_early(request)
                self._is_deaf = True

    def _malformed(self, reason: str) -> None:
        """Refuse and close: what follows cannot be trusted to be a request."""
        self._is_deaf = True
        if self._discarding:  # a refusal is on its way already
            return
        request = Request(self._address)
        request.refusal = UsageError("http.malformed", f"this is not HTTP/1.1: {reason[:200]}")
        self._refuse_early(request)

    def _refuse_early(self, request: Request) -> None:
        request.ends_connection = True
        self._discarding = True
        self._enqueue(request)

    def _continue(self, request: Request) -> None:
        if request.headers[b"expect"].lower() == b"100-continue" and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # ---- answering -----------------------------------------------------------------------------

    def _enqueue(self, request: Request) -> None:
        if self._task is None and not self._queue and not self._is_paused:
            self._start(request)
            return
        self._queue.append(request)
        if len(self._queue) > PIPELINED_ABUSE:
            self.hang_up()
        elif len(self._queue) > PIPELINED_MAX and not self._is_reading_paused:
            self._is_reading_paused = True
            if self._transport is not None:
                self._transport.pause_reading()

    def _start(self, request: Request) -> None:
        self._wait_ends = 0.0
        self._task = self._server.loop.create_task(self._answer(request))

    async def _answer(self, request: Request) -> None:
        application = self._server.application
        while True:
            try:
                response = await application.respond(request)
            except Exception as error:  # noqa: BLE001  # the process boundary of one request
                self._server.complain(f"{type(error).__name__}: {error}")
                response = Response(500, b"", b'{"error":"internal error","code":"internal"}')
            if self._transport is None:
                return
            self._write(request, response)
            if self._must_close or self._is_paused or not self._queue:
                break
            request = self._queue.popleft()
        self._task = None
        self._rest()

    def _rest(self) -> None:
        """Nothing is left to answer now: wait for the next request, linger, or close."""
        now = time.monotonic()
        if self._must_close:
            self._queue.clear()
            if not self._discarding or self._is_over:
                self._close()
                return
            linger_s = MALFORMED_LINGER_S if self._is_deaf else self._settings.drain_timeout_s
            self._wait_ends = now + linger_s
        elif not self._is_paused:
            is_reading = self._request is not None
            settings = self._settings
            self._wait_ends = now + (
                settings.read_timeout_s if is_reading else settings.idle_timeout_s
            )
        self._resume_reading()

    def _write(self, request: Request, response: Response) -> None:
        assert self._transport is not None
        self._must_close = request.ends_connection or self._server.is_stopping
        body = response.body
        self._transport.write(
            b"".join(
                (
                    _STATUS_LINES[response.status],
                    self._server.common_headers,
                    b"content-length: %d\r\n" % len(body),
                    response.headers,
                    b"connection: close\r\n\r\n" if self._must_close else b"\r\n",
                    b"" if request.method == b"HEAD" else body,
                )
            )
        )

    def _resume_reading(self) -> None:
        if self._is_reading_paused and self._transport is not None:
            self._is_reading_paused = False
            self._transport.resume_reading()

    def _close(self) -> None:
        self._is_deaf = True
        if self._transport is not None:
            self._transport.close()
            self._wait_ends = time.monotonic() + self._settings.read_timeout_s

    def hang_up(self) -> None:
        """Cut the connection off."""
        self._is_deaf = True
        if self._transport is not None:
            self._transport.abort()

    # ---- time ----------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Close an idle connection, say 408 to a slow one, hang up on one that lingers."""
        if self._wait_ends == 0.0 or now < self._wait_ends or self._task is not None:
            return
        request = self._request
        if self._is_paused or self._discarding or self._is_deaf:
            self.hang_up()
        elif request is None:
            self._close()
        else:
            request.refusal = UsageError("limit.time", "the request did not arrive in time")
            self._is_deaf = True
            self._refuse_early(request)

    def stop(self) -> None:
        """Close if nothing is under way; else after the answer that is."""
        if self._task is None and self._request is None:
            self._close()


def _framing_fault(request: Request, parser: Any) -> str:
    """What makes a head ambiguous to other readers, though llhttp takes it; empty for nothing."""
    headers = request.headers
    version = parser.get_http_version()
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
