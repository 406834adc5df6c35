"""Calls to one OpenAI-compatible server: HTTP/1.1 on kept connections, streamed, bounded.

httpcore is the part of httpx below its conveniences, and they are what we do not want: no redirect
is followed, no proxy is taken from the environment, no cookie is kept, nothing is unpacked. Its
connections come from a `Dialer` elsewhere, so the URL's host is only a name here: it goes into the
Host header and is what the certificate must be for.

Bounds: of an answer's bytes, of one event, of the silence between two parts, of the whole call.
Nothing is read ahead of whoever takes the pieces: a slow caller slows the server down.

A call is sent again (`upstream_retrying`), while nothing of an answer has come: when no connection
could be made or it broke, and when the server said 429 or 503 and wants no longer pause than
`PAUSE_S_MAX`. Inference is idempotent: it may be computed twice, and is answered once.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import SplitResult, urlsplit

import httpcore

from modelkeep.adapters.upstream_dial import CONNECT_TIMEOUT_S
from modelkeep.adapters.upstream_retrying import PAUSE_S_MAX, tried
from modelkeep.adapters.upstream_settings import UpstreamSettings
from modelkeep.core.errors import IntegrityError, KeepError, LimitError, UnavailableError
from modelkeep.core.text import TextKind, TextRequest
from modelkeep.crypto.secret import Secret
from modelkeep.kernels.replica_faults import upstream_fault
from modelkeep.kernels.replica_frames import Piece, TextEnd
from modelkeep.kernels.sse import EventReader
from modelkeep.kernels.upstream_answers import PATHS, AnswerReader, asked, vectors_end

IDLE_CONNECTIONS_MAX = 32
IDLE_S_MAX = 30.0
_STATUS_BUSY = (429, 503)
# Our key is refused, or there is no such model or path there.
_OPERATORS_STATUS = (301, 302, 307, 308, 401, 403, 404, 405)
NOTE_EVERY_S = 60.0
DRAIN_S = 0.5
_BROKEN = (httpcore.NetworkError, httpcore.ProtocolError)
_REQUEST_FAULTS = frozenset({400, 413, 414, 422})

# Makes a connection: a socket that is connected and does not block.
Connect = Callable[[], Awaitable[Any]]


class _Stream(httpcore.AsyncNetworkStream):
    """A connection, with TLS once it is asked for."""

    def __init__(self, made: Any) -> None:
        self._made = made
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def opened(self, **secured: Any) -> _Stream:
        """Read and write through asyncio from now on."""
        self._reader, self._writer = await asyncio.open_connection(sock=self._made, **secured)
        return self

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - theirs
        assert self._reader is not None
        try:
            async with asyncio.timeout(timeout):
                return await self._reader.read(max_bytes)
        except TimeoutError as error:
            raise httpcore.ReadTimeout from error
        except OSError as error:
            raise httpcore.ReadError from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - theirs
        assert self._writer is not None
        try:
            async with asyncio.timeout(timeout):
                self._writer.write(buffer)
                await self._writer.drain()
        except TimeoutError as error:
            raise httpcore.WriteTimeout from error
        except OSError as error:
            raise httpcore.WriteError from error

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
    ) -> _Stream:
        try:
            return await self.opened(
                ssl=ssl_context,
                server_hostname=server_hostname,
                ssl_handshake_timeout=timeout or CONNECT_TIMEOUT_S,
            )
        except (OSError, TimeoutError) as error:
            raise httpcore.ConnectError from error

    async def aclose(self) -> None:
        """Hang up at once: what was not read is not wanted."""
        if self._writer is not None:
            self._writer.transport.abort()
        else:
            self._made.close()

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":  # of an idle connection: whether the server closed it
            return self._reader is None or self._reader.at_eof()
        return None


class _Backend(httpcore.AsyncNetworkBackend):
    """Where the pool's connections come from; it knows one host only."""

    def __init__(self, connect: Connect, *, is_secure: bool) -> None:
        self._connect = connect
        self._is_secure = is_secure

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> _Stream:
        del host, port, local_address, socket_options
        try:
            async with asyncio.timeout(timeout):
                stream = _Stream(await self._connect())
                return stream if self._is_secure else await stream.opened()
        except TimeoutError as error:
            raise httpcore.ConnectTimeout from error
        except OSError as error:
            raise httpcore.ConnectError from error

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _Nowhere(httpcore.AsyncNetworkBackend):
    """Makes no connection."""

    async def connect_tcp(self, *_: Any, **__: Any) -> _Stream:
        raise httpcore.ConnectError


class Upstream:
    """One server.

    Args:
        key: sent as bearer; None for none.
        context: whom to trust; None without TLS.
        connect: makes a connection to it.
        complain: told of what an operator should know; never of content.
    """

    def __init__(
        self,
        settings: UpstreamSettings,
        *,
        key: Secret | None,
        context: ssl.SSLContext | None,
        connect: Connect,
        complain: Callable[[str], None],
    ) -> None:
        self._complain = complain
        self._quiet_until_s = 0.0
        parts = urlsplit(settings.url)
        self._settings = settings
        self._parts = parts
        self._headers = _headers(parts, key)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=context,
            max_connections=settings.calls_max,
            max_keepalive_connections=IDLE_CONNECTIONS_MAX,
            keepalive_expiry=IDLE_S_MAX,
            network_backend=_Backend(connect, is_secure=context is not None),
        )

    async def warmed(self) -> None:
        """Load what the libraries load at their first call: afterwards no file can be opened."""
        "a.example".encode("idna")
        nowhere = httpcore.AsyncConnectionPool(network_backend=_Nowhere())
        with contextlib.suppress(httpcore.ConnectError):
            await tried(
                lambda: nowhere.request(b"POST", b"http://a.example/", content=b"x"),
                retries=1,
                is_worth_another=lambda _: True,
            )

    async def answered(
        self, number: int, request: TextRequest
    ) -> AsyncGenerator[Piece | TextEnd, None]:
        """The pieces of an answer and its end; whoever stops reading ends the call there too.

        Raises:
            KeepError: `upstream.*` or `record.json`.
        """
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                response = await self._begun(request)
                try:
                    async for frame in self._read(number, request, response):
                        yield frame
                finally:
                    await response.aclose()
        except (TimeoutError, httpcore.TimeoutException) as error:
            raise upstream_fault("upstream.deadline") from error
        except _BROKEN as error:
            raise upstream_fault("upstream.failed") from error

    async def _begun(self, request: TextRequest) -> httpcore.Response:
        """Send the call, again where nothing came back; the head of a good answer."""
        if request.kind not in self._settings.kinds:
            raise upstream_fault("upstream.kind")
        body = asked(request, self._settings.model or self._settings.name)
        response: httpcore.Response = await tried(
            lambda: self._sent(request.kind, body),
            retries=self._settings.retries,
            is_worth_another=_is_worth_another,
        )
        return response

    async def _sent(self, kind: TextKind, body: bytes) -> httpcore.Response:
        settings = self._settings
        parts = self._parts
        wanted = b"application/json" if kind is TextKind.EMBEDDING else b"text/event-stream"
        asking = httpcore.Request(
            b"POST",
            httpcore.URL(
                scheme=parts.scheme.encode(),
                host=(parts.hostname or "").encode(),
                port=port_of(parts),
                target=(parts.path.rstrip("/") + PATHS[kind]).encode(),
            ),
            headers=[
                *self._headers,
                (b"accept", wanted),
                (b"content-length", str(len(body)).encode()),
            ],
            content=body,
            extensions={
                "timeout": {
                    "connect": min(CONNECT_TIMEOUT_S, settings.timeout_s),
                    "read": settings.silence_s_max,
                    "write": settings.silence_s_max,
                    "pool": settings.timeout_s,
                }
            },
        )
        try:
            response = await self._pool.handle_async_request(asking)
        except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
            raise upstream_fault("upstream.unreachable") from error
        refusal = _refusal(response, wanted)
        if refusal is not None:
            self._note(response.status)
            await response.aclose()
            raise refusal
        return response

    def _note(self, status: int) -> None:
        """Tell whoever runs us of a status that only they can do something about."""
        now_s = time.monotonic()
        if status in _OPERATORS_STATUS and now_s >= self._quiet_until_s:
            self._quiet_until_s = now_s + NOTE_EVERY_S
            self._complain(f"{self._settings.name}: the server answers with status {status}")

    async def _read(
        self, number: int, request: TextRequest, response: httpcore.Response
    ) -> AsyncIterator[Piece | TextEnd]:
        parts = self._bounded(response)
        if request.kind is TextKind.EMBEDDING:
            yield vectors_end(number, request, b"".join([part async for part in parts]))
            return
        events, answer = EventReader(), AnswerReader(number, request)
        async for part in parts:
            for event in events.events(part):
                for piece in answer.pieces(event):
                    yield piece
            if answer.is_done:
                break
        yield answer.end()
        # What follows is the end of the last chunk; a connection is kept only if it was read.
        with contextlib.suppress(TimeoutError, IntegrityError, *_BROKEN):
            async with asyncio.timeout(DRAIN_S):
                async for _ in parts:
                    pass

    async def _bounded(self, response: httpcore.Response) -> AsyncIterator[bytes]:
        left_bytes = self._settings.answer_bytes_max
        async for part in response.aiter_stream():
            left_bytes -= len(part)
            if left_bytes < 0:
                raise IntegrityError("upstream.size", "the upstream's answer is too large")
            yield part


def port_of(parts: SplitResult) -> int:
    """The port of an address."""
    return parts.port or (443 if parts.scheme == "https" else 80)


def _headers(parts: SplitResult, key: Secret | None) -> list[tuple[bytes, bytes]]:
    host = parts.netloc.encode("idna" if not parts.netloc.isascii() else "ascii")
    headers = [
        (b"host", host),
        (b"content-type", b"application/json"),
        (b"accept-encoding", b"identity"),
        (b"user-agent", b"modelkeep"),
    ]
    if key is not None:
        headers.append((b"authorization", b"Bearer " + key.reveal()))
    return headers


def _refusal(response: httpcore.Response, wanted: bytes) -> KeepError | None:
    """What a head means that begins no answer; the server's words are not read."""
    status = response.status
    headers = {name.lower(): value for name, value in response.headers}
    if status in _REQUEST_FAULTS:
        return upstream_fault("upstream.request")
    if status in _STATUS_BUSY:
        wait = headers.get(b"retry-after", b"").decode("ascii", "replace")
        return upstream_fault("upstream.limited" if status == 429 else "upstream.busy", wait)
    if status >= 300:
        return upstream_fault("upstream.failed")
    media = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    coding = headers.get(b"content-encoding", b"identity").lower()
    if status != 200 or media != wanted or coding != b"identity":
        return upstream_fault("upstream.answer")
    return None


def _is_worth_another(error: BaseException) -> bool:
    """Whether nothing of an answer has come, and waiting for another try is short."""
    if isinstance(error, LimitError | UnavailableError):
        wait_s = error.context.get("retry_after_s", 0)
        return error.code == "upstream.unreachable" or 0 < wait_s <= PAUSE_S_MAX
    return isinstance(error, httpcore.NetworkError | httpcore.RemoteProtocolError)
