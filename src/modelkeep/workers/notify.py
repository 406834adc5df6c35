"""What a service manager is told: that the service is ready, reloading or stopping.

The protocol of systemd's sd_notify(3): a datagram to the Unix socket that `NOTIFY_SOCKET` names.
Without one nothing is told; one that does not listen is no reason to stop.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time

READY = "READY=1"
STOPPING = "STOPPING=1"


def notify(state: str) -> None:
    """Tell the service manager, if there is one."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    name = "\0" + address[1:] if address.startswith("@") else address
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
        to.settimeout(1.0)
        to.sendto(state.encode(), name)


def notify_reloading() -> None:
    """Tell it that the configuration is read again; `READY` ends that."""
    micros = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notify(f"RELOADING=1\nMONOTONIC_USEC={micros}")
