"""One model in one process: reads calls, joins them, runs the model, answers.

Started as `python -m modelkeep.workers.replica --plan-fd N` with an empty environment. Single
threaded: while the model runs, calls queue in the sockets, and the next run takes them together.
So batches grow with the load by themselves and one call alone never waits for others.

It trusts nobody: frames are bounded, tensors are checked against the schema, and a gateway that
does not read its answers is cut off. It holds no key. Before it looks at the model's first byte it
is locked in (`adapters.replica_sandbox`): from then on it opens no file, makes no socket, starts no
process. When `lifeline_fd` becomes readable (the supervisor is gone) it ends.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Sequence
from typing import NoReturn

import numpy as np

from modelkeep.adapters.shared_memory import ReplicaMemory
from modelkeep.core.artifact import Port, Schema
from modelkeep.core.errors import IntegrityError, KeepError, UnavailableError
from modelkeep.gate.schema import fits
from modelkeep.kernels.arrays import NUMPY_BY_DTYPE, Array
from modelkeep.kernels.link_frames import (
    CANCEL,
    CANCELLED,
    PING,
    SHARE,
    Freed,
    Offer,
    Ping,
    Pong,
    Share,
    SharedAnswer,
    SharedCall,
    decoded_asked,
)
from modelkeep.kernels.replica_frames import (
    FRAME_BYTES_MAX,
    PROTOCOL,
    AnswerFrame,
    CallFrame,
    Cancel,
    FaultFrame,
    Hello,
    framed,
)
from modelkeep.kernels.wire import BYTES, Tensor, array_of, is_whole, tensor_of
from modelkeep.ports.runtime import Runtime
from modelkeep.workers.gateway_links import GatewayLinks, Link
from modelkeep.workers.locked_in import lock_in
from modelkeep.workers.plan import ReplicaPlan, replica_plan

RECEIVE_BYTES = 1024 * 1024
# Answers that a gateway has not read; past it the gateway is stuck and is cut off.
UNSENT_BYTES_MAX = FRAME_BYTES_MAX
_TEXTS = np.dtype(np.object_)  # what the runtime gives for BYTES
# Each that shares memory takes twice `[pool] shared_bytes` of the addresses that we may have.
SHARING_MAX = 32
# Answers from this size on go through shared memory, where there is some.
SHARED_FROM_BYTES = 64 * 1024


class _Sharing:
    """What is kept of one gateway: the memory that it shares, if it does.

    Args:
        may_share: whether descriptors may come with what is received first.
    """

    __slots__ = ("_descriptors", "may_share", "memory")

    def __init__(self, *, may_share: bool) -> None:
        self.may_share = may_share
        self.memory: ReplicaMemory | None = None
        self._descriptors: list[int] = []

    def received(self, connected: socket.socket) -> bytes:
        """What came; of the first piece also the descriptors."""
        if not self.may_share:
            return connected.recv(RECEIVE_BYTES)
        data, self._descriptors, _, _ = socket.recv_fds(connected, RECEIVE_BYTES, 2)
        self.may_share = False
        return data

    def share(self, size_bytes: int) -> None:
        """Take the memory that came with this frame.

        Raises:
            IntegrityError: `frame.share`.
        """
        descriptors, self._descriptors = self._descriptors, []
        self.memory = ReplicaMemory(size_bytes, descriptors)

    def close(self) -> None:
        """Give the memory back."""
        for fd in self._descriptors:
            os.close(fd)
        if self.memory is not None:
            self.memory.close()
            self.memory = None


_Connection = Link[_Sharing]
_Asked = tuple[_Connection, CallFrame]


class Replica:
    """The loop of one replica."""

    def __init__(self, plan: ReplicaPlan, runtime: Runtime) -> None:
        self._plan = plan
        self._runtime = runtime
        self._calls: deque[_Asked] = deque()
        self._links = GatewayLinks(
            self,
            plan.listen_fd,
            frame_bytes_max=FRAME_BYTES_MAX,
            unsent_bytes_max=UNSENT_BYTES_MAX,
        )

    def run(self) -> None:
        """Serve until the lifeline breaks."""
        self._links.run(self._plan.lifeline_fd)

    @property
    def is_busy(self) -> bool:
        """Whether calls wait."""
        return bool(self._calls)

    def met(self, others: int) -> _Sharing:
        """What is kept of a gateway that has connected."""
        return _Sharing(may_share=self._plan.shares and others < SHARING_MAX)

    def greeting(self, own: _Sharing) -> bytes:
        """What it is offered, and who we are."""
        offer = Offer((PING, CANCEL, *((SHARE,) * own.may_share)))
        hello = Hello(PROTOCOL, self._plan.model, self._plan.version)
        return framed(offer) + framed(hello)

    def closed(self, link: _Connection) -> None:
        """Give its memory back; what it asked for is not computed."""
        link.own.close()

    def take(self, link: _Connection, raw: memoryview) -> None:
        """Queue a call, or do what else is asked."""
        asked = decoded_asked(raw)
        if type(asked) is CallFrame:
            self._calls.append((link, asked))
        else:
            self._take(link, asked)

    def _take(
        self, connection: _Connection, asked: SharedCall | Freed | Ping | Cancel | Share
    ) -> None:
        """What is no plain call."""
        if isinstance(asked, Ping):
            self._links.send(connection, framed(Pong(asked.number)))
        elif isinstance(asked, Cancel):
            self._cancel(connection, asked.number)
        elif isinstance(asked, Share):
            connection.own.share(asked.size_bytes)
        elif connection.own.memory is None:
            raise IntegrityError("frame.span", "no memory is shared with this gateway")
        elif isinstance(asked, Freed):
            connection.own.memory.freed(asked.offset)
        else:
            tensors = connection.own.memory.read(asked.spans)
            self._calls.append((connection, CallFrame(asked.number, asked.shapes, tensors)))

    def _cancel(self, connection: _Connection, number: int) -> None:
        """Do not compute what is still waiting; of what is computed the answer comes."""
        for at, (asking, call) in enumerate(self._calls):
            if asking is connection and call.number == number:
                del self._calls[at]
                self._links.send(connection, framed(FaultFrame(number, CANCELLED, "")))
                return

    def work(self) -> None:
        """Take what may be joined from the queue, run once, answer."""
        batch = self._next_batch()
        if not batch:
            return
        replies: dict[_Connection, list[bytes]] = {}
        for connection, reply in self._answered(batch):
            replies.setdefault(connection, []).append(reply)
        for connection, parts in replies.items():
            self._links.send(connection, b"".join(parts))

    def _next_batch(self) -> list[_Asked]:
        batch: list[_Asked] = []
        rows, form = 0, None
        while self._calls:
            connection, call = self._calls[0]
            if not connection.is_open:
                self._calls.popleft()
                continue
            fault = misfit(self._plan.schema.inputs, call)
            if fault:
                self._calls.popleft()
                self._links.send(connection, framed(FaultFrame(call.number, "frame.form", fault)))
                continue
            here = tuple(shape[1:] for shape in call.shapes)
            more = call.shapes[0][0] if self._plan.batchable else 1
            if batch and (
                not self._plan.batchable or here != form or rows + more > self._plan.batch_rows_max
            ):
                break
            batch.append(self._calls.popleft())
            rows, form = rows + more, here
        return batch

    def _answered(self, batch: list[_Asked]) -> list[tuple[_Connection, bytes]]:
        calls = [call for _, call in batch]
        try:
            answers = computed(self._runtime, self._plan.schema, calls)
        except KeepError as error:
            if len(batch) > 1:  # one bad call must not fail its neighbours
                return [pair for each in batch for pair in self._answered([each])]
            fault = FaultFrame(calls[0].number, error.code, error.message)
            return [(batch[0][0], framed(fault))]
        replies = split_answers(calls, answers, self._plan.schema.outputs)
        return [
            (connection, _answer_frame(connection, reply))
            for (connection, _), reply in zip(batch, replies, strict=True)
        ]


def _answer_frame(connection: _Connection, reply: AnswerFrame) -> bytes:
    """An answer as its gateway gets it: a large one through the memory that is shared."""
    memory = connection.own.memory
    if memory is not None and sum(map(len, reply.tensors)) >= SHARED_FROM_BYTES:
        offset, lengths = memory.written(reply.tensors)
        if offset >= 0:
            return framed(SharedAnswer(reply.number, reply.shapes, offset, lengths))
    return framed(reply)


def misfit(ports: Sequence[Port], call: CallFrame) -> str:
    """What is wrong with a call's form; empty when nothing is."""
    if len(call.shapes) != len(ports) or len(call.tensors) != len(ports):
        return "another number of inputs"
    for port, shape, raw in zip(ports, call.shapes, call.tensors, strict=True):
        if not fits(port.shape, shape):
            return f"input {port.name} has another shape"
        if not is_whole(port.dtype, shape, raw):
            return f"input {port.name} has another size"
    return ""


def computed(runtime: Runtime, schema: Schema, calls: Sequence[CallFrame]) -> list[Array]:
    """Run the model once on calls that may be joined: an array for each of its outputs.

    Raises:
        UnavailableError: `runtime.failed`.
    """
    answers = runtime.answer(joined_inputs(calls, schema.inputs))
    outputs = []
    for port in schema.outputs:
        array = answers[port.name]
        if array.dtype != NUMPY_BY_DTYPE.get(port.dtype, _TEXTS):
            raise UnavailableError("runtime.failed", f"output {port.name} has another type")
        outputs.append(np.ascontiguousarray(array))
    rows = sum(call.shapes[0][0] for call in calls) if len(calls) > 1 else 0
    if rows and any(array.ndim == 0 or array.shape[0] != rows for array in outputs):
        raise UnavailableError("runtime.failed", "the model does not keep rows apart")
    return outputs


def joined_inputs(calls: Sequence[CallFrame], ports: Sequence[Port]) -> dict[str, Array]:
    """One array per input, the calls' rows one after the other: bytes joined, no copy per call."""
    inputs = {}
    for index, port in enumerate(ports):
        shape = calls[0].shapes[index]
        if len(calls) == 1:
            raw: bytes | memoryview = calls[0].tensors[index]
        else:
            raw = b"".join([call.tensors[index] for call in calls])
            shape = (sum(call.shapes[index][0] for call in calls), *shape[1:])
        inputs[port.name] = array_of(Tensor(port.name, port.dtype, shape, raw))
    return inputs


def split_answers(
    calls: Sequence[CallFrame], arrays: Sequence[Array], ports: Sequence[Port]
) -> list[AnswerFrame]:
    """Give each call its rows: slices of the outputs' bytes."""
    assert len(arrays) == len(ports)
    if len(calls) == 1:
        shapes = tuple(array.shape for array in arrays)
        return [AnswerFrame(calls[0].number, shapes, tuple(map(_bytes_of, arrays)))]
    if any(port.dtype == BYTES for port in ports):
        return _split_texts(calls, arrays)
    views = [_bytes_of(array) for array in arrays]
    widths = [len(view) // array.shape[0] for view, array in zip(views, arrays, strict=True)]
    tails = [array.shape[1:] for array in arrays]
    replies = []
    start = 0
    for call in calls:
        rows = call.shapes[0][0]
        stop = start + rows
        replies.append(
            AnswerFrame(
                call.number,
                tuple((rows, *tail) for tail in tails),
                tuple(
                    view[start * width : stop * width]
                    for view, width in zip(views, widths, strict=True)
                ),
            )
        )
        start = stop
    return replies


def _split_texts(calls: Sequence[CallFrame], arrays: Sequence[Array]) -> list[AnswerFrame]:
    """As `split_answers`, where elements have no fixed size."""
    replies = []
    start = 0
    for call in calls:
        stop = start + call.shapes[0][0]
        rows = [array[start:stop] for array in arrays]
        shapes = tuple(each.shape for each in rows)
        replies.append(AnswerFrame(call.number, shapes, tuple(map(_bytes_of, rows))))
        start = stop
    return replies


def main(arguments: Sequence[str]) -> NoReturn:
    """Read the plan, load the model, serve."""
    parser = argparse.ArgumentParser(prog="modelkeep.workers.replica")
    parser.add_argument("--plan-fd", type=int, required=True)
    plan = replica_plan(parser.parse_args(arguments).plan_fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's business
    from modelkeep.wiring import open_runtime  # noqa: PLC0415  # loads onnxruntime

    runtime = open_runtime(
        plan.model_fd,
        schema=plan.schema,
        threads=plan.threads,
        lock_in=lambda size: lock_in(
            f"{plan.model}:{plan.version}",
            size,
            (plan.model_fd, plan.listen_fd, plan.lifeline_fd),
        ),
    )
    Replica(plan, runtime).run()
    # Nothing is left to do, and the runtime's own threads do not end inside the sandbox.
    os._exit(0)


def _bytes_of(array: Array) -> memoryview:
    if array.dtype == _TEXTS:
        return memoryview(tensor_of("", BYTES, array).raw)
    return array.reshape(-1).view(np.uint8).data


if __name__ == "__main__":
    main(sys.argv[1:])
