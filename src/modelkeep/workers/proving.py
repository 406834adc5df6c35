"""A replica is asked by the supervisor itself, before any gateway is told of it.

Waits for its hello, which comes when the model is loaded, and asks it once. Where the model's owner
gave a canary, the answer has to be the right one. Without one any answer will do, even that it
cannot compute on what it was asked: only silence and death are failures.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from modelkeep.core.artifact import Canary, Schema
from modelkeep.core.errors import IntegrityError, UnavailableError
from modelkeep.core.text import TextKind, TextRequest, encoded_request
from modelkeep.flows.canary import canary_call, canary_faults
from modelkeep.flows.publish import TENSOR, TEXT, Published
from modelkeep.kernels.link_frames import decoded_said
from modelkeep.kernels.replica_frames import (
    PROTOCOL,
    AnswerFrame,
    CallFrame,
    FaultFrame,
    FrameReader,
    Hello,
    Piece,
    TextCall,
    TextEnd,
    framed,
)
from modelkeep.kernels.wire import ELEMENT_BYTES, element_count

ANSWER_S = 60.0
RECEIVE_BYTES = 1 << 20
LOOK_S = 0.2
_NUMBER = 1
_Reply = AnswerFrame | FaultFrame | Hello | Piece | TextEnd


def proven(
    run_folder: Path, name: str, model: Published, *, is_lost: Callable[[], bool], wait_s: float
) -> None:
    """Wait for a replica and ask it once.

    Args:
        name: of its socket.
        is_lost: whether its process has ended.

    Raises:
        UnavailableError: `serve.replica`, when it does not come up or does not answer.
        IntegrityError: `serve.canary`, when its answer is not the right one.
    """
    until_s = time.monotonic() + wait_s
    with _connected(run_folder, name) as connection:
        replies = _replies(connection, is_lost)
        hello = _next(replies, until_s, model)
        if hello != Hello(PROTOCOL, model.name, model.version):
            raise _failed(model, "it says that it is another one")
        if model.kind not in (TENSOR, TEXT):
            return  # somebody else's server, which nobody asks without need
        connection.sendall(_call(model))
        reply = _next(replies, time.monotonic() + ANSWER_S, model)
        if model.canary is not None and model.kind == TENSOR:
            _demand_right(model, model.canary, reply)
        elif not isinstance(reply, AnswerFrame | FaultFrame | Piece | TextEnd):
            raise _failed(model, "it does not answer")


def one_proven(
    run_folder: Path,
    named: Sequence[tuple[str, Callable[[], bool]]],
    model: Published,
    *,
    wait_s: float,
) -> None:
    """Wait until one of several replicas has answered; see `proven`.

    Args:
        named: sockets, each with whether its process has ended.

    Raises:
        KeepError: what the last one failed with, when none does.
    """
    is_found = threading.Event()

    def asked(name: str, is_lost: Callable[[], bool]) -> None:
        def is_over() -> bool:
            return is_found.is_set() or is_lost()

        proven(run_folder, name, model, is_lost=is_over, wait_s=wait_s)
        is_found.set()

    with ThreadPoolExecutor(len(named)) as threads:
        errors = [each.exception() for each in [threads.submit(asked, *one) for one in named]]
    if not is_found.is_set() and errors[-1] is not None:
        raise errors[-1]


def _demand_right(model: Published, canary: Canary, reply: _Reply) -> None:
    if isinstance(reply, AnswerFrame):
        faults = canary_faults(canary, model.schema, reply.shapes, reply.tensors)
    else:
        faults = (reply.message if isinstance(reply, FaultFrame) else "it does not answer",)
    if faults:
        raise IntegrityError(
            "serve.canary",
            f"{model.name}:{model.version} does not answer its canary rightly: {faults[0][:300]}",
            hint="the version that was served before goes on",
        )


def _call(model: Published) -> bytes:
    if model.kind != TENSOR:
        request = TextRequest(kind=TextKind.COMPLETION, prompts=(".",), max_tokens=1)
        return framed(TextCall(_NUMBER, encoded_request(request)))
    if model.canary is not None:
        shapes, tensors = canary_call(model.canary, model.schema)
    else:
        shapes, tensors = _zeros(model.schema)
    return framed(CallFrame(_NUMBER, shapes, tuple(map(memoryview, tensors))))


def _zeros(schema: Schema) -> tuple[tuple[tuple[int, ...], ...], tuple[bytes, ...]]:
    shapes = tuple(tuple(max(size, 1) for size in port.shape) for port in schema.inputs)
    sizes = [
        element_count(shape) * ELEMENT_BYTES.get(port.dtype, 0)
        for port, shape in zip(schema.inputs, shapes, strict=True)
    ]
    return shapes, tuple(map(bytes, sizes))


@contextlib.contextmanager
def _connected(run_folder: Path, name: str) -> Iterator[socket.socket]:
    """Connect to a socket of the run folder, whose path may be longer than an address."""
    folder_fd = os.open(run_folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(f"/proc/self/fd/{folder_fd}/{name}")
            connection.settimeout(LOOK_S)
            yield connection
    except OSError as error:
        raise UnavailableError("serve.replica", f"the replica cannot be asked: {error}") from error
    finally:
        os.close(folder_fd)


def _replies(connection: socket.socket, is_lost: Callable[[], bool]) -> Iterator[_Reply | None]:
    """What the replica says; None whenever it has said nothing for a moment."""
    reader = FrameReader()
    while True:
        try:
            data = connection.recv(RECEIVE_BYTES)
        except TimeoutError:
            if is_lost():
                return
            yield None
            continue
        except OSError:
            return
        if not data:
            return
        for raw in reader.frames(data):
            said = decoded_said(raw)
            if isinstance(said, _Reply):  # what else it offers is for gateways
                yield said


def _next(replies: Iterator[_Reply | None], until_s: float, model: Published) -> _Reply:
    for reply in replies:
        if reply is not None:
            return reply
        if time.monotonic() >= until_s:
            raise _failed(model, "it says nothing")
    raise _failed(model, "its process ended")


def _failed(model: Published, why: str) -> UnavailableError:
    return UnavailableError(
        "serve.replica",
        f"a replica of {model.name}:{model.version} does not come up: {why}",
        hint="what it wrote stands above",
    )
