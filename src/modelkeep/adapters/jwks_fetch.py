"""Fetches the keys of issuers, again and again, in a thread of its own; bounded in every way.

What a stranger can cause: a token may name a key that is not there. Then its issuer's keys are
fetched, but `jwks_refresh_s_min` after the last time at the earliest, so that tokens cannot make us
flood an issuer. Where they are fetched from is configured, never read from a token.

A fetch: HTTPS to a listed host, its address looked up once and connected to; no redirect, no proxy,
no cookie; so many bytes, so many seconds, from start to end. Addresses that are never an issuer's
(link-local, where clouds answer with credentials, multicast, unspecified) are refused.

Keys that cannot be fetched again are believed until `jwks_stale_s_max` after they last were. What
was fetched counts as a whole: a set without a usable key does not replace one with keys.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from modelkeep.adapters.jwt_joserfc import Issuer, KeySet, keys_of
from modelkeep.core.errors import IntegrityError, KeepError, RefusedError, UnavailableError
from modelkeep.core.instant import NS_PER_S
from modelkeep.core.record import parsed_json
from modelkeep.gate.identity_settings import (
    DISCOVER,
    IdentitySettings,
    IssuerSettings,
    is_fetchable,
)

_READ_BYTES = 64 * 1024
# Between two looks for an issuer that is due; a token with a new key waits that long at most.
_LOOK_S = 0.25
_WELL_KNOWN = "/.well-known/openid-configuration"


class KeyFetcher:
    """Keeps the keys of some issuers current until it is closed.

    Args:
        complain: writes one line for developers.
    """

    def __init__(
        self,
        issuers: Sequence[Issuer],
        settings: IdentitySettings,
        *,
        complain: Callable[[str], None],
    ) -> None:
        self._issuers = tuple(issuers)
        self._settings = settings
        self._complain = complain
        self._tried_s = dict.fromkeys((each.settings.label for each in issuers), float("-inf"))
        self._got_s = dict(self._tried_s)
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name="jwks", daemon=True)

    def start(self) -> None:
        """Begin to fetch; there are no keys yet when this returns."""
        if self._issuers:
            self._thread.start()

    def close(self) -> None:
        """Fetch no more; returns at once."""
        self._ends.set()

    def look(self) -> None:
        """Fetch the keys of each issuer for which it is time."""
        for issuer in self._issuers:
            if self._is_due(issuer) and not self._ends.is_set():
                self._refresh(issuer)

    def _run(self) -> None:
        while not self._ends.wait(_LOOK_S):
            self.look()

    def _is_due(self, issuer: Issuer) -> bool:
        label, now_s = issuer.settings.label, time.monotonic()
        if now_s - self._tried_s[label] < self._settings.jwks_refresh_s_min:
            return False
        is_old = now_s - self._got_s[label] >= self._settings.jwks_refresh_s
        return is_old or issuer.is_wanted

    def _refresh(self, issuer: Issuer) -> None:
        label = issuer.settings.label
        self._tried_s[label] = time.monotonic()
        issuer.is_wanted = False
        asked_ns = time.time_ns()
        try:
            raw = fetched_keys(issuer.settings, self._settings)
            keys = keys_of(raw, what=f"the keys of issuer {label}")
        except KeepError as error:
            self._complain(f"issuer {label}: {error}")
            return
        except Exception as error:  # noqa: BLE001  # one issuer's answer must not end the thread
            self._complain(f"issuer {label}: {type(error).__name__}")
            return
        self._got_s[label] = time.monotonic()
        holds_until_ns = asked_ns + int(self._settings.jwks_stale_s_max * NS_PER_S)
        digest = hashlib.sha256(raw).digest()
        if digest == issuer.keys.digest:
            issuer.keys.basis.holds_until_ns = holds_until_ns
        else:
            issuer.replace(KeySet(keys, digest=digest, holds_until_ns=holds_until_ns))


def fetched_keys(issuer: IssuerSettings, settings: IdentitySettings) -> bytes:
    """The JWK Set of an issuer as it is now.

    Raises:
        UnavailableError: `jwks.unavailable`.
        IntegrityError: `jwks.form`.
        RefusedError: `jwks.host`.
    """
    ends_s = time.monotonic() + settings.jwks_timeout_s
    if issuer.jwks.startswith("file:"):
        return _file_bytes(Path(issuer.jwks.removeprefix("file:")), settings.jwks_bytes_max)
    address = issuer.jwks
    if address == DISCOVER:
        address = _discovered(issuer, settings, ends_s)
    return _fetched(address, issuer, settings, ends_s)


def _discovered(issuer: IssuerSettings, settings: IdentitySettings, ends_s: float) -> str:
    """What the issuer says of itself (OpenID Connect Discovery 1.0, section 4)."""
    place = issuer.issuer.rstrip("/") + _WELL_KNOWN
    what = f"the configuration of issuer {issuer.label}"
    said = parsed_json(_fetched(place, issuer, settings, ends_s), what=what)
    address = said.get("jwks_uri") if isinstance(said, dict) else None
    if not isinstance(address, str) or said.get("issuer") != issuer.issuer:
        raise IntegrityError("jwks.form", f"{what} is of another one, or names no keys")
    return address


def _fetched(
    address: str, issuer: IssuerSettings, settings: IdentitySettings, ends_s: float
) -> bytes:
    """The body of one answer.

    Raises:
        UnavailableError: `jwks.unavailable`.
        IntegrityError: `jwks.form`.
        RefusedError: `jwks.host`.
    """
    if not is_fetchable(address, issuer.hosts):
        raise RefusedError(
            "jwks.host",
            f"the keys of issuer {issuer.label} are not on a listed host, or not over TLS",
            hint="list its host in `hosts` of [[identity.issuers]], if it may be asked",
        )
    try:
        sock = _connected(address, issuer, ends_s)
        cut = threading.Timer(_left_s(ends_s), _cut, (sock,))
        cut.daemon = True
        cut.start()
        try:
            return _answer(address, sock, issuer, settings.jwks_bytes_max)
        finally:
            cut.cancel()
            sock.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise UnavailableError(
            "jwks.unavailable",
            f"the keys of issuer {issuer.label} cannot be fetched: {type(error).__name__}",
            hint="see that its host is reachable and its certificate comes from a known authority",
        ) from error


def _connected(address: str, issuer: IssuerSettings, ends_s: float) -> ssl.SSLSocket:
    """A socket to an address that was looked up once and may be asked, before TLS begins."""
    parts = urlsplit(address)
    host, port = str(parts.hostname), parts.port or 443
    family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    own = ipaddress.ip_address(str(place[0]).partition("%")[0])
    own = getattr(own, "ipv4_mapped", None) or own
    if own.is_link_local or own.is_multicast or own.is_unspecified:
        raise RefusedError("jwks.host", f"issuer {issuer.label} is at an address of no issuer")
    context = ssl.create_default_context(cafile=issuer.ca or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    plain = socket.socket(family, kind, protocol)
    try:
        plain.settimeout(_left_s(ends_s))
        plain.connect(place)
        return context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
    except BaseException:
        plain.close()
        raise


def _answer(address: str, sock: ssl.SSLSocket, issuer: IssuerSettings, bytes_max: int) -> bytes:
    """Ask, and read all of the answer.

    Raises:
        UnavailableError: `jwks.unavailable`.
        IntegrityError: `jwks.form`.
    """
    sock.do_handshake()
    parts = urlsplit(address)
    connection = http.client.HTTPSConnection(str(parts.hostname), parts.port or 443)
    connection.sock = sock
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection.request("GET", target, headers={"Accept": "application/json"})
    with connection.getresponse() as answer:
        if answer.status != 200:
            raise UnavailableError(
                "jwks.unavailable", f"issuer {issuer.label} says {answer.status}"
            )
        body = answer.read(bytes_max + 1)
        if answer.length and len(body) <= bytes_max:
            raise UnavailableError("jwks.unavailable", f"issuer {issuer.label} says half of it")
    if len(body) > bytes_max:
        raise IntegrityError("jwks.form", f"issuer {issuer.label} says over {bytes_max} bytes")
    return body


def _cut(sock: ssl.SSLSocket) -> None:
    """End a fetch that takes too long: a timeout of the socket starts anew with each byte."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _left_s(ends_s: float) -> float:
    left_s = ends_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s


def _file_bytes(path: Path, bytes_max: int) -> bytes:
    try:
        with path.open("rb") as stream:
            raw = stream.read(bytes_max + 1)
    except OSError as error:
        raise UnavailableError("jwks.unavailable", f"{path}: {error.strerror}") from error
    if len(raw) > bytes_max:
        raise IntegrityError("jwks.form", f"{path} has over {bytes_max} bytes")
    return raw
