"""What can be reached from this machine, and what listens on it."""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from modelkeep.assess.settings import place
from modelkeep.core.errors import UsageError
from modelkeep.ports.host import PortState, Reached

# The first packet of PostgreSQL's protocol that asks for TLS; the server answers one byte.
_SSL_REQUEST = struct.pack("!II", 8, 80877103)
_LISTENING = "0A"
_TABLE_BYTES_MAX = 4 * 1024 * 1024


def reached(places: Sequence[str], *, timeout_s: float) -> tuple[Reached, ...]:
    """Try to reach every place, all at once; none is waited for any longer."""
    if not places:
        return ()
    said = [f"no answer within {timeout_s:g} s"] * len(places)

    def tried(index: int) -> None:
        said[index] = _why_not(places[index], timeout_s)

    # Not a pool: looking up a name cannot be cut short, and must not hold up whoever asked.
    threads = [threading.Thread(target=tried, args=(at,), daemon=True) for at in range(len(places))]
    for each in threads:
        each.start()
    for each in threads:
        each.join(timeout_s)
    return tuple(Reached(place=each, why_not=why) for each, why in zip(places, said, strict=True))


def port_state(address: str, port: int) -> PortState:
    """Whether a server could listen on a port; an empty address means all of this machine."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind((address, port))
            one.listen(1)
    except (OSError, OverflowError) as error:
        why = _reason(error)
        if getattr(error, "errno", 0) == errno.EADDRINUSE:
            why = "somebody listens there already"
        return PortState(address=address, port=port, why_not=why)
    return PortState(address=address, port=port)


def listeners(root: Path = Path("/")) -> tuple[int, ...] | None:
    """TCP ports on which somebody listens on all addresses; None where the kernel does not say."""
    found: set[int] = set()
    is_known = False
    for table in ("tcp", "tcp6"):
        with suppress(OSError), (root / "proc/net" / table).open("rb") as stream:
            text = stream.read(_TABLE_BYTES_MAX).decode("ascii", "replace")
            is_known = True
            for line in text.splitlines()[1:]:
                words = line.split()
                address, _, port = (words[1] if len(words) > 3 else "").partition(":")
                if address and not address.strip("0") and words[3] == _LISTENING:
                    with suppress(ValueError):
                        found.add(int(port, 16))
    return tuple(sorted(found)) if is_known else None


def _why_not(text: str, timeout_s: float) -> str:
    try:
        kind, host, port = place(text)
    except UsageError as error:
        return error.message
    if kind == "file":
        return "" if os.access(host, os.R_OK) else "there is no such file that may be read"
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as one:
            if kind != "postgres":
                return ""
            one.sendall(_SSL_REQUEST)
            answer = one.recv(1)
    except OSError as error:
        return _reason(error)
    return "" if answer in (b"S", b"N") else "what answers there is no PostgreSQL"


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__)[:200]
