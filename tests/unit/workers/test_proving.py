"""A replica is asked before any gateway is told of it: right answers only, and no silence."""

import socket
import threading

import pytest

from modelkeep.core.artifact import Canary, CanaryTensor, Port, Schema
from modelkeep.core.errors import IntegrityError, KeepError, UnavailableError
from modelkeep.core.policy import ANYTHING
from modelkeep.flows.publish import Published
from modelkeep.kernels.link_frames import Offer
from modelkeep.kernels.replica_frames import (
    PROTOCOL,
    AnswerFrame,
    CallFrame,
    FaultFrame,
    FrameReader,
    Hello,
    decoded_call,
    framed,
)
from modelkeep.kernels.wire import packed
from modelkeep.workers.proving import proven

SCHEMA = Schema(
    inputs=(Port(name="x", dtype="FP32", shape=(-1, 2)),),
    outputs=(Port(name="y", dtype="FP32", shape=(-1,)),),
)
CANARY = Canary(
    inputs=(CanaryTensor(name="x", dtype="FP32", shape=(1, 2), values=(1.0, 2.0)),),
    outputs=(CanaryTensor(name="y", dtype="FP32", shape=(1,), values=(3.0,)),),
)
HELLO = framed(Offer(("ping",))) + framed(Hello(PROTOCOL, "m", 1))


def model(canary=CANARY):
    return Published(
        name="m",
        version=1,
        schema=SCHEMA,
        domain="default",
        is_batchable=True,
        is_default=True,
        policy=ANYTHING,
        canary=canary,
    )


def answer(call: CallFrame, value: float) -> bytes:
    return framed(AnswerFrame(call.number, ((1,),), (memoryview(packed("FP32", [value])),)))


@pytest.fixture
def replica(tmp_path):
    """Begins one that says `hello` and then whatever `reply` makes of the call."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "0.sock"))
    listener.listen()
    calls, threads = [], []

    def serve(hello, reply):
        connection, _ = listener.accept()
        with connection:
            connection.sendall(hello)
            reader = FrameReader()
            while data := connection.recv(65536):
                for raw in reader.frames(data):
                    calls.append(decoded_call(raw))
                    said = reply(calls[-1])
                    if not said:
                        return
                    connection.sendall(said)

    def begin(hello, reply):
        threads.append(threading.Thread(target=serve, args=(hello, reply)))
        threads[-1].start()
        return tmp_path

    begin.calls = calls
    yield begin
    listener.close()
    for thread in threads:
        thread.join(10)


def ask(folder, made, *, is_lost=lambda: False, wait_s=5.0):
    proven(folder, "0.sock", made, is_lost=is_lost, wait_s=wait_s)


def test_the_right_answer_to_the_owners_canary_proves_it(replica):
    ask(replica(HELLO, lambda call: answer(call, 3.0)), model())
    (call,) = replica.calls
    assert [bytes(each) for each in call.tensors] == [packed("FP32", [1.0, 2.0])]


@pytest.mark.parametrize(
    "reply",
    [
        lambda call: answer(call, 4.0),
        lambda call: framed(FaultFrame(call.number, "runtime.failed", "no")),
        lambda call: framed(AnswerFrame(call.number, (), ())),
    ],
)
def test_another_answer_is_refused(replica, reply):
    with pytest.raises(IntegrityError) as refused:
        ask(replica(HELLO, reply), model())
    assert refused.value.code == "serve.canary"


def test_without_a_canary_any_answer_will_do(replica):
    fault = lambda call: framed(FaultFrame(call.number, "runtime.failed", "zeros"))  # noqa: E731
    ask(replica(HELLO, fault), model(None))
    assert replica.calls[0].shapes == ((1, 2),)


def test_silence_death_and_a_stranger_are_failures(replica):
    with pytest.raises(UnavailableError, match="ended"):
        ask(replica(HELLO, lambda _: b""), model())
    with pytest.raises(UnavailableError, match="ended"):
        ask(replica(b"", lambda _: b""), model(), is_lost=lambda: True)
    with pytest.raises(UnavailableError, match="says nothing"):
        ask(replica(b"", lambda _: b""), model(), wait_s=0.1)
    with pytest.raises(KeepError, match="another one"):
        ask(replica(framed(Hello(PROTOCOL, "other", 1)), lambda _: b""), model())
