"""The control channel between the supervisor and one gateway: what is in force, and how it goes.

One message is one packet of a socket pair: its kind, and a descriptor (SCM_RIGHTS) of a sealed
memory file with the body. So a message of any size arrives whole or not at all, nobody waits for
anybody, and a certificate with its key is never copied through a socket's buffer.

    supervisor -> gateway   table        a `Table`: everything that is answered for
                            certificate  PEM chain with its private key
                            metrics      JSON list of the other gateways' expositions
    gateway -> supervisor   load         a `Load`, each second and when a table is in force
                            metrics      its own exposition, each second

Messages say how things are, not what changed. Whoever cannot be reached gets the newest of each
kind later, and a gateway that was started again gets all of them first. Both ends check that a
body is a sealed memory file, whose reading cannot wait, and read it once.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from typing import Protocol

from modelkeep.adapters.memory_file import F_SEAL_FUTURE_WRITE, sealed_bytes
from modelkeep.core.errors import IntegrityError
from modelkeep.core.record import Record, from_json, to_json
from modelkeep.core.rows import Traffic
from modelkeep.gate.limit_settings import LimitSettings, QueueSettings
from modelkeep.workers.plan import ServedModel

TABLE, CERTIFICATE, METRICS, LOAD = b"table", b"certificate", b"metrics", b"load"
KIND_BYTES_MAX = 16
BODY_BYTES_MAX = 64 * 1024 * 1024
# The least that the kernel gives: a few packets. What does not fit waits here, the newest only.
SEND_BUFFER_BYTES = 4096
PACKETS_PER_TURN = 64
_FIXED = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
_UNWRITABLE = fcntl.F_SEAL_WRITE | F_SEAL_FUTURE_WRITE


class Table(Record, frozen=True):
    """Everything that is answered for, as of one moment.

    Attributes:
        number: goes up with every change; a gateway says which one it has in force.
        traffic: canaries and shadows among the models.
        limits: what callers may use up.
    """

    number: int
    models: tuple[ServedModel, ...]
    traffic: tuple[Traffic, ...] = ()
    limits: tuple[LimitSettings, ...] = ()
    queue: QueueSettings = QueueSettings()


class ModelLoad(Record, frozen=True):
    """How one version is doing at one gateway.

    Attributes:
        in_flight: calls that its replicas have, or that wait for one.
    """

    model: str
    version: int
    in_flight: int


class Load(Record, frozen=True):
    """How one gateway is doing.

    Attributes:
        table: number of the table in force.
        in_flight: calls under way.
        is_ready: whether it answers calls, and each model has a replica that does.
        sockets: replicas that it holds, those too that it will ask no more but that still compute.
        silent: replicas of the table that it is not connected with.
        hung: replicas that do not answer and ought to be killed.
    """

    table: int
    in_flight: int = 0
    is_ready: bool = False
    models: tuple[ModelLoad, ...] = ()
    sockets: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    hung: tuple[str, ...] = ()


class End:
    """One end of a channel; never waits.

    Args:
        its: the other end's descriptor, where this process holds that too: the supervisor does, for
            whoever is started next.

    Attributes:
        is_closed: whether nobody has the other end any more.
    """

    def __init__(self, fd: int, *, its: int = -1) -> None:
        self.is_closed = False
        self._its = its
        self.socket = socket.socket(fileno=fd)
        self.socket.settimeout(0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._unsent: dict[bytes, bytes] = {}

    def send(self, kind: bytes, body: bytes) -> None:
        """Send a message, now or with a later `flush`; an unsent one of its kind is replaced."""
        self._unsent[kind] = body
        self.flush()

    def flush(self) -> None:
        """Send what has not been sent, as far as the other end takes it."""
        for kind, body in list(self._unsent.items()):
            try:
                fd = sealed_bytes(f"control-{kind.decode()}", body)
            except OSError:  # no memory, or no descriptor, at present
                return
            try:
                socket.send_fds(self.socket, [kind], [fd])
            except OSError:  # it is full, or its process is being started again
                return
            finally:
                os.close(fd)
            del self._unsent[kind]

    def received(self) -> Iterator[tuple[bytes, bytes]]:
        """What has come: kind and body; at most so much that others get their turn too.

        Raises:
            IntegrityError: `control.message`.
        """
        for _ in range(PACKETS_PER_TURN):
            try:
                kind, fds, flags, _ = socket.recv_fds(self.socket, KIND_BYTES_MAX, 1)
            except OSError:
                return
            try:
                if not kind and not fds:
                    self.is_closed = True
                    return
                if len(fds) != 1 or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                    raise _no_message()
                yield kind, _body(fds[0])
            finally:
                for fd in fds:
                    os.close(fd)

    def forget(self) -> None:
        """Take back what the other end has not read: it is for a process that has ended."""
        self._unsent.clear()
        if self._its < 0:
            return
        with socket.socket(fileno=os.dup(self._its)) as its:
            its.settimeout(0)
            with contextlib.suppress(OSError):
                while True:
                    _, fds, _, _ = socket.recv_fds(its, KIND_BYTES_MAX, 1)
                    for fd in fds:
                        os.close(fd)

    def close(self) -> None:
        """Close it; idempotent."""
        self.socket.close()


def control_pair() -> tuple[End, int]:
    """The supervisor's end, and the descriptor of the gateway's."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return End(ours.detach(), its=its.fileno()), its.detach()


def _body(fd: int) -> bytes:
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        raise _no_message() from None
    size_bytes = os.fstat(fd).st_size
    if seals & _FIXED != _FIXED or not seals & _UNWRITABLE or size_bytes > BODY_BYTES_MAX:
        raise _no_message()
    return os.pread(fd, size_bytes, 0)


def _no_message() -> IntegrityError:
    return IntegrityError("control.message", "what came over the control channel is no message")


class Loop(Protocol):
    """Of an event loop, what is needed here."""

    def add_reader(self, fd: int, callback: Callable[[], object]) -> object:
        """Call back whenever something can be read."""
        ...

    def remove_reader(self, fd: int) -> object:
        """Do so no more."""
        ...


class SupervisorLine:
    """A gateway's end: takes what is in force, says how it goes.

    Attributes:
        others: the other gateways' expositions, as of a second ago.

    Args:
        on_table: puts a table in force, whole.
        on_certificate: takes the certificate with its key, as PEM.
        complain: writes one line for developers.
    """

    def __init__(
        self,
        fd: int,
        *,
        on_table: Callable[[Table], None],
        on_certificate: Callable[[bytes], None],
        complain: Callable[[str], None],
    ) -> None:
        self._end = End(fd)
        self._on_table = on_table
        self._on_certificate = on_certificate
        self._complain = complain
        self._loop: Loop | None = None
        self.others: tuple[bytes, ...] = ()

    def start(self, loop: Loop) -> None:
        """Take what has come, and from then on what comes."""
        self._loop = loop
        self.take()
        loop.add_reader(self._end.socket.fileno(), self.take)

    def take(self) -> None:
        """Take what has come; what cannot be taken changes nothing."""
        received = self._end.received()
        while True:
            try:
                kind, body = next(received)
            except StopIteration:
                if self._end.is_closed and self._loop is not None:
                    self._loop.remove_reader(self._end.socket.fileno())
                return
            except IntegrityError as error:
                self._complain(str(error))
                return
            try:
                self._took(kind, body)
            except (IntegrityError, ValueError, OSError) as error:
                self._complain(f"the supervisor's {kind.decode(errors='replace')}: {error}")

    def _took(self, kind: bytes, body: bytes) -> None:
        if kind == TABLE:
            self._on_table(from_json(Table, body, what="the table of models"))
        elif kind == CERTIFICATE:
            self._on_certificate(body)
        elif kind == METRICS:
            self.others = from_json(Expositions, body, what="the other gateways' metrics").texts

    def say(self, load: Load) -> None:
        """Say how it goes."""
        self._end.send(LOAD, to_json(load))

    def say_metrics(self, exposition: bytes) -> None:
        """Hand the own metrics to whoever is asked for all."""
        self._end.send(METRICS, exposition)

    def close(self) -> None:
        """Listen no more."""
        if self._loop is not None:
            self._loop.remove_reader(self._end.socket.fileno())
        self._end.close()


class Expositions(Record, frozen=True):
    """Metrics of several gateways, each in Prometheus' text format."""

    texts: tuple[bytes, ...]
