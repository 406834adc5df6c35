"""One HTTP/1.1 connection on asyncio: framing, bounds, order of answers, lingering close.

llhttp (through httptools) parses, in its strict mode; what it leaves open is refused here when a
head is complete, so that no two readers can disagree on where a request ends:

- llhttp refuses: duplicate, signed, listed or overflowing Content-Length; Content-Length beside
  Transfer-Encoding; bad chunk sizes, extensions and ends; obs-fold; bare CR and LF; whitespace
  before a colon; bad names and control characters.
- `web.framing` refuses: another version than 1.0 and 1.1; no Host or several; any
  Transfer-Encoding but one `chunked` on 1.1; any upgrade; a repeated header that we read.

Requests of one connection are answered in order, one at a time. A refusal that is known when the
head is complete is sent before the body (413, 401 …); the rest of the body is read and thrown
away within bounds (lingering close), because a client that is still sending would otherwise meet
a reset instead of the answer. After anything malformed the connection is closed: nothing that
follows can be trusted to be a request.

A response may be a stream: its parts leave as chunks (to HTTP/1.0: until the connection ends), one
is asked for when the client has room for it, and the stream is closed when the client is gone.

Time is bounded by the server, which sweeps over all connections, instead of a timer for each.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import cast

import httptools

from modelkeep.core.errors import KeepError, LimitError, UsageError
from modelkeep.gate.limits import demand_body_within, demand_head_within
from modelkeep.web.bodies import LARGE_BYTES
from modelkeep.web.framing import SINGLE, framing_fault
from modelkeep.web.host import Host
from modelkeep.web.messages import Request, Response, head_of
from modelkeep.web.reading import Reading

# A refused body this small is read before the refusal is sent, so the connection lives on.
EARLY_REFUSAL_BYTES = 64 * 1024
# Requests that a client sent ahead; past it reading pauses, and far past it we hang up.
PIPELINED_MAX = 16
PIPELINED_ABUSE = 256
# Of answers that a client does not read, in our memory; then nothing more is answered.
UNREAD_BYTES_MAX = 64 * 1024
# How long a connection with a malformed request may linger to read the refusal.
MALFORMED_LINGER_S = 0.5


class Connection(asyncio.BufferedProtocol):
    """One client."""

    def __init__(self, server: Host) -> None:
        self._server = server
        self._settings = server.settings
        self._head_bytes_max = server.settings.header_bytes_max
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._address = ""
        self._certificate = b""
        self._request: Request | None = None  # the one that is being read
        self._head_bytes = 0  # as parsed
        self._head_fed_bytes = 0  # as fed so far, of a head that is not complete
        self._header_count = 0
        self._in_head = False
        self._has_moved = False  # a body's bytes or a request's end came with what was fed last
        self._queue: deque[Request] = deque()
        self._task: asyncio.Task[None] | None = None
        self._discarding = False  # a refusal is sent or on its way: the rest is thrown away
        self._discarded_bytes = 0
        self._is_over = False  # the refused request has arrived to its end
        self._is_deaf = False  # the parser may not be fed any more
        self._must_close = False
        self._is_paused = False
        self._reading = Reading(server.loop)
        self._wait_ends = 0.0  # monotonic; the sweep hangs up past it; 0 while we compute
        self._is_filling = False  # a large body goes past the parser to where it is to lie
        self._is_streaming = False
        self._ends_with_client = False  # the answer that is under way
        self._has_room: asyncio.Future[None] | None = None  # awaited by a stream whose client lags

    # ---- asyncio -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start to count and to time a client."""
        # uvloop's transports have the methods of asyncio.Transport but are no subclass of it.
        self._transport = cast("asyncio.Transport", transport)
        self._reading.begin(self._transport)
        self._transport.set_write_buffer_limits(UNREAD_BYTES_MAX)
        peer = transport.get_extra_info("peername")
        self._address = peer[0] if isinstance(peer, tuple) else ""
        secured = transport.get_extra_info("ssl_object")
        if secured is not None:
            self._certificate = secured.getpeercert(binary_form=True) or b""
        self._wait_ends = time.monotonic() + self._settings.idle_timeout_s
        if not self._server.admits(self):
            self.hang_up()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        """Forget the client; a call under way goes on to its record, a text ends with it."""
        self._server.forget(self)
        self._transport = None
        self._reading.end()
        self._is_deaf = True
        if self._request is not None:
            self._request.content.release()
        self._clear_queue()
        if self._task is not None and (self._is_streaming or self._ends_with_client):
            self._task.cancel()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # asyncio's signature
        """Where the next bytes go: a large body's own room, or what all connections share.

        The shared buffer is filled and fed to the parser in one turn of the loop.
        """
        request = self._request
        if request is None or self._in_head:
            return self._server.head_buffer
        if self._is_filling and not self._discarding:
            return request.content.room()
        return self._server.receive_buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Feed the parser, or throw away what a refused client still sends."""
        self._reading.came(nbytes, discarding=self._discarding)
        if self._discarding:
            self._discarded_bytes += nbytes
            if self._discarded_bytes > self._settings.drain_bytes_max:
                self.hang_up()
        if self._is_deaf:
            return
        request = self._request
        if self._is_filling and request is not None:
            request.content.came(nbytes)
            if not request.content.missing_bytes:
                self._end_filling()
            elif self._server.bodies.is_full and not self._discarding:
                self._refuse_body(request)
            return
        self._feed(self._server.receive_buffer[:nbytes])

    def _feed(self, data: memoryview) -> None:
        self._has_moved = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._malformed("the connection cannot be upgraded")
        except httptools.HttpParserError as error:
            self._malformed(str(error))
        else:
            # Trailers and extensions of chunks count like a head: the parser keeps them, too.
            if self._request is not None and not self._has_moved:
                self._head_fed_bytes += len(data)
                self._demand_head(self._head_fed_bytes)
            request = self._request
            self._is_filling = (
                request is not None
                and request.refusal is None
                and not self._discarding
                and request.content.missing_bytes > 0
            )

    def _end_filling(self) -> None:
        """A body has come past the parser: another parser begins with what follows it."""
        self._is_filling = False
        self._parser = httptools.HttpRequestParser(self)
        self.on_message_complete()

    def pause_writing(self) -> None:
        """Note that the client does not read; the sweep hangs up if it stays so."""
        self._is_paused = True
        self._wait_ends = time.monotonic() + self._settings.read_timeout_s

    def resume_writing(self) -> None:
        """Note that the client reads again, and go on answering."""
        self._is_paused = False
        if self._has_room is not None and not self._has_room.done():
            self._wait_ends = 0.0
            self._has_room.set_result(None)
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
        self._request = Request(self._address, self._certificate, bodies=self._server.bodies)
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
        if name in SINGLE and self._in_head:  # what a trailer says comes too late to be believed
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
        elif request.refusal is None:
            if length >= LARGE_BYTES:
                request.content.expect(length)
            if b"expect" in request.headers:
                self._continue(request)

    def on_body(self, part: bytes) -> None:
        """Take (a part of) the body."""
        self._has_moved = True
        self._head_fed_bytes = 0
        request = self._request
        if request is None or request.refusal is not None:
            return
        content = request.content
        content.add(part)
        # Only chunked bodies get past their own bound here.
        if content.size_bytes > self._settings.body_bytes_max or self._server.bodies.is_full:
            self._refuse_body(request)

    def on_message_complete(self) -> None:
        """Queue the request, or note that a refused one is over."""
        self._has_moved = True
        request, self._request = self._request, None
        if self._discarding:
            self._is_deaf = self._is_over = True
            if self._must_close and self._task is None:
                self._close()
        elif request is not None:
            self._enqueue(request)

    # ---- judging -------------------------------------------------------------------------------

    def _judge_head(self, request: Request, length: int) -> None:
        fault = framing_fault(request, self._parser)
        try:
            if fault:
                request.ends_connection = True
                raise UsageError("http.framing", fault)
            self._server.application.begin(request)
            demand_body_within(length, self._settings)
            if self._is_large(request, length):
                self._server.bodies.demand_room()
        except KeepError as error:
            request.refusal = error

    def _refuse_body(self, request: Request) -> None:
        """Throw away what came of a body, and what still comes."""
        try:
            demand_body_within(request.content.size_bytes, self._settings)
            self._server.bodies.demand_room()
        except KeepError as error:
            request.refusal = error
        request.content.clear()
        self._refuse_early(request)

    def _is_large(self, request: Request, length: int) -> bool:
        is_chunked = b"transfer-encoding" in request.headers
        return is_chunked or length > EARLY_REFUSAL_BYTES or b"expect" in request.headers

    def _demand_head(self, size_bytes: int) -> None:
        try:
            demand_head_within(size_bytes, self._settings)
        except KeepError as error:
            request = self._request
            self._is_deaf = True
            if request is not None and not self._discarding:
                request.refusal = request.refusal or error
                self._refuse_early(request)

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
        is_next = self._task is None and not self._queue  # else it would stand amid another answer
        is_meant = request.headers[b"expect"].lower() == b"100-continue" and request.takes_chunks
        if is_next and is_meant:
            self._send(b"HTTP/1.1 100 Continue\r\n\r\n")

    # ---- answering -----------------------------------------------------------------------------

    def _enqueue(self, request: Request) -> None:
        if self._task is None and not self._queue and not self._is_paused:
            self._start(request)
            return
        self._queue.append(request)
        if len(self._queue) > PIPELINED_ABUSE:
            self.hang_up()
        elif len(self._queue) > PIPELINED_MAX:
            self._reading.hold()

    def _start(self, request: Request) -> None:
        self._wait_ends = 0.0
        self._task = self._server.loop.create_task(self._answer(request))

    async def _answer(self, request: Request) -> None:
        application = self._server.application
        while True:
            self._ends_with_client = request.ends_with_client
            try:
                response = await application.respond(request)
            except Exception as error:  # noqa: BLE001  # the process boundary of one request
                self._server.complain(f"{type(error).__name__}: {error}")
                response = Response(500, b"", b'{"error":"internal error","code":"internal"}')
            finally:
                request.content.release()
            self._ends_with_client = False
            if response.stream is not None:
                await self._write_stream(request, response)
            if self._transport is None:
                return
            if response.stream is None:
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
            self._clear_queue()
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
        self._reading.release()

    def _send(self, data: bytes) -> bool:
        """Hand data to the transport; whether it takes any. One that closes only logs the rest."""
        if self._transport is None or self._transport.is_closing():
            return False
        self._transport.write(data)
        return True

    def _write(self, request: Request, response: Response) -> None:
        self._must_close = request.ends_connection or self._server.is_stopping
        body = response.body
        head = head_of(
            response,
            self._server.common_headers,
            framing=b"content-length: %d\r\n" % len(body),
            closes=self._must_close,
        )
        if not self._send(head if request.method == b"HEAD" else head + body):
            self._must_close = True

    async def _write_stream(self, request: Request, response: Response) -> None:
        """Send a stream part by part; returns when it is over or the client is gone.

        A stream that breaks off is not ended: the client must see that it is not whole.
        """
        is_chunked = request.takes_chunks
        self._must_close = request.ends_connection or self._server.is_stopping or not is_chunked
        self._is_streaming = True
        try:
            async with aclosing(response.stream) as parts:
                head = head_of(
                    response,
                    self._server.common_headers,
                    framing=b"transfer-encoding: chunked\r\n" if is_chunked else b"",
                    closes=self._must_close,
                )
                if self._send(head):
                    await self._sent_parts(parts, is_chunked=is_chunked)
        except asyncio.CancelledError:
            if self._transport is not None:
                raise
        except Exception as error:  # noqa: BLE001  # the process boundary of one request
            self._server.complain(f"{type(error).__name__}: {error}")
            self.hang_up()
        finally:
            self._is_streaming = False

    async def _sent_parts(self, parts: AsyncIterator[bytes], *, is_chunked: bool) -> None:
        async for part in parts:
            framed = b"%x\r\n%b\r\n" % (len(part), part) if is_chunked else part
            if part and not self._send(framed):
                return
            if self._is_paused:
                self._has_room = self._server.loop.create_future()
                await self._has_room
                self._has_room = None
        if is_chunked:
            self._send(b"0\r\n\r\n")

    def _clear_queue(self) -> None:
        for request in self._queue:
            request.content.release()
        self._queue.clear()

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

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way, so that hanging up harms nobody."""
        return self._request is None and self._task is None and not self._queue

    @property
    def waits_until_s(self) -> float:
        """When what it waits for must have come; of two idle ones, the lesser waits longer."""
        return self._wait_ends

    def sweep(self, now: float) -> bool:
        """Close an idle connection, 408 a slow one, hang up on one that lingers; or False."""
        is_busy = self._task is not None and not self._is_streaming
        if self._wait_ends == 0.0 or now < self._wait_ends or is_busy:
            return False
        request = self._request
        if self._is_paused or self._discarding or self._is_deaf:
            self.hang_up()
        elif request is None:
            self._close()
        else:
            request.refusal = UsageError("limit.time", "the request did not arrive in time")
            self._is_deaf = True
            self._refuse_early(request)
        return True

    def stop(self) -> None:
        """Close if nothing is under way; else after the answer that is."""
        if self._task is None and self._request is None:
            self._close()
