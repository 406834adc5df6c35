"""One language model in one process: reads calls, says many texts at once, piece by piece.

Started as `python -m modelkeep.workers.text_replica --plan-fd N` with an empty environment. Single
threaded but for the threads of the matrix products: between two steps of the model the sockets are
looked at, so a call joins, is cancelled or leaves after one step at the latest.

As `workers.replica` it trusts nobody: frames are bounded, requests are held against their bounds
again, and a gateway that does not read what is said to it is cut off, which cancels its calls. It
holds no key. The model is loaded and tried before the process is locked in: libraries of Python
open files of their own while they load. From then on it opens no file, makes no socket, starts no
process, and a first text is said inside to see that it can. When `lifeline_fd` becomes readable
(the supervisor is gone) it ends.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import NoReturn

from modelkeep.adapters.runtime_text import TextRuntime
from modelkeep.adapters.runtime_text_load import loaded_text, run_on
from modelkeep.adapters.runtime_text_streams import Failed, Said, Spoken
from modelkeep.core.errors import IntegrityError, KeepError
from modelkeep.core.record import replaced
from modelkeep.core.text import Message, TextKind, TextRequest, decoded_request
from modelkeep.kernels.replica_frames import (
    PROTOCOL,
    Cancel,
    FaultFrame,
    Hello,
    Piece,
    TextCall,
    TextEnd,
    decoded_text_call,
    framed,
)
from modelkeep.workers.gateway_links import GatewayLinks, Link
from modelkeep.workers.locked_in import lock_in
from modelkeep.workers.plan import TextReplicaPlan, text_replica_plan

RECEIVE_BYTES = 256 * 1024
# A request is at most a body that a gateway takes, and its JSON.
CALL_BYTES_MAX = 64 * 1024 * 1024
# Text that a gateway has not read: hours of it. Vectors of one call are far less.
UNSENT_BYTES_MAX = 64 * 1024 * 1024
# Said before the service is ready, and once more inside the sandbox.
_FIRST_PROMPT = "The first words of a model that was just started are heard by nobody. " * 8
_FIRST_TOKENS = 3


class _Numbers:
    """What is kept of one gateway: the numbers of its calls."""

    __slots__ = ("numbers",)

    def __init__(self) -> None:
        self.numbers: set[int] = set()

    def received(self, connected: socket.socket) -> bytes:
        """What came."""
        return connected.recv(RECEIVE_BYTES)


_Connection = Link[_Numbers]


class TextReplica:
    """What one language model's replica does."""

    def __init__(self, plan: TextReplicaPlan, runtime: TextRuntime) -> None:
        self._plan = plan
        self._runtime = runtime
        self._links = GatewayLinks(
            self,
            plan.listen_fd,
            frame_bytes_max=CALL_BYTES_MAX,
            unsent_bytes_max=UNSENT_BYTES_MAX,
        )

    def run(self) -> None:
        """Serve until the lifeline breaks."""
        self._links.run(self._plan.lifeline_fd)

    @property
    def is_busy(self) -> bool:
        """Whether anything is to be said."""
        return self._runtime.is_busy

    def met(self, others: int) -> _Numbers:
        """What is kept of a gateway that has connected."""
        del others
        return _Numbers()

    def greeting(self, own: _Numbers) -> bytes:
        """Who we are."""
        del own
        return framed(Hello(PROTOCOL, self._plan.model, self._plan.version))

    def take(self, link: _Connection, raw: memoryview) -> None:
        """Begin a call or forget it, unless its gateway could not be sent to meanwhile."""
        if link.is_open:
            self._take(link, decoded_text_call(raw))

    def closed(self, link: _Connection) -> None:
        """Nobody waits for its calls any more."""
        for number in link.own.numbers:
            self._runtime.cancel((link, number))

    def work(self) -> None:
        """Make one step, and pass on what was said."""
        self._pass_on(self._runtime.step())

    def _take(self, connection: _Connection, frame: TextCall | Cancel) -> None:
        """Begin a call or forget it.

        Raises:
            IntegrityError: `frame.number`, for a number that is in use.
        """
        key = (connection, frame.number)
        if isinstance(frame, Cancel):
            connection.own.numbers.discard(frame.number)
            self._runtime.cancel(key)
            return
        if frame.number in connection.own.numbers:
            raise IntegrityError("frame.number", "a call has the number of another one")
        try:
            self._runtime.ask(key, decoded_request(frame.request))
        except KeepError as error:
            self._links.send(
                connection, framed(FaultFrame(frame.number, error.code, error.message))
            )
            return
        connection.own.numbers.add(frame.number)

    def _pass_on(self, said: Sequence[Said]) -> None:
        """Send what was said, all of one gateway in one write."""
        parts: dict[_Connection, list[bytes]] = {}
        for each in said:
            connection, number = _place_of(each)
            if not connection.is_open:
                continue
            if not isinstance(each, Spoken):
                connection.own.numbers.discard(number)
            parts.setdefault(connection, []).append(framed(_frame(number, each)))
        for connection, frames in parts.items():
            self._links.send(connection, b"".join(frames))


def _place_of(said: Said) -> tuple[_Connection, int]:
    """Whose call it belongs to; `_take` made the key of these."""
    assert isinstance(said.key, tuple)
    connection, number = said.key
    assert isinstance(connection, Link)
    return connection, number


def _frame(number: int, said: Said) -> Piece | TextEnd | FaultFrame:
    if isinstance(said, Spoken):
        return Piece(number, said.choice, said.text, said.tokens)
    if isinstance(said, Failed):
        return FaultFrame(number, said.error.code, said.error.message)
    return TextEnd(
        number,
        said.reasons,
        said.prompt_tokens,
        said.completion_tokens,
        tuple(memoryview(each).cast("B") for each in said.vectors),
    )


def main(arguments: Sequence[str]) -> NoReturn:
    """Read the plan, load the model, serve."""
    parser = argparse.ArgumentParser(prog="modelkeep.workers.text_replica")
    parser.add_argument("--plan-fd", type=int, required=True)
    plan = text_replica_plan(parser.parse_args(arguments).plan_fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's business
    name = f"{plan.model}:{plan.version}"
    try:
        run_on(plan.threads)
        loaded = loaded_text(dict(plan.files))
        runtime = TextRuntime(loaded, streams_max=plan.streams_max, context_max=plan.context_max)
        _say_first_words(runtime)
        lock_in(name, runtime.room_bytes, (plan.listen_fd, plan.lifeline_fd))
        _say_first_words(runtime)
    except KeepError as error:
        hint = f"\nmodelkeep: hint: {error.hint}" if error.hint else ""
        sys.stderr.write(f"modelkeep: error: {name}: {error}{hint}\n")
        sys.exit(error.exit_status)
    TextReplica(plan, runtime).run()
    # Nothing is left to do, and the library's own threads do not end inside the sandbox.
    os._exit(0)


def _say_first_words(runtime: TextRuntime) -> None:
    """Compute what every call needs, once: libraries load more of themselves when first used.

    Raises:
        KeepError: what the model failed with.
    """
    prompt = _FIRST_PROMPT[: 2 * runtime.context_max]
    first = TextRequest(
        kind=TextKind.COMPLETION if runtime.speaks else TextKind.EMBEDDING,
        prompts=(prompt, "A"),
        max_tokens=_FIRST_TOKENS,
        top_p=0.9,
        seed=1,
    )
    asked = [first, replaced(first, kind=TextKind.EMBEDDING)]
    if runtime.has_template:
        turns = (Message(role="user", content="Hello"),)
        asked.append(replaced(first, kind=TextKind.CHAT, prompts=(), messages=turns))
    for number, request in enumerate(asked):
        runtime.ask(number, request)
    while runtime.is_busy:
        for said in runtime.step():
            if isinstance(said, Failed):
                raise said.error


if __name__ == "__main__":
    main(sys.argv[1:])
