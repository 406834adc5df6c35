"""Between the gateways and one replica on another host: bytes here, the same bytes over TLS there.

Started as `python -m modelkeep.workers.host_bridge --plan-fd N`. To a gateway it is one replica, so
gateways know nothing of other hosts, and hold no certificate that a host would take. Turn by turn:

1. Connect to the host; both sides check the other's certificate, and the name in it.
2. Send what the replica is to do, and the model's files out of their sealed memory. The host checks
   them against digests that were sent before.
3. Ask the replica its canary, if it has one: the host may have another processor, or another
   release of the runtime.
4. Let gateways through: each connection of theirs is one to the host, of which nothing is looked
   at. Those that came before have waited.
5. When the first connection breaks, or the host says nothing for `SILENT_S`, end those of the
   gateways, which ask other replicas then, and begin again, after a pause that grows.

It holds the model's plaintext as its file descriptor, and sees calls. It is not locked in: it has
to reach a network. When `lifeline_fd` becomes readable (the supervisor is gone) it ends; the host
ends its replica then.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import resource
import secrets
import signal
import socket
import sys
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any

import uvloop
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    wait_random_exponential,
)

from modelkeep import __version__
from modelkeep.adapters.replica_tls import service_side
from modelkeep.core.errors import IntegrityError, KeepError, UnavailableError
from modelkeep.crypto.link_certificates import certified_name
from modelkeep.flows.canary import canary_call, canary_faults
from modelkeep.kernels.link_frames import decoded_said
from modelkeep.kernels.replica_frames import (
    PROTOCOL,
    AnswerFrame,
    CallFrame,
    FaultFrame,
    FrameReader,
    Hello,
    framed,
)
from modelkeep.workers.host_frames import (
    ALIVE,
    ENDED,
    REFUSED,
    TAKEN,
    Begin,
    HostedFile,
    NoteReader,
    note,
    opening,
)
from modelkeep.workers.pipes import Pipe
from modelkeep.workers.plan import HostBridgePlan, host_bridge_plan, read_fd

PIECE_BYTES = 256 * 1024
RECEIVE_BYTES = 64 * 1024
CONNECT_S = 5.0
ALIVE_S = 1.0
SILENT_S = 5.0
# A language model may load for minutes.
HELLO_S = 300.0
ANSWER_S = 60.0
# What was up for so long is tried again at once.
GOOD_S = 10.0
WAITING_MAX = 256
_FAILURES = (OSError, EOFError, KeepError)
_after_loss = wait_random_exponential(multiplier=0.1, max=5.0)
# A host that refuses, or answers wrongly, may have to be set right by somebody.
_after_refusal = wait_random_exponential(multiplier=0.1, max=60.0)


class Bridge:
    """The way to one replica, and the gateways that want to go there."""

    def __init__(self, plan: HostBridgePlan) -> None:
        replica = plan.tensor if plan.tensor is not None else plan.text
        assert replica is not None
        self._plan = plan
        self._replica = replica
        self._tls = service_side(read_fd(plan.link_fd), read_fd(plan.authority_fd))
        self._taken = asyncio.Event()
        self._up = ""  # the replica's name there while gateways are let through
        self._gateways: list[Pipe] = []
        self._said = ""
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def _what(self) -> str:
        return f"{self._replica.model}:{self._replica.version} on {self._plan.host}"

    async def run(self) -> None:
        """Keep it up until SIGTERM, or until the lifeline breaks."""
        loop = asyncio.get_running_loop()
        ends = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, ends.set)
        loop.add_reader(self._plan.lifeline_fd, ends.set)
        await loop.create_unix_server(
            lambda: Pipe(met=self._met), sock=socket.socket(fileno=self._plan.listen_fd)
        )
        keeping = loop.create_task(self._keep_up())
        ending = loop.create_task(ends.wait())
        await asyncio.wait((keeping, ending), return_when=asyncio.FIRST_COMPLETED)
        if keeping.done():
            keeping.result()  # a bug is said, not swallowed
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping

    async def _keep_up(self) -> None:
        loop = asyncio.get_running_loop()
        files = await loop.run_in_executor(None, _described, self._plan.files)
        while True:
            again = AsyncRetrying(retry=retry_if_exception_type(_FAILURES), wait=_pause_s)
            async for attempt in again:
                with attempt:
                    await self._held_for_long(files)

    async def _held_for_long(self, files: tuple[HostedFile, ...]) -> None:
        """As `_held`; comes back once it was up for so long that it is tried again at once."""
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        try:
            await self._held(files)
        except _FAILURES as error:
            self._tell(_why(error))
            if loop.time() - begun_s < GOOD_S:
                raise
        finally:
            self._down()

    async def _held(self, files: tuple[HostedFile, ...]) -> None:
        """Bring it up and keep it so, until that fails.

        Raises:
            OSError: the host is not reached, or was lost.
            EOFError: it closed the connection.
            KeepError: it refuses, or its replica answers wrongly.
        """
        name = secrets.token_hex(16)
        begin = Begin(
            release=__version__,
            replica=name,
            files=files,
            tensor=self._plan.tensor,
            text=self._plan.text,
        )
        self._taken.clear()
        reader, writer = await self._connected()
        try:
            await _all_of(self._give(writer, begin), self._listen(reader), self._let_through(name))
        finally:
            writer.transport.abort()

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        plan = self._plan
        async with asyncio.timeout(CONNECT_S):
            return await asyncio.open_connection(
                plan.address,
                plan.port,
                ssl=self._tls,
                server_hostname=certified_name(plan.host),
            )

    async def _give(self, writer: asyncio.StreamWriter, begin: Begin) -> None:
        """Send the replica's plan and its files, then signs of life."""
        writer.write(opening(begin))
        for (_, fd), file in zip(self._plan.files, begin.files, strict=True):
            for start in range(0, file.size_bytes, PIECE_BYTES):
                writer.write(os.pread(fd, PIECE_BYTES, start))
                await writer.drain()
        while True:
            writer.write(note(ALIVE))
            await asyncio.sleep(ALIVE_S)

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Hear what the host says, and whether it says anything."""
        notes = NoteReader()
        silent_s = 0.0
        while True:
            try:
                # In steps: a machine that was stopped itself has not heard, and begins anew.
                async with asyncio.timeout(ALIVE_S):
                    data = await reader.read(RECEIVE_BYTES)
            except TimeoutError:
                silent_s += ALIVE_S
                if silent_s > SILENT_S:
                    raise OSError(f"it says nothing for {SILENT_S:g} s") from None
                continue
            if not data:
                raise EOFError
            silent_s = 0.0
            for each in notes.fed(data):
                if each.said == TAKEN:
                    self._taken.set()
                elif each.said == REFUSED:
                    raise UnavailableError("host.refused", each.text)
                elif each.said == ENDED:
                    self._tell(f"was lost: {each.text}, started again")

    async def _let_through(self, name: str) -> None:
        """Once the replica is there, and answers rightly, let gateways through."""
        await self._taken.wait()
        await self._proven(name)
        self._up = name
        self._tell("is up")
        for pipe in self._gateways:
            self._start(self._pass(pipe, name))
        await asyncio.Event().wait()

    async def _proven(self, name: str) -> None:
        """Wait for the replica's hello, and ask it its canary.

        Raises:
            IntegrityError: `serve.canary`.
            UnavailableError: `serve.replica`.
        """
        reader, writer = await self._connected()
        frames = _frames(reader)
        try:
            writer.write(opening(name))
            async with asyncio.timeout(HELLO_S):
                hello = await anext(frames)
            if hello != Hello(PROTOCOL, self._replica.model, self._replica.version):
                raise UnavailableError("serve.replica", "it says that it is another one")
            canary, tensor = self._plan.canary, self._plan.tensor
            if canary is None or tensor is None:
                return
            shapes, tensors = canary_call(canary, tensor.schema)
            writer.write(framed(CallFrame(1, shapes, tuple(map(memoryview, tensors)))))
            async with asyncio.timeout(ANSWER_S):
                said = await anext(frames)
            faults = (
                canary_faults(canary, tensor.schema, said.shapes, said.tensors)
                if isinstance(said, AnswerFrame)
                else (said.message if isinstance(said, FaultFrame) else "it does not answer",)
            )
            if faults:
                raise IntegrityError("serve.canary", f"its canary is wrong there: {faults[0]}")
        except TimeoutError as error:
            raise UnavailableError("serve.replica", "the replica says nothing") from error
        finally:
            writer.transport.abort()

    # ---- gateways ------------------------------------------------------------------------------

    def _met(self, pipe: Pipe) -> None:
        """A gateway has connected: let it through, or have it wait."""
        self._gateways = [each for each in self._gateways if each.transport is not None]
        if len(self._gateways) >= WAITING_MAX:
            self._gateways.pop(0).abort()
        self._gateways.append(pipe)
        if self._up:
            self._start(self._pass(pipe, self._up))

    async def _pass(self, pipe: Pipe, name: str) -> None:
        """Make one of a gateway's connection and one to the replica."""
        far, plan = Pipe(), self._plan
        try:
            async with asyncio.timeout(CONNECT_S):
                await asyncio.get_running_loop().create_connection(
                    lambda: far,
                    plan.address,
                    plan.port,
                    ssl=self._tls,
                    server_hostname=certified_name(plan.host),
                )
        except OSError:
            pipe.abort()
            return
        if far.transport is None or pipe.transport is None or self._up != name:
            far.abort()
            pipe.abort()
            return
        far.transport.write(opening(name))
        far.join(pipe)

    def _down(self) -> None:
        """End the connections of gateways that were let through; they come again, and wait."""
        if self._up:
            self._up = ""
            for pipe in self._gateways:
                pipe.abort()

    def _start(self, job: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _tell(self, what: str) -> None:
        """Say what became of it, once."""
        if what != self._said:
            self._said = what
            sys.stderr.write(f"modelkeep: {self._what} {what}\n")
            sys.stderr.flush()


async def _frames(reader: asyncio.StreamReader) -> Any:
    """What a replica says, but for what it offers."""
    cut = FrameReader()
    while data := await reader.read(RECEIVE_BYTES):
        for raw in cut.frames(data):
            said = decoded_said(raw)
            if isinstance(said, Hello | AnswerFrame | FaultFrame):
                yield said
    raise EOFError


async def _all_of(*jobs: Coroutine[Any, Any, None]) -> None:
    """Do these at once until one fails; none of them ends otherwise."""
    tasks = [asyncio.get_running_loop().create_task(each) for each in jobs]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for each in done:
            each.result()
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _why(error: OSError | EOFError | KeepError) -> str:
    """What went wrong, in words."""
    if isinstance(error, KeepError):
        return f"does not come up: {error}"
    if isinstance(error, EOFError):
        return "is not reached: the connection was closed"
    return f"is not reached: {error.strerror or str(error) or 'there is no answer'}"


def _pause_s(state: RetryCallState) -> float:
    """How long to wait after a failure: longer and longer, and never all at once."""
    error = state.outcome.exception() if state.outcome is not None else None
    return (_after_refusal if isinstance(error, KeepError) else _after_loss)(state)


def _described(files: Sequence[tuple[str, int]]) -> tuple[HostedFile, ...]:
    """What a host is told of each file before it gets it."""
    found = []
    for path, fd in files:
        size_bytes, total = os.fstat(fd).st_size, hashlib.sha256()
        for start in range(0, size_bytes, PIECE_BYTES):
            total.update(os.pread(fd, PIECE_BYTES, start))
        found.append(HostedFile(path=path, size_bytes=size_bytes, sha256=total.hexdigest()))
    return tuple(found)


def main(arguments: Sequence[str]) -> int:
    """Read the plan, keep the replica up."""
    parser = argparse.ArgumentParser(prog="modelkeep.workers.host_bridge")
    parser.add_argument("--plan-fd", type=int, required=True)
    plan = host_bridge_plan(parser.parse_args(arguments).plan_fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's business
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    async def bridged() -> None:
        await Bridge(plan).run()

    try:
        uvloop.run(bridged())
    except KeepError as error:
        sys.stderr.write(f"modelkeep: host bridge: {error}\n")
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
