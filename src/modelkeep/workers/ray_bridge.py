"""Between the gateways and replicas in a Ray cluster: frames here, sealed batches there.

Started as `python -m modelkeep.workers.ray_bridge --plan-fd N`; to a gateway it is one replica, so
gateways know nothing of Ray. It says hello when every replica in the cluster is ready. Calls that
come while others are under way travel together (`BATCH_*`), so batches grow with the load.

A call of a model computes and changes nothing, so it may be asked twice. A batch whose replica,
worker or node dies is asked again at once, and one that is not answered for a while is asked once
more, until the calls' deadline.

It has the model's plaintext only while it seals it, and a key of its own making; neither is
written anywhere. It is not locked in as a replica is: Ray opens sockets and files of its own. When
`lifeline_fd` becomes readable (the supervisor is gone) it removes its deployment and ends.
"""

from __future__ import annotations

import argparse
import asyncio
import mmap
import os
import resource
import signal
import socket
import sys
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, cast

from modelkeep.core.errors import IntegrityError, KeepError, UnavailableError
from modelkeep.core.record import to_json
from modelkeep.crypto.secret import Secret
from modelkeep.kernels.link_frames import (
    CANCEL,
    CANCELLED,
    PING,
    Offer,
    Ping,
    Pong,
    decoded_asked,
)
from modelkeep.kernels.replica_frames import (
    PROTOCOL,
    AnswerFrame,
    CallFrame,
    Cancel,
    FaultFrame,
    FrameReader,
    Hello,
    framed,
)
from modelkeep.workers.plan import RayPlan, ray_plan
from modelkeep.workers.ray_replica import (
    KEY_BYTES,
    RayReplica,
    opened_replies,
    sealed_calls,
    sealed_parts,
)

if TYPE_CHECKING:
    from modelkeep.adapters.ray_cluster import RayCluster

# Calls that travel together.
BATCH_CALLS_MAX = 256
BATCH_BYTES_MAX = 16 * 1024 * 1024
# Batches under way for each replica: one that is computed, one that is on its way.
BATCHES_PER_REPLICA = 2
# A batch that failed is asked again after this; one that is not answered is asked once more after
# that, or after so many times what is usual: of a dead node Ray may know only after 15 seconds, and
# until then half of all tries may go there.
AGAIN_S = 0.02
HEDGE_S = 0.5
HEDGE_TIMES = 4.0
ASKED_AT_ONCE_MAX = 8
GIVE_S = 1.0
UNSENT_BYTES_MAX = 256 * 1024 * 1024


class Handle(Protocol):
    """Where batches go."""

    async def ask(self, blob: bytes) -> bytes:
        """Have a sealed batch answered.

        Raises:
            UnavailableError: whoever was to answer is lost; another may.
        """
        ...


class _Gateway(asyncio.Protocol):
    """One gateway that calls."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet it."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=UNSENT_BYTES_MAX)
        model = self._bridge.plan.model
        hello = Hello(PROTOCOL, model.model, model.version)
        self._transport.write(framed(Offer((PING, CANCEL))) + framed(hello))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        """What it asked is computed for nobody."""
        self._transport = None

    def pause_writing(self) -> None:
        """It does not read: cut it off."""
        assert self._transport is not None
        self._transport.abort()

    @property
    def is_open(self) -> bool:
        """Whether somebody waits."""
        return self._transport is not None

    def data_received(self, data: bytes) -> None:
        """Take what it says."""
        try:
            for raw in self._reader.frames(data):
                said = decoded_asked(raw)
                if isinstance(said, CallFrame):
                    self._bridge.place(self, said)
                elif isinstance(said, Ping):
                    self.send(framed(Pong(said.number)))
                elif isinstance(said, Cancel):
                    self._bridge.cancel(self, said.number)
                else:
                    raise IntegrityError("frame.span", "no memory is shared with this gateway")
        except IntegrityError:
            assert self._transport is not None
            self._transport.abort()

    def send(self, data: bytes) -> None:
        """Send, if it is still there."""
        if self._transport is not None:
            self._transport.write(data)


_Asked = tuple[_Gateway, CallFrame, float]


class Bridge:
    """The calls of all gateways, and the batches under way."""

    def __init__(self, plan: RayPlan, key: Secret, handle: Handle) -> None:
        self.plan = plan
        self._key = key
        self._handle = handle
        self._calls: deque[_Asked] = deque()
        self._under_way: set[asyncio.Task[None]] = set()
        self._is_due = False
        self._usual_s = 0.0

    async def run(self, over: asyncio.Event) -> None:
        """Serve until it is over."""
        loop = asyncio.get_running_loop()
        listener = socket.socket(fileno=self.plan.listen_fd)
        server = await loop.create_unix_server(lambda: _Gateway(self), sock=listener)
        await over.wait()
        server.close()

    def place(self, gateway: _Gateway, call: CallFrame) -> None:
        """Take a call; it leaves with what else comes in this turn of the loop."""
        loop = asyncio.get_running_loop()
        self._calls.append((gateway, call, loop.time() + self.plan.call_timeout_s))
        if not self._is_due:
            self._is_due = True
            loop.call_soon(self._send_some)

    def cancel(self, gateway: _Gateway, number: int) -> None:
        """Do not compute what still waits; of what is under way the answer comes."""
        for at, (asking, call, _) in enumerate(self._calls):
            if asking is gateway and call.number == number:
                del self._calls[at]
                gateway.send(framed(FaultFrame(number, CANCELLED, "")))
                return

    def _send_some(self) -> None:
        self._is_due = False
        most = BATCHES_PER_REPLICA * self.plan.replicas
        while self._calls and len(self._under_way) < most:
            batch = self._next_batch()
            if batch:
                task = asyncio.get_running_loop().create_task(self._answer(batch))
                self._under_way.add(task)
                task.add_done_callback(self._answered)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.result()  # a bug is said, not swallowed
        self._send_some()

    def _next_batch(self) -> list[_Asked]:
        batch: list[_Asked] = []
        size_bytes = 0
        while self._calls and len(batch) < BATCH_CALLS_MAX:
            gateway, call, _ = self._calls[0]
            size_bytes += sum(map(len, call.tensors))
            if batch and size_bytes > BATCH_BYTES_MAX:
                break
            asked = self._calls.popleft()
            if gateway.is_open:
                batch.append(asked)
        return batch

    async def _answer(self, batch: Sequence[_Asked]) -> None:
        loop = asyncio.get_running_loop()
        calls = [call for _, call, _ in batch]
        replies: Sequence[AnswerFrame | FaultFrame]
        try:
            blob = sealed_calls(self._key, calls)
            until_s = min(each[2] for each in batch)
            hedge_s = max(HEDGE_S, HEDGE_TIMES * self._usual_s)
            begun_s = loop.time()
            answered = await delivered(self._handle, blob, until_s=until_s, hedge_s=hedge_s)
            self._usual_s += (loop.time() - begun_s - self._usual_s) / 8
            replies = _matched(calls, opened_replies(self._key, answered))
        except KeepError as error:
            replies = [FaultFrame(call.number, error.code, error.message) for call in calls]
        for (gateway, _, _), reply in zip(batch, replies, strict=True):
            gateway.send(framed(reply))


def _matched(
    calls: Sequence[CallFrame], replies: Sequence[AnswerFrame | FaultFrame]
) -> Sequence[AnswerFrame | FaultFrame]:
    """The replies, if they are those of the calls.

    Raises:
        IntegrityError: `ray.replies`.
    """
    if [each.number for each in replies] != [each.number for each in calls]:
        raise IntegrityError("ray.replies", "the replies are not those of the calls")
    return replies


async def delivered(
    handle: Handle, blob: bytes, *, until_s: float, hedge_s: float = HEDGE_S
) -> bytes:
    """Ask until there is an answer; once more, whoever is asked, when nobody says anything.

    Raises:
        UnavailableError: `ray.deadline`.
    """
    loop = asyncio.get_running_loop()
    asked: list[asyncio.Task[bytes]] = []
    try:
        while (left_s := until_s - loop.time()) > 0:
            asked.append(loop.create_task(_asked(handle, blob)))
            if len(asked) > ASKED_AT_ONCE_MAX:
                asked.pop(0).cancel()
            done, _ = await asyncio.wait(
                asked, timeout=min(left_s, hedge_s), return_when=asyncio.FIRST_COMPLETED
            )
            for each in done:
                if each.exception() is None:
                    return each.result()
                asked.remove(each)
            if done:
                await asyncio.sleep(AGAIN_S)
    finally:
        for each in asked:
            each.cancel()
    raise UnavailableError("ray.deadline", "no replica in Ray answered in time")


async def _asked(handle: Handle, blob: bytes) -> bytes:
    return await handle.ask(blob)


async def _bridged(plan: RayPlan, key: Secret, cluster: RayCluster) -> None:
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.add_reader(plan.lifeline_fd, over.set)
    loop.add_signal_handler(signal.SIGTERM, over.set)

    async def give() -> None:
        while True:
            await asyncio.sleep(GIVE_S)
            cluster.give()

    giving = loop.create_task(give())
    try:
        await Bridge(plan, key, cluster).run(over)
    finally:
        giving.cancel()


def _deploy(plan: RayPlan, key: Secret, cluster: RayCluster) -> None:
    """Seal the model and deploy it; the plaintext is not held any longer."""
    mapped = mmap.mmap(plan.model_fd, plan.model.size_bytes, prot=mmap.PROT_READ)
    with memoryview(mapped) as weights:
        cluster.start(
            RayReplica,
            to_json(plan.model),
            key=key.reveal(),
            parts=sealed_parts(key, weights, plan.model),
        )
    os.close(plan.model_fd)


def main(arguments: Sequence[str]) -> int:
    """Read the plan, deploy, serve."""
    parser = argparse.ArgumentParser(prog="modelkeep.workers.ray_bridge")
    parser.add_argument("--plan-fd", type=int, required=True)
    plan = ray_plan(parser.parse_args(arguments).plan_fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's business
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    key = Secret(os.urandom(KEY_BYTES))
    from modelkeep.adapters.ray_cluster import RayCluster  # noqa: PLC0415  # loads ray

    cluster = RayCluster(plan.settings, name=plan.name, replicas=plan.replicas)
    try:
        try:
            _deploy(plan, key, cluster)
            asyncio.run(_bridged(plan, key, cluster))
        finally:
            cluster.stop()
    except KeepError as error:
        hint = f"\nmodelkeep: hint: {error.hint}" if error.hint else ""
        sys.stderr.write(f"modelkeep: error: {plan.name}: {error}{hint}\n")
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
