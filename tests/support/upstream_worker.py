"""Starts a real upstream worker, and speaks to it as a gateway does."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway_world import Process, _folder_fd

from modelkeep.adapters.memory_file import sealed_bytes
from modelkeep.adapters.upstream_settings import UpstreamSettings
from modelkeep.core.record import msgpack_decoder, to_json
from modelkeep.core.text import Message, TextKind, TextRequest, encoded_request
from modelkeep.kernels.replica_frames import (
    Cancel,
    FaultFrame,
    FrameReader,
    Hello,
    Piece,
    TextCall,
    TextEnd,
    framed,
)
from modelkeep.workers.plan import UpstreamPlan

Reply = FaultFrame | Hello | Piece | TextEnd
decoded = msgpack_decoder(Reply, what="a reply")


@dataclass
class Worker:
    """A running worker.

    Attributes:
        lifeline: closing it ends the worker.
    """

    process: Process
    address: str
    lifeline: int
    fds: list[int] = field(default_factory=list)
    gateways: list[Gateway] = field(default_factory=list)

    def gateway(self) -> Gateway:
        """A gateway that speaks to it."""
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.settimeout(20)
        self.gateways.append(Gateway(made))
        made.connect(self.address)
        return self.gateways[-1].greeted()

    def stop(self) -> None:
        for each in self.gateways:
            each.close()
        os.close(self.lifeline)
        assert self.process.popen is not None
        self.process.popen.wait(timeout=15)
        for fd in self.fds:
            os.close(fd)


class Gateway:
    """One connection."""

    def __init__(self, made: socket.socket) -> None:
        self.socket = made
        self._reader = FrameReader()
        self._got: list[Reply] = []
        self._number = 0

    def greeted(self) -> Gateway:
        """Hear its hello."""
        hello = self.next()
        assert isinstance(hello, Hello)
        self.hello = hello
        return self

    def next(self) -> Reply:
        """The next frame."""
        while not self._got:
            data = self.socket.recv(65_536)
            if not data:
                raise EOFError
            self._got += [decoded(bytes(raw)) for raw in self._reader.frames(data)]
        return self._got.pop(0)

    def ask(self, request: TextRequest) -> int:
        """Begin a call; its number."""
        self._number += 1
        self.socket.sendall(framed(TextCall(self._number, encoded_request(request))))
        return self._number

    def cancel(self, number: int) -> None:
        self.socket.sendall(framed(Cancel(number)))

    def answer(self, request: TextRequest) -> tuple[list[Piece], Any]:
        """All pieces of a call, and how it ended."""
        number = self.ask(request)
        pieces = []
        while True:
            frame = self.next()
            assert not isinstance(frame, Hello)
            assert frame.number == number
            if not isinstance(frame, Piece):
                return pieces, frame
            pieces.append(frame)

    def close(self) -> None:
        self.socket.close()


def chat(text: str = "the keep of a model", **more: Any) -> TextRequest:
    """A chat of one turn."""
    return TextRequest(
        kind=TextKind.CHAT,
        messages=(Message(role="user", content=text),),
        **{"max_tokens": 20, "seed": 1, **more},
    )


def plan_of(
    settings: UpstreamSettings, folder: Path, lifeline_fd: int, *, key: str = "", ca: bytes = b""
) -> tuple[UpstreamPlan, str, tuple[int, ...]]:
    """A plan, the address of its socket, and the descriptors that the process inherits."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    address = f"/proc/self/fd/{_folder_fd(folder)}/{settings.name}.sock"
    listening.bind(address)
    listening.listen(128)
    secret_fd = sealed_bytes("key", key.encode()) if key else -1
    ca_fd = sealed_bytes("ca", ca) if ca else -1
    plan = UpstreamPlan(
        name=settings.name,
        url=settings.url,
        model=settings.model,
        secret_fd=secret_fd,
        listen_fd=listening.detach(),
        lifeline_fd=lifeline_fd,
        settings=settings,
        ca_fd=ca_fd,
    )
    fds = tuple(fd for fd in (secret_fd, ca_fd, plan.listen_fd) if fd >= 0)
    return plan, address, fds


@contextlib.contextmanager
def worker(
    settings: UpstreamSettings, folder: Path, *, key: str = "", ca: bytes = b""
) -> Iterator[Worker]:
    """Start a worker, end it."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    plan, address, fds = plan_of(settings, folder, reading, key=key, ca=ca)
    process = Process("modelkeep.workers.upstream", to_json(plan), (*fds, reading))
    process.start()
    running = Worker(process, address, writing, [*fds, reading])
    try:
        yield running
    finally:
        running.stop()


def until(told: Any, timeout_s: float = 5.0) -> bool:
    """Whether something becomes so in time."""
    ends = time.monotonic() + timeout_s
    while time.monotonic() < ends:
        if told():
            return True
        time.sleep(0.01)
    return False
