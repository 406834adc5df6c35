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
import fcntl
import os
import selectors
import signal
import socket
import sys
from collections import deque
from collections.abc import Sequence
from typing import NoReturn

import numpy as np

from modelkeep.adapters.replica_sandbox import replica_grants, replica_limits
from modelkeep.adapters.sandboxes import this_sandbox
from modelkeep.core.artifact import Port
from modelkeep.core.errors import IntegrityError, KeepError, UnavailableError
from modelkeep.gate.schema import fits
from modelkeep.kernels.arrays import NUMPY_BY_DTYPE, Array
from modelkeep.kernels.replica_frames import (
    FRAME_BYTES_MAX,
    PROTOCOL,
    AnswerFrame,
    CallFrame,
    FaultFrame,
    FrameReader,
    Hello,
    decoded_call,
    framed,
)
from modelkeep.kernels.wire import ELEMENT_BYTES, element_count
from modelkeep.ports.runtime import Runtime
from modelkeep.ports.sandbox import CALLS, NETWORK
from modelkeep.workers.plan import ReplicaPlan, replica_plan

RECEIVE_BYTES = 1024 * 1024
# Answers that a gateway has not read; past it the gateway is stuck and is cut off.
UNSENT_BYTES_MAX = FRAME_BYTES_MAX
CONNECTIONS_MAX = 256


class _Connection:
    """One gateway."""

    __slots__ = ("is_open", "reader", "socket", "unsent")

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.reader = FrameReader()
        self.unsent = bytearray()
        self.is_open = True


_Asked = tuple[_Connection, CallFrame]


class Replica:
    """The loop of one replica."""

    def __init__(self, plan: ReplicaPlan, runtime: Runtime) -> None:
        self._plan = plan
        self._runtime = runtime
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(fileno=plan.listen_fd)
        _never_wait(self._listener)
        self._calls: deque[_Asked] = deque()
        self._connections = 0

    def run(self) -> None:
        """Serve until the lifeline breaks."""
        self._selector.register(self._listener, selectors.EVENT_READ, None)
        self._selector.register(self._plan.lifeline_fd, selectors.EVENT_READ, None)
        while True:
            for key, events in self._selector.select(0 if self._calls else None):
                if isinstance(key.data, _Connection):
                    self._serve(key.data, events)
                elif key.fileobj is self._listener:
                    self._accept()
                else:
                    return
            if self._calls:
                self._answer_some()

    def _accept(self) -> None:
        try:
            connected, _ = self._listener.accept()
        except OSError:
            return
        if self._connections >= CONNECTIONS_MAX:
            connected.close()
            return
        _never_wait(connected)
        connection = _Connection(connected)
        self._connections += 1
        self._selector.register(connected, selectors.EVENT_READ, connection)
        self._send(connection, framed(Hello(PROTOCOL, self._plan.model, self._plan.version)))

    def _serve(self, connection: _Connection, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._send(connection, b"")
        if not events & selectors.EVENT_READ or not connection.is_open:
            return
        try:
            data = connection.socket.recv(RECEIVE_BYTES)
            if not data:
                self._close(connection)
                return
            for raw in connection.reader.frames(data):
                self._calls.append((connection, decoded_call(raw)))
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, IntegrityError):
            self._close(connection)

    def _send(self, connection: _Connection, data: bytes) -> None:
        if not connection.is_open:
            return
        connection.unsent += data
        try:
            sent = connection.socket.send(connection.unsent)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._close(connection)
            return
        del connection.unsent[:sent]
        if len(connection.unsent) > UNSENT_BYTES_MAX:
            self._close(connection)
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.unsent else 0)
        if wanted != self._selector.get_key(connection.socket).events:
            self._selector.modify(connection.socket, wanted, connection)

    def _close(self, connection: _Connection) -> None:
        if connection.is_open:
            connection.is_open = False
            self._connections -= 1
            self._selector.unregister(connection.socket)
            connection.socket.close()

    def _answer_some(self) -> None:
        """Take what may be joined from the queue, run once, answer."""
        batch = self._next_batch()
        if not batch:
            return
        replies: dict[_Connection, list[bytes]] = {}
        for connection, reply in self._answered(batch):
            replies.setdefault(connection, []).append(reply)
        for connection, parts in replies.items():
            self._send(connection, b"".join(parts))

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
                self._send(connection, framed(FaultFrame(call.number, "frame.form", fault)))
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
            answers = self._run(calls)
        except KeepError as error:
            if len(batch) > 1:  # one bad call must not fail its neighbours
                return [pair for each in batch for pair in self._answered([each])]
            fault = FaultFrame(calls[0].number, error.code, error.message)
            return [(batch[0][0], framed(fault))]
        replies = split_answers(calls, answers, self._plan.schema.outputs)
        return [
            (connection, framed(reply))
            for (connection, _), reply in zip(batch, replies, strict=True)
        ]

    def _run(self, calls: Sequence[CallFrame]) -> list[Array]:
        answers = self._runtime.answer(joined_inputs(calls, self._plan.schema.inputs))
        outputs = []
        for port in self._plan.schema.outputs:
            array = answers[port.name]
            if array.dtype != NUMPY_BY_DTYPE[port.dtype]:
                raise UnavailableError("runtime.failed", f"output {port.name} has another type")
            outputs.append(np.ascontiguousarray(array))
        rows = sum(call.shapes[0][0] for call in calls) if len(calls) > 1 else 0
        if rows and any(array.ndim == 0 or array.shape[0] != rows for array in outputs):
            raise UnavailableError("runtime.failed", "the model does not keep rows apart")
        return outputs


def misfit(ports: Sequence[Port], call: CallFrame) -> str:
    """What is wrong with a call's form; empty when nothing is."""
    if len(call.shapes) != len(ports) or len(call.tensors) != len(ports):
        return "another number of inputs"
    for port, shape, raw in zip(ports, call.shapes, call.tensors, strict=True):
        if not fits(port.shape, shape):
            return f"input {port.name} has another shape"
        if len(raw) != element_count(shape) * ELEMENT_BYTES[port.dtype]:
            return f"input {port.name} has another size"
    return ""


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
        inputs[port.name] = np.frombuffer(raw, NUMPY_BY_DTYPE[port.dtype]).reshape(shape)
    return inputs


def split_answers(
    calls: Sequence[CallFrame], arrays: Sequence[Array], ports: Sequence[Port]
) -> list[AnswerFrame]:
    """Give each call its rows: slices of the outputs' bytes."""
    assert len(arrays) == len(ports)
    if len(calls) == 1:
        shapes = tuple(array.shape for array in arrays)
        return [AnswerFrame(calls[0].number, shapes, tuple(map(_bytes_of, arrays)))]
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
        lock_in=lambda size: _lock_in(size, plan),
    )
    Replica(plan, runtime).run()
    # Nothing is left to do, and the runtime's own threads do not end inside the sandbox.
    os._exit(0)


def _lock_in(model_bytes: int, plan: ReplicaPlan) -> None:
    """Give up all but the sockets; what this kernel cannot take stays (`serve --explain-sandbox`).

    Raises:
        UnavailableError: `sandbox.leaks`, when what is on does not hold.
    """
    kept = replica_grants((plan.model_fd, plan.listen_fd, plan.lifeline_fd), sockets=True)
    for each in this_sandbox().lock_in(replica_limits(model_bytes), kept):
        if each.name in (CALLS, NETWORK) and not each.is_on:
            text = f"modelkeep: warning: a replica of {plan.model}:{plan.version} is not locked in"
            sys.stderr.write(f"{text} by {each.name!r}: {each.why}\n")


def _never_wait(one: socket.socket) -> None:
    """As `settimeout(0)`, which needs a system call (ioctl) that a locked-in process has not."""
    fcntl.fcntl(one, fcntl.F_SETFL, fcntl.fcntl(one, fcntl.F_GETFL) | os.O_NONBLOCK)


def _bytes_of(array: Array) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


if __name__ == "__main__":
    main(sys.argv[1:])
