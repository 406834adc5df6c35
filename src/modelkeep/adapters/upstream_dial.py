"""Connections to one upstream server, made by a process that does nothing else.

Who reads a stranger's answers is locked in and can make no socket (`workers.upstream`). So it asks
here, over a socket pair: a number goes one way, and the same number comes back with the descriptor
of a connection to the one host and port that this process was started for. Whatever takes the
reader over reaches that server and nothing else.

The host's addresses are looked up once, checked, and kept; they are looked up again, and checked
again, only when none of the kept ones answers. A private address is refused unless the operator
listed its network or wrote the address itself: else whoever answers for a name could point the
service into the operator's own network.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

CONNECT_TIMEOUT_S = 10.0
# Connections that are being made at once; more wait.
_DIALS = 32
_REQUEST = struct.Struct("<I")
_REPLY = struct.Struct("<IB")
REACHED, UNREACHED, REFUSED = 0, 1, 2
_NOBODY = 65534
_ADDRESSES_MAX = 16

_Address = IPv4Address | IPv6Address


def is_reachable(address: str, networks: Sequence[str], *, is_literal: bool) -> bool:
    """Whether an address may be spoken to.

    Args:
        networks: private ones that are listed.
        is_literal: whether the operator wrote this very address, or `localhost`.
    """
    known = _plain(address)
    if is_literal:
        return True
    if known.is_multicast or known.is_unspecified or known.is_reserved:
        return False
    return known.is_global or any(
        known in network
        for network in map(ip_network, networks)
        if network.version == known.version
    )


def _plain(address: str) -> _Address:
    """An address, and the IPv4 one that may hide in it."""
    known = ip_address(address.partition("%")[0])
    if isinstance(known, IPv6Address):
        hidden = known.ipv4_mapped or known.sixtofour or (known.teredo or (None, None))[1]
        return hidden or known
    return known


@dataclass(slots=True)
class Dialer:
    """What the process does: looks up, checks, connects.

    Attributes:
        networks: private ones that are listed.
    """

    host: str
    port: int
    networks: tuple[str, ...]
    _kept: tuple[str, ...] = ()
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def serve(self, asked: socket.socket) -> None:
        """Answer until who asks is gone."""
        with ThreadPoolExecutor(_DIALS) as pool:
            while raw := asked.recv(_REQUEST.size):
                pool.submit(self._answer, asked, raw)

    def _answer(self, asked: socket.socket, raw: bytes) -> None:
        (number,) = _REQUEST.unpack(raw)
        made, status = None, UNREACHED
        with contextlib.suppress(Exception):  # whoever asks gets an answer, whatever happens here
            made, status = self.connection()
        with contextlib.suppress(OSError):
            fds = [made.fileno()] if made is not None else []
            socket.send_fds(asked, [_REPLY.pack(number, status)], fds)
        if made is not None:
            made.close()

    def connection(self) -> tuple[socket.socket | None, int]:
        """A connection to the first address that answers, or why there is none."""
        with self._lock:
            kept = self._kept
        made = _connected(kept, self.port)
        if made is not None:
            return made, REACHED
        found, is_refused = self.addresses()
        made = _connected(found, self.port)
        if made is None:
            return None, REFUSED if is_refused and not found else UNREACHED
        with self._lock:
            self._kept = found
        return made, REACHED

    def addresses(self) -> tuple[tuple[str, ...], bool]:
        """What the host's name stands for and may be spoken to; whether some may not."""
        try:
            rows = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return (), False
        known = tuple(dict.fromkeys(str(row[4][0]) for row in rows))[:_ADDRESSES_MAX]
        is_literal = self.host == "localhost" or _is_address(self.host)
        good = tuple(
            each for each in known if is_reachable(each, self.networks, is_literal=is_literal)
        )
        return good, len(good) < len(known)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _connected(addresses: Sequence[str], port: int) -> socket.socket | None:
    for address in addresses:
        with contextlib.suppress(OSError):
            made = socket.create_connection((address, port), CONNECT_TIMEOUT_S)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.settimeout(None)
            return made
    return None


def started_dialer(
    host: str, port: int, networks: tuple[str, ...], *, closing: Sequence[int]
) -> socket.socket:
    """Fork the process that connects, before there are threads or secrets; our end to it.

    It ends when the other side of the socket is gone.

    Args:
        closing: descriptors that are none of its business.
    """
    host.encode("idna")  # loads what cannot be read any more as another user
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        status = 70
        try:
            ours.close()
            for fd in closing:
                os.close(fd)
            _become_nobody()
            Dialer(host, port, networks).serve(its)
            status = 0
        finally:
            os._exit(status)
    its.close()
    return ours


def _become_nobody() -> None:
    """Root becomes another user where it may; looking up names needs no rights."""
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)


def request_bytes(number: int) -> bytes:
    """What asks for a connection."""
    return _REQUEST.pack(number)


def received_reply(asked: socket.socket) -> tuple[int, int, int] | None:
    """The next reply: its number, its status and the descriptor or -1; None when there is no more.

    Raises:
        BlockingIOError: there is none yet.
    """
    raw, fds, _, _ = socket.recv_fds(asked, _REPLY.size, 1)
    if len(raw) != _REPLY.size:
        return None
    number, status = _REPLY.unpack(raw)
    return number, status, fds[0] if fds else -1
