"""One server elsewhere, spoken to as if it were a replica: text calls in, pieces out.

Started as `python -m modelkeep.workers.upstream --plan-fd N` with an empty environment. It is two
processes. The first forks the dialer (`adapters.upstream_dial`), which makes connections to the one
server and knows no secret; then it reads the key, and is locked in before it hears of the server:
it opens no file, makes no socket, starts no process. So whatever a hostile server makes of it, it
reaches that server, the gateways that speak to it, and nothing else.

A call is a task. It ends with its last piece, with a fault, when the gateway cancels it, and when
the gateway is gone; the connection to the server is then cut off, so that nothing is generated
that nobody reads. A gateway that does not read stops all reading for it (`_Gateway.room`), and
that slows the server down. When `lifeline_fd` becomes readable (the supervisor is gone), or the
dialer ends, it ends.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import ssl
import sys
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import NoReturn, cast
from urllib.parse import urlsplit

from modelkeep.adapters.upstream_connect import Connections, LockedSocket
from modelkeep.adapters.upstream_dial import started_dialer
from modelkeep.adapters.upstream_http import Upstream, port_of
from modelkeep.core.errors import IntegrityError, KeepError, UsageError
from modelkeep.core.text import decoded_request
from modelkeep.crypto.secret import Secret
from modelkeep.kernels.replica_faults import fault_frame, upstream_fault
from modelkeep.kernels.replica_frames import (
    PROTOCOL,
    Cancel,
    FrameReader,
    Hello,
    TextCall,
    decoded_text_call,
    framed,
)
from modelkeep.workers.locked_in import lock_in
from modelkeep.workers.plan import UpstreamPlan, read_fd, upstream_plan

# Calls are prompts: bounded by what a gateway takes, which an operator may raise.
CALL_BYTES_MAX = 64 * 1024 * 1024
# Calls of one gateway that are under way or wait for a connection.
CALLS_MAX = 4096
GATEWAYS_MAX = 256
KEY_BYTES_MAX = 4096
_MODEL_BYTES = 1024 * 1024 * 1024  # what answers and buffers may take, as a model would


class _Gateway(asyncio.Protocol):
    """One gateway that calls."""

    def __init__(self, speaker: Speaker) -> None:
        self._speaker = speaker
        self._reader = FrameReader(CALL_BYTES_MAX)
        self._transport: asyncio.Transport | None = None
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._room = asyncio.Event()
        self._room.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet it."""
        self._transport = cast("asyncio.Transport", transport)
        self._speaker.gateways += 1
        plan = self._speaker.plan
        self._transport.write(framed(Hello(PROTOCOL, plan.name, plan.version)))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        """Stop what nobody waits for any more."""
        self._transport = None
        self._speaker.gateways -= 1
        self._room.set()
        for task in self._tasks.values():
            task.cancel()

    def pause_writing(self) -> None:
        """It does not read: read no more for it."""
        self._room.clear()

    def resume_writing(self) -> None:
        """It reads again."""
        self._room.set()

    def data_received(self, data: bytes) -> None:
        """Begin calls and end them."""
        try:
            for raw in self._reader.frames(data):
                self._take(decoded_text_call(raw))
        except IntegrityError:
            assert self._transport is not None
            self._transport.abort()

    def _take(self, frame: TextCall | Cancel) -> None:
        if isinstance(frame, Cancel):
            task = self._tasks.get(frame.number)
            if task is not None:
                task.cancel()
            return
        if frame.number in self._tasks:
            raise IntegrityError("frame.number", "a number is under way already")
        if len(self._tasks) >= CALLS_MAX:
            self._send(framed(fault_frame(frame.number, upstream_fault("upstream.busy"))))
            return
        task = asyncio.get_running_loop().create_task(self._answer(frame))
        self._tasks[frame.number] = task
        task.add_done_callback(lambda _: self._tasks.pop(frame.number, None))

    async def _answer(self, call: TextCall) -> None:
        try:
            request = decoded_request(bytes(call.request))
            async with aclosing(self._speaker.upstream.answered(call.number, request)) as pieces:
                async for frame in pieces:
                    self._send(framed(frame))
                    await self._room.wait()
        except KeepError as error:
            self._send(framed(fault_frame(call.number, error)))
        except Exception as error:  # noqa: BLE001  # the boundary of one call
            complain(f"{type(error).__name__} in a call")
            self._send(framed(fault_frame(call.number, upstream_fault("upstream.failed"))))

    def _send(self, raw: bytes) -> None:
        if self._transport is not None:
            self._transport.write(raw)


class Speaker:
    """The loop of one upstream."""

    def __init__(self, plan: UpstreamPlan, upstream: Upstream, listener: LockedSocket) -> None:
        self.plan = plan
        self.upstream = upstream
        self.gateways = 0
        self._listener = listener

    async def run(self, is_over: asyncio.Event) -> None:
        """Serve until it is over."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._listener, self._accept)
        loop.add_reader(self.plan.lifeline_fd, is_over.set)
        await is_over.wait()

    def _accept(self) -> None:
        try:
            made, _ = self._listener.accept()
        except OSError:
            return
        if self.gateways >= GATEWAYS_MAX:
            made.close()
            return
        loop = asyncio.get_running_loop()
        task = loop.create_task(loop.connect_accepted_socket(lambda: _Gateway(self), made))
        self._connecting = task  # the loop keeps only a weak one


def _tls(plan: UpstreamPlan) -> ssl.SSLContext | None:
    """Whom to trust: the authorities of the plan, else the system's; TLS 1.2 at least."""
    if urlsplit(plan.url).scheme != "https":
        return None
    authorities = read_fd(plan.ca_fd).decode("ascii") if plan.ca_fd >= 0 else None
    context = ssl.create_default_context(cadata=authorities)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _key(plan: UpstreamPlan) -> Secret | None:
    """The server's key.

    Raises:
        UsageError: `upstream.key`, when it is no text that a header can hold.
    """
    if plan.secret_fd < 0:
        return None
    raw = read_fd(plan.secret_fd).strip()
    os.close(plan.secret_fd)
    if not 0 < len(raw) <= KEY_BYTES_MAX or not all(0x21 <= each <= 0x7E for each in raw):
        raise UsageError(
            "upstream.key",
            f"the key of the upstream {plan.name} is not 1 to {KEY_BYTES_MAX} printable characters",
        )
    return Secret(raw)


async def _served(plan: UpstreamPlan, dialer: socket.socket) -> None:
    """Compose, warm up what loads lazily, lock in, serve."""
    loop = asyncio.get_running_loop()
    connections = Connections(dialer, loop)
    upstream = Upstream(
        plan.settings,
        key=_key(plan),
        context=_tls(plan),
        connect=connections.connection,
        complain=complain,
    )
    await upstream.warmed()
    lock_in(plan.name, _MODEL_BYTES, _open_descriptors())
    listener = LockedSocket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=plan.listen_fd)
    listener.never_wait()
    await Speaker(plan, upstream, listener).run(connections.is_over)


def _open_descriptors() -> tuple[int, ...]:
    """Every descriptor above standard error that is open now."""
    found = [int(each.name) for each in Path("/proc/self/fd").iterdir()]
    return tuple(fd for fd in found if fd > 2 and _is_open(fd))


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def complain(message: str) -> None:
    """Write one line for developers; never of a call's content."""
    print(f"modelkeep: upstream: {message}", file=sys.stderr, flush=True)  # noqa: T201  # its log


def main(arguments: Sequence[str]) -> NoReturn:
    """Read the plan, fork the dialer, serve."""
    parser = argparse.ArgumentParser(prog="modelkeep.workers.upstream")
    parser.add_argument("--plan-fd", type=int, required=True)
    plan = upstream_plan(parser.parse_args(arguments).plan_fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's business
    parts = urlsplit(plan.url)
    secrets = [fd for fd in (plan.secret_fd, plan.listen_fd, plan.ca_fd) if fd >= 0]
    dialer = started_dialer(
        parts.hostname or "", port_of(parts), plan.settings.networks, closing=secrets
    )
    status = 0
    try:
        asyncio.run(_served(plan, dialer))
    except KeepError as error:
        complain(str(error))
        status = error.exit_status
    os._exit(status)  # threads of libraries do not end inside the sandbox


if __name__ == "__main__":
    main(sys.argv[1:])
