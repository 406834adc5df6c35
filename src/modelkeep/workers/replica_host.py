"""A machine that runs replicas for a service elsewhere: it has a certificate, and waits.

`python -m modelkeep.workers.replica_host --listen HOST:PORT --certificate FILE [--json]`, which
`modelkeep host` becomes. There is no keep here and no key to one. One port, TLS 1.3 only:

1. The caller proves by its certificate, of the authority that ours comes from, that it is the
   service. Before that no byte of it is looked at.
2. It opens the connection (`workers.host_frames`), within `OPENING_S` and bounds.
3. `begin`: the model comes into sealed memory; a locked-in replica is started of it. The replica
   lives as long as this connection: when it breaks, or its other end says nothing for `SILENT_S`,
   the process is ended and the memory wiped.
4. `reach`: the bytes of one gateway's connection go to and from that replica's socket. They are not
   looked at.

Nothing is written to a disk but sockets, in a folder that only this user may enter. SIGHUP reads
the certificate again; SIGTERM and SIGINT end everything.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import shutil
import signal
import socket
import ssl
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import uvloop

from modelkeep import __version__
from modelkeep.adapters.host_settings import parsed_address
from modelkeep.adapters.keysource_file import protected_bytes
from modelkeep.adapters.replica_tls import host_side, is_named, show
from modelkeep.core.errors import IntegrityError, KeepError, UnavailableError, UsageError
from modelkeep.core.instant import rfc3339
from modelkeep.core.record import to_json
from modelkeep.crypto.link_certificates import SERVICE_NAME, HostIdentity, host_identity
from modelkeep.workers.host_frames import (
    ALIVE,
    ENDED,
    REFUSED,
    TAKEN,
    Begin,
    NoteReader,
    OpeningReader,
    note,
)
from modelkeep.workers.hosted import Hosted
from modelkeep.workers.pipes import Pipe
from modelkeep.workers.telling import tell, warn

BACKLOG = 256
HANDSHAKE_S = 5.0
OPENING_S = 5.0
OPENINGS_MAX = 64
HOSTED_MAX = 256
TICK_S = 0.25
ALIVE_TICKS = 4
SILENT_S = 5.0
LAST_WORDS_S = 1.0


class _Opening(asyncio.Protocol):
    """A connection of which is not known yet what it is for."""

    def __init__(self, host: ReplicaHost) -> None:
        self._host = host
        self._reader = OpeningReader()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_opened = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Go on with the service only."""
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peercert")
        if not is_named(peer, SERVICE_NAME) or self._host.openings >= OPENINGS_MAX:
            self._transport.abort()
            return
        self._host.openings += 1
        self._timer = asyncio.get_running_loop().call_later(OPENING_S, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        """Read on until the opening is whole."""
        assert self._transport is not None
        if self._is_opened:
            self._reader.rest += data
        if self._timer is None:
            return  # it is opened, or was turned away
        try:
            asked = self._reader.fed(data)
        except IntegrityError as error:
            warn(str(error))
            self._transport.abort()
            return
        if asked is not None:
            self._settled()
            self._is_opened = True
            self._transport.pause_reading()
            self._host.opened(self._transport, asked, self._reader)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        """It is over."""
        self._settled()

    def _settled(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._host.openings -= 1


class _Lifeline(asyncio.Protocol):
    """The connection that one replica lives by: its files come on it, then signs of life."""

    def __init__(self, transport: asyncio.Transport, hosted: Hosted) -> None:
        self._transport = transport
        self._hosted = hosted
        self._notes = NoteReader()
        self._silent_ticks = 0
        self._ticks = 0
        self._is_filling = False
        loop = asyncio.get_running_loop()
        self.over: asyncio.Future[None] = loop.create_future()
        transport.set_protocol(self)

    def receive(self, data: bytes) -> None:
        """There is room for the files: take them."""
        self._is_filling = True
        self._transport.resume_reading()
        self.data_received(data)

    def data_received(self, data: bytes) -> None:
        """Take pieces of files; behind them, notes."""
        if self.over.done():
            return
        self._silent_ticks = 0
        try:
            if self._is_filling:
                data = self._hosted.fill(data)
                if self._hosted.is_whole:
                    self._is_filling = False
                    self._hosted.start()
                    self._transport.write(note(TAKEN))
            for _ in self._notes.fed(data):
                pass
        except KeepError as error:
            self._end(error)

    def tick(self) -> None:
        """Say that we are alive, hear whether the other is, mend the replica."""
        self._ticks += 1
        if self._ticks % ALIVE_TICKS == 0:
            self._transport.write(note(ALIVE))
        if self._transport.is_reading():
            self._silent_ticks += 1
            if self._silent_ticks * TICK_S > SILENT_S:
                self._end(UnavailableError("host.silent", "its service says nothing any more"))
        if ended := self._hosted.mended():
            warn(f"{ended}, started again")
            self._transport.write(note(ENDED, ended))

    def pause_writing(self) -> None:
        """Who does not read a few notes is not alive."""
        self._end(UnavailableError("host.silent", "its service does not listen any more"))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        """It is over."""
        self._end(None)

    def _end(self, error: KeepError | None) -> None:
        if not self.over.done():
            if error is None:
                self.over.set_result(None)
            else:
                self.over.set_exception(error)


class ReplicaHost:
    """The replicas of this machine.

    Attributes:
        openings: connections of which is not known yet what they are for.
    """

    def __init__(self, certificate: Path) -> None:
        self._certificate = certificate
        self._context = self._prepared()
        self._hosted: dict[str, Hosted] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._lifeline_fd, self._lifeline = os.pipe2(os.O_CLOEXEC)
        self._folder_fd = -1
        self.openings = 0

    async def run(self, listener: socket.socket, *, as_json: bool) -> None:
        """Serve until SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        ends = asyncio.Event()
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(each, ends.set)
        loop.add_signal_handler(signal.SIGHUP, self._read_again)
        folder = tempfile.mkdtemp(prefix="modelkeep-host-")
        self._folder_fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            await loop.create_server(
                lambda: _Opening(self),
                sock=listener,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_S,
                ssl_shutdown_timeout=LAST_WORDS_S,
            )
            self._announce(listener, as_json=as_json)
            await ends.wait()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            shutil.rmtree(folder, ignore_errors=True)

    def opened(
        self, transport: asyncio.Transport, asked: Begin | str, reader: OpeningReader
    ) -> None:
        """Do what a connection is for; nothing more is read from it until then."""
        job = (
            self._reach(transport, asked, reader)
            if isinstance(asked, str)
            else self._host(transport, asked, reader)
        )
        task = asyncio.get_running_loop().create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _host(
        self, transport: asyncio.Transport, begin: Begin, reader: OpeningReader
    ) -> None:
        """Run a replica for as long as its service is there."""
        loop = asyncio.get_running_loop()
        hosted = Hosted(begin, folder_fd=self._folder_fd, lifeline_fd=self._lifeline_fd)
        lifeline = _Lifeline(transport, hosted)  # nothing comes to the reader from here on
        ticking = loop.create_task(_ticking(lifeline))
        try:
            self._demand_hostable(begin)
            self._hosted[begin.replica] = hosted
            await loop.run_in_executor(None, hosted.allocate)
            lifeline.receive(reader.rest)
            tell(f"{hosted.name} is begun")
            await lifeline.over
            tell(f"{hosted.name} has ended")
        except KeepError as error:
            warn(f"{hosted.name} is ended: {error}")
            transport.write(note(REFUSED, f"{error}"))
        finally:
            ticking.cancel()
            if self._hosted.get(begin.replica) is hosted:
                del self._hosted[begin.replica]
            await asyncio.shield(loop.run_in_executor(None, hosted.end))
            transport.close()  # what was said last still leaves

    def _demand_hostable(self, begin: Begin) -> None:
        """Go on with what this process can run.

        Raises:
            UsageError: `host.release` or `host.replica`.
            UnavailableError: `host.full`.
        """
        if begin.release != __version__:
            raise UsageError(
                "host.release",
                f"this host has modelkeep {__version__}, its service {begin.release[:40]}",
            )
        if begin.replica in self._hosted:
            raise UsageError("host.replica", "a replica of this name is there already")
        if len(self._hosted) >= HOSTED_MAX:
            raise UnavailableError("host.full", f"this host runs {HOSTED_MAX} replicas already")

    async def _reach(self, transport: asyncio.Transport, name: str, reader: OpeningReader) -> None:
        """Make one of this connection and one to the replica."""
        hosted = self._hosted.get(name)
        near, far = Pipe(), Pipe()
        try:
            if hosted is None:
                return
            loop = asyncio.get_running_loop()
            await loop.create_unix_connection(lambda: near, str(hosted.path))
            if near.transport is None or transport.is_closing():
                return
            near.transport.write(reader.rest)
            transport.set_protocol(far)
            far.connection_made(transport)
            far.join(near)
        except OSError:
            return  # its process is being started again
        finally:
            if far.other is None:
                near.abort()
                transport.abort()

    # ---- the certificate -----------------------------------------------------------------------

    def _identity(self) -> HostIdentity:
        return host_identity(protected_bytes(str(self._certificate)))

    def _prepared(self) -> ssl.SSLContext:
        self._is = self._identity()
        return host_side(self._is.chain.reveal(), self._is.authority)

    def _read_again(self) -> None:
        """Show another certificate to whoever connects from now on."""
        try:
            found = self._identity()
            if (found.host, found.authority) != (self._is.host, self._is.authority):
                raise UsageError("host.certificate", "the new certificate is another host's")
            show(self._context, found.chain.reveal())
        except KeepError as error:
            warn(f"{error}; the certificate that was there goes on")
            return
        self._is = found
        tell(f"another certificate, until {rfc3339(found.expires_ns)[:19]}")

    def _announce(self, listener: socket.socket, *, as_json: bool) -> None:
        host, port = listener.getsockname()[:2]
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        facts = {"host": self._is.host, "address": address, "expires_ns": self._is.expires_ns}
        until = rfc3339(self._is.expires_ns)[:19]
        said = f"{self._is.host} waits for its service at {address}; certificate until {until}"
        if as_json:
            said = to_json({"event": "waiting", "pid": os.getpid(), **facts}).decode()
        sys.stdout.write(said + "\n")
        sys.stdout.flush()


def _listener(text: str) -> socket.socket:
    """Listen there.

    Raises:
        UsageError: `host.listen`.
        UnavailableError: `host.port`.
    """
    address = parsed_address(text)
    if address is None:
        raise UsageError("host.listen", f"{text[:200]!r} is no address: host:port")
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    try:
        return socket.create_server(address, family=family, backlog=BACKLOG)
    except OSError as error:
        raise UnavailableError(
            "host.port",
            f"cannot listen on {text}: {error.strerror}",
            hint="--listen takes an address of this machine, and a port that nobody listens on",
        ) from error


async def _ticking(lifeline: _Lifeline) -> None:
    while True:
        await asyncio.sleep(TICK_S)
        lifeline.tick()


def main(arguments: Sequence[str]) -> int:
    """Listen, serve."""
    parser = argparse.ArgumentParser(prog="modelkeep host")
    parser.add_argument("--listen", required=True)
    parser.add_argument("--certificate", type=Path, required=True)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        host = ReplicaHost(options.certificate)
        with contextlib.closing(_listener(options.listen)) as listener:
            uvloop.run(host.run(listener, as_json=options.json))
    except KeepError as error:
        sys.stderr.write(f"modelkeep: error: {error}\n")
        if error.hint:
            sys.stderr.write(f"modelkeep: hint: {error.hint}\n")
        if options.json:
            sys.stderr.write(to_json(error.as_facts()).decode() + "\n")
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
