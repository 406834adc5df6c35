"""Texts and streams walk the same table: nothing leaves unrecorded, and every end is recorded."""

import asyncio
import json
import os
import struct

import pytest

from modelkeep.core.call_record import CallRecord, IntentRecord, decoded_record
from modelkeep.core.errors import IntegrityError, UnavailableError
from modelkeep.core.text import Message, TextKind, TextRequest, decoded_request
from modelkeep.flows.call import Arrival, Rendered, Reply, Served
from modelkeep.flows.converse import ANSWER_CHARS_MAX, converse, opened
from modelkeep.flows.serve import Serving
from modelkeep.gate.authn import Keyring, new_token
from modelkeep.gate.passage import Stage
from modelkeep.gate.settings import GateSettings
from modelkeep.gate.traffic import ModelTable
from modelkeep.kernels.digest import keyed_id
from modelkeep.kernels.replica_frames import Piece, TextEnd

KEY = bytes(32)
BODY = b'{"messages": ["hello"]}'
CHAT = TextRequest(
    kind=TextKind.CHAT, messages=(Message(role="user", content="hello"),), max_tokens=9
)
PIECES = (Piece(1, 0, "good ", 1), Piece(1, 0, "day", 2))
END = TextEnd(1, ("stop",), 4, 3)


class World:
    """Replica, journal, clock, meters and limits of one test; says in which order it was asked."""

    name = "journal-0"
    now = 10**18

    def __init__(self):
        self.order = []
        self.frames = []
        self.said = [*PIECES, END]
        self.fails_at = None
        self.tickets = []

    def now_ns(self):
        return self.now

    random_bytes = staticmethod(os.urandom)

    async def record(self, frame):
        kind = type(decoded_record(frame)).__name__
        if self.fails_at == kind:
            raise UnavailableError("journal.write", "the disk is full")
        await asyncio.sleep(0)
        self.frames.append(frame)
        self.order.append(kind)
        return len(self.frames) - 1

    async def talk(self, _model, _version, request):
        self.asked = decoded_request(request)
        try:
            for frame in self.said:
                await asyncio.sleep(0)
                if isinstance(frame, Exception):
                    raise frame
                yield frame
        finally:
            self.order.append("replica is over")

    def ready_count(self, _model, _version):
        return 1

    def call(self, **_counted):
        pass

    def refusal(self, _reason):
        pass

    async def enter(self, _principal, _model, _address, *, size_bytes, tokens=0):
        self.tickets.append({"size": size_bytes, "reserved": tokens})
        return self

    def leave(self, *, tokens=0, size_bytes=0):
        assert "used" not in self.tickets[-1], "a ticket is given back once"
        self.tickets[-1] |= {"used": tokens, "sent": size_bytes}


class Work:
    """A protocol of plain text."""

    body = BODY

    def __init__(self, request=CHAT):
        self.request = request

    def render(self, _served, answer):
        return Rendered(json.dumps([answer.texts, answer.vectors]).encode())

    def part(self, _served, piece):
        return piece.text.encode()

    def last(self, _served, answer):
        return b"|" + answer.reasons[0].encode()

    def tail(self, receipt):
        return b"|" + receipt.encode()

    def broken(self, error):
        return b"!" + error.code.encode()


def made(world):
    served = Served("talker", 1, None)
    serving = Serving(
        table=ModelTable([served], {"talker": 1}),
        replicas=world,
        log=world,
        meters=world,
        settings=GateSettings(),
        clock=world,
        entropy=world,
        commitment_key=KEY,
    )
    serving.limits = world
    text, token = new_token(world, principal="anna", scopes=("infer:talker",))
    serving.keyring = Keyring([token])
    trace = b"00-" + b"ab" * 16 + b"-" + b"cd" * 8 + b"-01"
    call = serving.known(Arrival(b"Bearer " + text.reveal(), trace=trace))
    return serving, serving.permitted(call, "talker", None), call


def streamed(world, work=None, *, stop_after=None):
    """What leaves, and the order of everything."""

    async def run():
        serving, served, call = made(world)
        stream = await opened(serving, call, served, work or Work())
        if isinstance(stream, Reply):
            return serving, call, stream
        parts = []
        source = stream.parts()
        async for part in source:
            world.order.append(part)
            parts.append(part)
            if len(parts) == stop_after:
                await source.aclose()
                break
        return serving, call, parts

    return asyncio.run(run())


def test_a_streams_intent_is_durable_before_its_first_part_and_its_record_before_its_last():
    world = World()
    serving, call, parts = streamed(world)
    assert world.order == [
        "IntentRecord", b"good ", b"day", "CallRecord", b"|stop|journal-0:1", "replica is over",
    ]  # fmt: skip
    intent, record = map(decoded_record, world.frames)
    assert isinstance(intent, IntentRecord)
    assert isinstance(record, CallRecord)
    assert intent.call_id == record.call_id
    assert intent.nonce != record.nonce
    assert (record.status, record.code, record.tokens_in, record.tokens_out) == (200, "", 4, 3)
    assert record.trace == intent.trace == b"\xab" * 16
    assert record.input_commitment == keyed_id(KEY, record.nonce + BODY)
    assert record.output_commitment == keyed_id(KEY, record.nonce + b"good day|stop")
    assert world.tickets == [{"size": len(BODY), "reserved": 9 + len(BODY), "used": 7, "sent": 8}]
    assert (serving.in_flight, call.passage.stage) == (0, Stage.RECORDED)
    assert world.asked == CHAT
    assert b"".join(parts).endswith(b"journal-0:1")


def test_an_error_before_the_first_piece_is_an_ordinary_refusal():
    world = World()
    world.said = [UnavailableError("gate.no_replica", "none")]
    serving, call, reply = streamed(world)
    assert (reply.error.code, reply.rendered) == ("gate.no_replica", None)
    assert [type(decoded_record(frame)) for frame in world.frames] == [IntentRecord, CallRecord]
    assert call.passage.stage is Stage.RECORDED
    assert serving.in_flight == 0
    assert world.tickets[-1]["used"] == 0


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ([PIECES[0], UnavailableError("gate.replica_lost", "gone")], "gate.replica_lost"),
        ([PIECES[0]], "answer.form"),
        ([PIECES[0], Piece(1, 1, "another's", 1), END], "answer.form"),
        ([PIECES[0], Piece(1, 0, "x", -1), END], "answer.form"),
        ([PIECES[0], TextEnd(1, ("because",), 1, 1)], "answer.form"),
        ([PIECES[0], TextEnd(1, (), 1, 1)], "answer.form"),
        ([PIECES[0], TextEnd(1, ("stop",), -1, 1)], "answer.form"),
        ([PIECES[0], TextEnd(1, ("stop",), 1, 1, (memoryview(bytes(4)),))], "answer.form"),
    ],
)
def test_a_stream_that_fails_says_so_and_is_recorded_before(said, code):
    world = World()
    world.said = said
    serving, call, parts = streamed(world)
    assert parts == [b"good ", b"!" + code.encode()]
    record = decoded_record(world.frames[-1])
    assert record.code == code
    assert record.output_commitment == keyed_id(KEY, record.nonce + b"".join(parts))
    assert world.order.index("CallRecord") < world.order.index(parts[-1])
    assert (serving.in_flight, call.passage.stage) == (0, Stage.RECORDED)


def test_a_caller_that_leaves_ends_the_work_and_is_recorded():
    world = World()
    serving, call, parts = streamed(world, stop_after=1)
    assert parts == [b"good "]
    record = decoded_record(world.frames[-1])
    assert (record.status, record.code) == (499, "client.gone")
    assert record.output_commitment == keyed_id(KEY, record.nonce + b"good ")
    assert "replica is over" in world.order
    asked = -(-len(BODY) // 4)
    assert world.tickets[-1]["used"] == asked + 1, "the question and what was generated"
    assert (record.tokens_in, record.tokens_out) == (asked, 1)
    assert serving.in_flight == 0
    del call


def test_without_a_durable_intent_nothing_leaves():
    world = World()
    world.fails_at = "IntentRecord"
    with pytest.raises(UnavailableError, match="the disk is full"):
        streamed(world)
    assert not [each for each in world.order if isinstance(each, bytes)]


def test_without_a_durable_record_the_last_part_does_not_leave():
    world = World()
    world.fails_at = "CallRecord"
    with pytest.raises(UnavailableError, match="the disk is full"):  # so the connection breaks
        streamed(world)
    assert [each for each in world.order if isinstance(each, bytes)] == [b"good ", b"day"]
    assert world.tickets[-1]["used"] == 7


def test_a_whole_answer_is_recorded_before_there_is_a_reply():
    world = World()

    async def run():
        serving, served, call = made(world)
        return serving, await converse(serving, call, served, Work())

    serving, reply = asyncio.run(run())
    assert json.loads(reply.rendered.body) == [["good day"], []]
    record = decoded_record(world.frames[reply.position])
    assert record.output_commitment == keyed_id(KEY, record.nonce + reply.rendered.body)
    assert (record.tokens_in, record.tokens_out) == (4, 3)
    assert world.tickets[-1]["used"] == 7
    assert serving.in_flight == 0


def test_vectors_are_checked_and_no_text_comes_with_them():
    world = World()
    vectors = tuple(memoryview(struct.pack("<2f", *pair)) for pair in ((1, 2), (3, 4)))
    world.said = [TextEnd(1, (), 5, 0, vectors)]
    ask = TextRequest(kind=TextKind.EMBEDDING, prompts=("a", "b"))

    async def run():
        serving, served, call = made(world)
        return await converse(serving, call, served, Work(ask))

    assert json.loads(asyncio.run(run()).rendered.body) == [[], [[1, 2], [3, 4]]]
    for wrong in (
        (vectors[0],),
        (vectors[0], memoryview(bytes(12))),
        (vectors[0], memoryview(bytes(7))),
        (vectors[0], memoryview(struct.pack("<2f", 1, float("nan")))),
    ):
        world.said = [TextEnd(1, (), 5, 0, wrong)]
        assert isinstance(asyncio.run(run()).error, IntegrityError)
    world.said = [Piece(1, 0, "text", 1), TextEnd(1, (), 5, 0, vectors)]
    assert asyncio.run(run()).error.code == "answer.form"


def test_an_answer_without_end_is_cut_off():
    world = World()
    world.said = [Piece(1, 0, "x" * (ANSWER_CHARS_MAX // 2 + 1), 1)] * 2 + [END]
    _, _, parts = streamed(world)
    assert parts[-1] == b"!answer.form"


def test_a_stream_ends_when_its_key_is_revoked():
    world = World()

    async def run():
        serving, served, call = made(world)
        stream = await opened(serving, call, served, Work())
        parts = stream.parts()
        found = [await anext(parts)]
        serving.keyring = Keyring(())
        return found + [part async for part in parts]

    assert asyncio.run(run()) == [b"good ", b"!auth.invalid"]
    record = decoded_record(world.frames[-1])
    assert (record.status, record.code, record.tokens_out) == (401, "auth.invalid", 3)
    assert "replica is over" in world.order
