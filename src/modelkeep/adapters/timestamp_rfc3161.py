"""A time stamping authority over HTTP: RFC 3161, asked and verified through rfc3161-client.

One request per connection, to exactly the URL that the settings list: no redirect is followed, no
proxy is used. The answer is bounded in size and time, and verified before it is given back: the
nonce of the request, the digest of the message, the signature, and the chain to a certificate
that the operator named, at the time that the answer states.
"""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from urllib.parse import urlsplit

from modelkeep.core.errors import IntegrityError, UnavailableError, UsageError, extra_hint
from modelkeep.crypto.trusted import trusted_certificates

ANSWER_BYTES_MAX = 64 * 1024
_QUERY = "application/timestamp-query"
_REPLY = "application/timestamp-reply"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class HttpTimestampAuthority:
    """One authority.

    Args:
        roots_pem: certificates that its chain must end in; intermediates may stand there too.
        wait_s: how long the whole exchange may take.

    Raises:
        UsageError: `timestamp.url` or `timestamp.extra`.
        ConfigError: `config.certificates`.
    """

    def __init__(self, url: str, *, roots_pem: bytes, wait_s: float) -> None:
        if find_spec("rfc3161_client") is None:
            raise UsageError(
                "timestamp.extra",
                "time stamps need a library that is not installed",
                hint=extra_hint("timestamp"),
            )
        self.url = url
        self._wait_s = wait_s
        self._roots = trusted_certificates(roots_pem, what="the authorities' certificates")
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or not url.isprintable():
            raise UsageError(
                "timestamp.url", f"{url[:80]!r} is no address of an authority", hint="https://…"
            )
        self._parts = parts

    def stamped(self, message: bytes) -> bytes:
        from rfc3161_client import TimestampRequestBuilder  # noqa: PLC0415 - needed here only
        from rfc3161_client.base import HashAlgorithm  # noqa: PLC0415

        builder = TimestampRequestBuilder().data(message).hash_algorithm(HashAlgorithm.SHA256)
        request = builder.nonce(nonce=True).cert_request(cert_request=True).build()
        answer = self._asked(request.as_bytes())
        self._verified(answer, message, nonce=request.nonce)
        return answer

    def stamped_ns(self, answer: bytes, message: bytes) -> int:
        return self._verified(answer, message, nonce=None)

    def _verified(self, answer: bytes, message: bytes, *, nonce: int | None) -> int:
        from rfc3161_client import (  # noqa: PLC0415
            VerificationError,
            VerifierBuilder,
            decode_timestamp_response,
        )

        try:
            response = decode_timestamp_response(answer)
            builder = VerifierBuilder(roots=list(self._roots), nonce=nonce)
            builder.build().verify_message(response, message)
            stated: datetime = response.tst_info.gen_time
        except (VerificationError, ValueError) as error:
            raise IntegrityError(
                "timestamp.bad", f"the time stamp of {self.url} does not verify: {error}"
            ) from error
        except BaseException as error:
            # The library's native code panics on some malformed answers; Ctrl-C is no answer.
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            raise IntegrityError(
                "timestamp.bad", f"the time stamp of {self.url} is malformed"
            ) from error
        since = stated.replace(tzinfo=stated.tzinfo or UTC) - _EPOCH
        return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000

    def _asked(self, request: bytes) -> bytes:
        parts = self._parts
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection = kind(str(parts.hostname), parts.port, timeout=self._wait_s)
        try:
            connection.connect()
            with _cut_after(connection.sock, self._wait_s) as was_cut:
                headers = {"Content-Type": _QUERY, "Accept": _REPLY}
                connection.request("POST", path, body=request, headers=headers)
                response = connection.getresponse()
                answer = response.read(ANSWER_BYTES_MAX + 1)
        except (OSError, http.client.HTTPException) as error:
            raise self._unavailable(str(error) or type(error).__name__) from error
        finally:
            connection.close()
        if was_cut.is_set() or len(answer) > ANSWER_BYTES_MAX:
            raise self._unavailable("its answer is too long or too slow")
        if response.status != http.client.OK:
            raise self._unavailable(f"it answers {response.status}")
        return answer

    def _unavailable(self, why: str) -> UnavailableError:
        return UnavailableError(
            "timestamp.unavailable",
            f"{self.url} gives no time stamp: {why}",
            hint="a checkpoint needs none; try again later, or another authority",
        )


@contextmanager
def _cut_after(connected: socket.socket, wait_s: float) -> Iterator[threading.Event]:
    """Cut a connection at a deadline, however slowly the other side drips."""
    was_cut = threading.Event()

    def cut() -> None:
        was_cut.set()
        with suppress(OSError):
            connected.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(wait_s, cut)
    timer.daemon = True
    timer.start()
    try:
        yield was_cut
    finally:
        timer.cancel()
