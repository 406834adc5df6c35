"""A keyholder in a process of its own: the one end of the pipe to it, and what goes over it.

The keyholder is started by whoever opens a keep, over a pair of sockets that nobody else can
reach, and ends when its socket does: a parent that dies, however it dies, leaves none behind. One
message is a length (u32, big-endian) and a MessagePack record, 32 MiB at most; the first one says
what the root is opened with.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import TypeVar

from modelkeep.core.errors import UnavailableError, error_of
from modelkeep.core.limits import KEYHOLDER_MESSAGE_BYTES_MAX
from modelkeep.core.record import Record, from_msgpack, to_msgpack
from modelkeep.crypto.kdf import Argon2Settings
from modelkeep.crypto.keyring import LockedRing, RingBody
from modelkeep.ports.keyholder import Holders, Means, Split

# A key source that asks a person to touch a token may take a minute.
ANSWER_S_MAX = 90.0
END_S_MAX = 5.0
LENGTH_BYTES = 4
# Of the environment it gets nothing but where a PKCS#11 library finds its tokens: a path.
_VARIABLES = ("SOFTHSM2_CONF",)
M = TypeVar("M", bound=Record)


class Hello(Record, frozen=True):
    """The first message: `ports.keyholder.Means` as bytes; secret, like every message here."""

    source: str
    passphrase: bytes | None
    words: tuple[str, ...]
    identity: bytes | None
    argon2: Argon2Settings

    def __repr__(self) -> str:
        """Secrets never print."""
        return f"Hello({self.source})"


class Request(Record, frozen=True):
    """One call of the port: the method's name and its arguments."""

    call: str
    rings: tuple[LockedRing, ...] = ()
    body: RingBody | None = None
    keep_id: str = ""
    number: int = 0
    holders: Holders | None = None
    threshold: int = 0
    total: int = 0


class Reply(Record, frozen=True):
    """What came of it: the error's facts, or what the method returns."""

    error: dict[str, str | int | dict[str, str]] | None = None
    place: int = 0
    body: RingBody | None = None
    ring: LockedRing | None = None
    split: Split | None = None


class ProcessKeyholder:
    """Starts the process at once, so that it loads while its parent goes on.

    Args:
        sign_fd: a socket on which it also signs checkpoints, -1 for none; the process keeps it.
    """

    def __init__(self, means: Means, *, sign_fd: int = -1) -> None:
        own, its = socket.socketpair()
        self._socket = own
        self._socket.settimeout(ANSWER_S_MAX)
        fds = (its.fileno(),) if sign_fd < 0 else (its.fileno(), sign_fd)
        command = [sys.executable, "-I", "-m", "modelkeep.workers.keyholder"]
        words = ["--fd", str(its.fileno()), "--sign-fd", str(sign_fd)]
        environment = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own module, no shell
                [*command, *words],
                pass_fds=fds,
                stdin=subprocess.DEVNULL,
                env=environment,
                process_group=0,
            )
        except OSError as error:
            own.close()
            raise UnavailableError(
                "keyholder.start", f"cannot start the keyholder: {error.strerror}"
            ) from error
        finally:
            its.close()
        passphrase, identity = means.passphrase, means.identity
        hello = Hello(
            source=means.source,
            passphrase=None if passphrase is None else passphrase.reveal(),
            words=means.words,
            identity=None if identity is None else identity.reveal(),
            argon2=means.argon2,
        )
        self._sent(hello)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def poll(self) -> int | None:
        """Its exit status, or None while it runs."""
        return self._process.poll()

    def unlock(self, rings: Sequence[LockedRing]) -> tuple[int, RingBody]:
        reply = self._answer(Request(call="unlock", rings=tuple(rings)))
        if reply.body is None:
            raise self._lost()
        return reply.place, reply.body

    def lock(
        self, body: RingBody, *, keep_id: str, number: int, holders: Holders | None = None
    ) -> LockedRing:
        request = Request(call="lock", body=body, keep_id=keep_id, number=number, holders=holders)
        reply = self._answer(request)
        if reply.ring is None:
            raise self._lost()
        return reply.ring

    def split(self, *, threshold: int, total: int) -> Split:
        reply = self._answer(Request(call="split", threshold=threshold, total=total))
        if reply.split is None:
            raise self._lost()
        return reply.split

    def close(self) -> None:
        self._socket.close()
        if not _has_ended(self._process, END_S_MAX):
            self._process.kill()
        self._process.wait()

    def _sent(self, message: Record) -> None:
        try:
            send(self._socket, message)
        except OSError:
            raise self._lost() from None

    def _answer(self, request: Request) -> Reply:
        self._sent(request)
        try:
            reply = received(self._socket, Reply)
        except OSError:
            reply = None
        if reply is None:
            raise self._lost()
        if reply.error is not None:
            raise error_of(reply.error)
        return reply

    def _lost(self) -> UnavailableError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S_MAX)
        return UnavailableError(
            "keyholder.lost",
            f"the keyholder does not answer (status {self._process.poll()})",
            hint="what it wrote stands above; run the command again",
        )


def _has_ended(process: subprocess.Popen[bytes], wait_s: float) -> bool:
    """Wait for the end without looking again and again, which costs every verb 30 ms."""
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], wait_s)[0])
    finally:
        os.close(fd)


def send(to: socket.socket, message: Record) -> None:
    """Send one message.

    Raises:
        UnavailableError: `keyholder.message`, when it is longer than a message may be.
    """
    raw = to_msgpack(message)
    if len(raw) > KEYHOLDER_MESSAGE_BYTES_MAX:
        raise UnavailableError("keyholder.message", "a message to the keyholder is too long")
    to.sendall(len(raw).to_bytes(LENGTH_BYTES, "big") + raw)


def received(source: socket.socket, kind: type[M]) -> M | None:
    """Receive one message; None when the other end has closed.

    Raises:
        IntegrityError: `record.msgpack`.
        OSError: when it is too long, or does not come.
    """
    head = _read(source, LENGTH_BYTES)
    if head is None:
        return None
    length = int.from_bytes(head, "big")
    if length > KEYHOLDER_MESSAGE_BYTES_MAX:
        raise OSError("a message is too long")
    raw = _read(source, length)
    return None if raw is None else from_msgpack(kind, raw, what="a keyholder's message")


def _read(source: socket.socket, length: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < length:
        part = source.recv(min(length - len(parts), 1 << 20))
        if not part:
            return None
        parts += part
    return bytes(parts)
