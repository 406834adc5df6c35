"""Real replicas with a real pool in front, and replicas that a test plays by hand."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from gateway_world import SOURCE, Process
from onnx import TensorProto, helper

from modelkeep.adapters.memory_file import sealed_bytes
from modelkeep.adapters.replica_pool import ReplicaPool
from modelkeep.core.artifact import Port, Schema
from modelkeep.core.record import to_json
from modelkeep.gate.pool_settings import PoolSettings
from modelkeep.kernels.link_frames import decoded_asked
from modelkeep.kernels.replica_frames import PROTOCOL, FrameReader, Hello, decoded_text_call, framed
from modelkeep.kernels.wire import Tensor
from modelkeep.workers.plan import ReplicaPlan

ROW_SCHEMA = Schema(
    inputs=(Port(name="x", dtype="FP32", shape=(-1, -1)),),
    outputs=(Port(name="y", dtype="FP32", shape=(-1, -1)),),
)


def doubling_model(turns: int = 0) -> bytes:
    """A model that doubles each number, after `turns` rounds of work for its runtime."""
    nodes = [helper.make_node("Add", ["x", "x"], ["y"])]
    if turns:
        body = helper.make_graph(
            [
                helper.make_node("Identity", ["go"], ["go_on"]),
                helper.make_node("Sin", ["sum"], ["sum_on"]),
            ],
            "body",
            [
                helper.make_tensor_value_info("at", TensorProto.INT64, []),
                helper.make_tensor_value_info("go", TensorProto.BOOL, []),
                helper.make_tensor_value_info("sum", TensorProto.FLOAT, None),
            ],
            [
                helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
                helper.make_tensor_value_info("sum_on", TensorProto.FLOAT, None),
            ],
        )
        many = helper.make_tensor("many", TensorProto.INT64, [], [turns])
        nought = helper.make_tensor("nought", TensorProto.FLOAT, [], [0.0])
        nodes = [
            helper.make_node("Constant", [], ["many"], value=many),
            helper.make_node("Constant", [], ["nought"], value=nought),
            helper.make_node("Loop", ["many", "", "x"], ["worked"], body=body),
            helper.make_node("Mul", ["worked", "nought"], ["nothing"]),
            helper.make_node("Add", ["x", "x"], ["twice"]),
            helper.make_node("Add", ["twice", "nothing"], ["y"]),
        ]
    graph = helper.make_graph(
        nodes,
        "doubling",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "k"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "k"])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


def row(values: Any) -> tuple[Tensor, ...]:
    """One call's inputs."""
    array = np.atleast_2d(np.asarray(values, np.float32))
    return (Tensor("x", "FP32", array.shape, array.tobytes()),)


def numbers(answer: Any) -> Any:
    """What a model said."""
    return np.frombuffer(answer.tensors[0], np.float32).reshape(answer.shapes[0])


@dataclass
class Scripted(Process):
    """A replica that a script of the tests is; `words` follow its plan."""

    words: tuple[str, ...] = ()
    log: str = os.devnull

    def start(self) -> None:
        """As every process, but for what it runs; what it says goes to `log`."""
        plan_fd = sealed_bytes("plan", self.plan)
        with Path(self.log).open("ab") as log:
            self.popen = subprocess.Popen(
                [sys.executable, self.module, "--plan-fd", str(plan_fd), *self.words],
                env={"PYTHONPATH": str(SOURCE)},
                pass_fds=(*self.fds, plan_fd),
                stderr=log,
            )
        os.close(plan_fd)


@dataclass
class Replicas:
    """Processes of `workers.replica` for one model, in one run folder."""

    folder: Path
    model: bytes
    name: str = "m"
    batchable: bool = True
    processes: dict[str, Process] = field(default_factory=dict)
    _lifeline: tuple[int, int] = field(default_factory=lambda: os.pipe2(os.O_CLOEXEC))

    def start(self, socket_name: str, *script: str) -> str:
        """Start one more, of a script's runtime if one is given; its socket's name."""
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(str(self.folder / socket_name))
        listening.listen(128)
        model_fd = sealed_bytes(self.name, self.model)
        plan = ReplicaPlan(
            model=self.name,
            version=1,
            schema=ROW_SCHEMA,
            model_fd=model_fd,
            listen_fd=listening.detach(),
            lifeline_fd=self._lifeline[0],
            batchable=self.batchable,
            batch_rows_max=64,
            threads=1,
        )
        fds = (model_fd, plan.listen_fd, self._lifeline[0])
        process = Process("modelkeep.workers.replica", to_json(plan), fds)
        if script:
            process = Scripted(script[0], to_json(plan), fds, words=script[1:])
        self.processes[socket_name] = process
        process.start()
        return socket_name

    def stop(self) -> None:
        """End them all."""
        os.close(self._lifeline[1])
        for process in self.processes.values():
            process.kill()
            for fd in process.fds[:2]:
                os.close(fd)
        os.close(self._lifeline[0])


@contextlib.asynccontextmanager
async def pooled(
    folder: Path, *, call_timeout_s: float = 10.0, **settings: Any
) -> AsyncIterator[ReplicaPool]:
    """A pool, closed at the end; what it complains of is in `pool.said`, hangs in `pool.hung`."""
    said: list[str] = []
    hung: list[tuple[str, int, str]] = []
    pool = ReplicaPool(
        folder,
        call_timeout_s=call_timeout_s,
        complain=said.append,
        settings=PoolSettings(**settings),
        on_ejected=lambda *what: hung.append(what),
    )
    pool.said, pool.hung = said, hung  # type: ignore[attr-defined]
    try:
        yield pool
    finally:
        pool.close()
        await asyncio.sleep(0)


async def until(condition: Callable[[], Any], timeout_s: float = 15.0) -> None:
    """Wait for something to become true."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - anything may make it true
            await asyncio.sleep(0.005)


class PlayedReplica:
    """The other end of a pool's connections, whose every frame a test decides.

    Args:
        play: told each frame that was asked, and the connection's writer; may be a coroutine.
    """

    def __init__(
        self,
        folder: Path,
        socket_name: str,
        play: Callable[[Any, asyncio.StreamWriter], Any],
        *,
        first: bytes = framed(Hello(PROTOCOL, "m", 1)),
        is_text: bool = False,
    ) -> None:
        self.asked: list[Any] = []
        self.connections = 0
        self.writers: list[asyncio.StreamWriter] = []
        self._path = str(folder / socket_name)
        self._play = play
        self._first = first
        self._decoded = decoded_text_call if is_text else decoded_asked
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._connected, self._path)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self.writers:
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        writer.write(self._first)
        frames = FrameReader()
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                for raw in frames.frames(data):
                    asked = self._decoded(raw)
                    self.asked.append(asked)
                    done = self._play(asked, writer)
                    if asyncio.iscoroutine(done):
                        await done
