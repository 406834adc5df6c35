"""The passage of a call, with replicas and journal in the test's hands."""

import asyncio
import itertools
import json
import os
import struct

import pytest

from modelkeep.core.artifact import Port, Schema
from modelkeep.core.call_record import CallRecord, RefusalSummary, decoded_record
from modelkeep.core.errors import MissingError, RefusedError, UnavailableError, UsageError
from modelkeep.core.policy import Output, Policy
from modelkeep.core.rows import Domain, DomainStatus
from modelkeep.flows.call import Arrival, Served
from modelkeep.flows.serve import SUMMARIES_PER_S_MAX, Serving
from modelkeep.gate.authn import Keyring, new_token
from modelkeep.gate.domains import KnownDomains
from modelkeep.gate.passage import Stage
from modelkeep.gate.schema import SchemaCheck
from modelkeep.gate.settings import GateSettings
from modelkeep.gate.traffic import ModelTable
from modelkeep.kernels.digest import keyed_id
from modelkeep.kernels.replica_frames import AnswerFrame
from modelkeep.web.v2_answers import JsonWork

SCHEMA = Schema(
    inputs=(Port(name="x", dtype="INT8", shape=(-1,)),),
    outputs=(Port(name="y", dtype="INT8", shape=(-1,)),),
)
FLOATS = Schema(inputs=SCHEMA.inputs, outputs=(Port(name="y", dtype="FP64", shape=(2,)),))
BODY = json.dumps(
    {"inputs": [{"name": "x", "shape": [2], "datatype": "INT8", "data": [1, 2]}]}
).encode()
KEY = b"k" * 32


class World:
    """Clock, entropy, replicas, journal and meters of one gateway, all in memory."""

    name = "g"

    def __init__(self):
        self.now = 10**18
        self.numbers = itertools.count()
        self.frames = []
        self.order = []
        self.counted = []
        self.journal_fails = False
        self.answer = AnswerFrame(1, ((2,),), (memoryview(b"\3\4"),))

    def now_ns(self):
        return self.now

    def monotonic_ns(self):
        return self.now

    def random_bytes(self, count):
        return bytes(next(self.numbers) % 256 for _ in range(count))

    async def ask(self, _model, _version, _inputs, *, timeout_s=None):
        self.timeout_s = timeout_s
        self.order.append("ask")
        return self.answer

    def ready_count(self, _model, _version):
        return 1

    async def record(self, frame):
        self.order.append("record")
        await asyncio.sleep(0)
        if self.journal_fails:
            raise UnavailableError("journal.write", "the disk is full")
        self.frames.append(frame)
        self.order.append("durable")
        return len(self.frames) - 1

    def call(self, **counted):
        self.counted.append(counted)

    def refusal(self, reason):
        self.counted.append(reason)


def made():
    world = World()
    served = Served("m", 1, SchemaCheck(SCHEMA))
    serving = Serving(
        table=ModelTable([served], {"m": 1}),
        replicas=world,
        log=world,
        meters=world,
        settings=GateSettings(calls_in_flight_max=2),
        clock=world,
        entropy=world,
        commitment_key=KEY,
    )
    text, token = new_token(world, principal="anna", scopes=("infer:m",))
    serving.keyring = Keyring([token])
    call = serving.known(Arrival(b"Bearer " + text.reveal()))
    return world, serving, served, call


def test_an_answer_exists_only_after_its_record_is_durable():
    world, serving, served, call = made()
    assert serving.permitted(call, "m", None) is served
    reply = asyncio.run(serving.answer(call, served, JsonWork(BODY, None)))
    assert world.order == ["ask", "record", "durable"]
    assert call.passage.stage is Stage.RECORDED
    assert json.loads(reply.rendered.body)["outputs"][0]["data"] == [3, 4]
    record = decoded_record(world.frames[reply.position])
    assert isinstance(record, CallRecord)
    assert (record.principal, record.model, record.version, record.status) == ("anna", "m", 1, 200)
    assert record.input_commitment == keyed_id(KEY, record.nonce + BODY)
    assert record.output_commitment == keyed_id(KEY, record.nonce + reply.rendered.body)


def test_when_the_journal_fails_nothing_of_the_answer_leaves():
    world, serving, served, call = made()
    world.journal_fails = True
    with pytest.raises(UnavailableError) as raised:
        asyncio.run(serving.answer(call, served, JsonWork(BODY, None)))
    assert raised.value.code == "journal.write"
    assert call.passage.stage is Stage.LOST
    assert serving.in_flight == 0


@pytest.mark.parametrize(
    ("body", "answer", "code", "status"),
    [
        (b"{", None, "schema.json", 400),
        (BODY, AnswerFrame(1, ((2,),), (memoryview(b"\3"),)), "answer.form", 502),
    ],
)
def test_refusals_after_authentication_are_recorded(body, answer, code, status):
    world, serving, served, call = made()
    world.answer = answer
    reply = asyncio.run(serving.answer(call, served, JsonWork(body, None)))
    assert (reply.error.code, reply.rendered) == (code, None)
    record = decoded_record(world.frames[reply.position])
    assert (record.status, record.code, record.output_commitment) == (status, code, b"")


def test_a_call_past_the_bound_is_refused():
    world, serving, served, call = made()
    serving.in_flight = 2
    reply = asyncio.run(serving.answer(call, served, JsonWork(BODY, None)))
    assert reply.error.code == "gate.busy"
    assert "ask" not in world.order


@pytest.mark.parametrize(
    ("parameters", "left_s"), [({}, None), ({"timeout": 5000}, 0.003), ({"timeout": 1000}, 0.0)]
)
def test_a_call_gets_what_is_left_of_its_own_time(parameters, left_s):
    world, serving, served, call = made()
    world.now += 2_000_000
    body = json.dumps(json.loads(BODY) | {"parameters": parameters}).encode()
    assert asyncio.run(serving.answer(call, served, JsonWork(body, None))).error is None
    assert world.timeout_s == left_s


def test_no_two_calls_share_a_nonce_or_an_id():
    world, serving, served, _ = made()
    world.random_bytes = os.urandom
    text, token = new_token(world, principal="anna", scopes=("infer:*",))
    serving.keyring = Keyring([token])

    async def many():
        for _ in range(200):
            call = serving.known(Arrival(b"Bearer " + text.reveal()))
            await serving.answer(call, served, JsonWork(BODY, None))

    asyncio.run(many())
    records = [decoded_record(frame) for frame in world.frames]
    assert len({record.nonce for record in records}) == 200
    assert len({record.call_id for record in records}) == 200
    assert {(len(record.nonce), len(record.call_id)) for record in records} == {(16, 8)}


def test_refusals_before_authentication_are_bounded_summaries():
    world, serving, _, _ = made()
    error = UsageError("auth.invalid", "no")
    for number in range(1000):
        reply = serving.turn_away(error, f"10.{number // 250}.{number % 250}.1")
        assert (reply.position, reply.error) == (-1, error)
    for _ in range(5):
        serving.turn_away(error, "10.0.0.7")
    asyncio.run(serving.summarise())
    records = [decoded_record(frame) for frame in world.frames]
    assert len(records) == SUMMARIES_PER_S_MAX + 1
    assert all(isinstance(record, RefusalSummary) for record in records)
    assert sum(record.count for record in records) == 1005
    assert {r.prefix: r.count for r in records}["10.0.0.0/24"] == 6
    assert {r.prefix: r.count for r in records}["others"] == 1000 - SUMMARIES_PER_S_MAX


def test_a_model_whose_domain_was_revoked_is_refused_and_comes_back():
    world, serving, served, call = made()
    del world
    revoked = Domain(name="default", tenant="default", status=DomainStatus.REVOKED)
    serving.domains = KnownDomains([revoked])
    with pytest.raises(RefusedError) as refused:
        serving.permitted(call, "m", None)
    assert (refused.value.code, refused.value.http_status) == ("key.revoked", 403)
    serving.domains = KnownDomains()
    assert serving.permitted(call, "m", None) is served


def test_a_model_of_another_tenant_looks_like_one_that_is_not_there():
    world, serving, _, _ = made()
    text, token = new_token(world, principal="anna", scopes=("infer:*",))
    serving.keyring = Keyring([token])
    serving.domains = KnownDomains([Domain(name="default", tenant="acme")])
    words = set()
    for name in ("m", "n"):
        with pytest.raises(MissingError) as missing:
            serving.permitted(serving.known(Arrival(b"Bearer " + text.reveal())), name, None)
        words.add(str(missing.value).replace(f": {name}", ""))
    assert len(words) == 1


def under(policy):
    world, serving, _, call = made()
    served = Served("m", 1, SchemaCheck(FLOATS), policy=policy)
    serving.table = ModelTable([served], {"m": 1})
    world.answer = AnswerFrame(1, ((2,),), (memoryview(struct.pack("<2d", 1.2345, 6.789)),))
    return world, serving, served, call


def test_a_model_answers_until_its_time_is_over_and_not_from_then_on():
    policy = Policy(not_after_ns=10**18 + 5)
    world, serving, served, call = under(policy)
    assert serving.permitted(call, "m", None) is served
    world.now = policy.not_after_ns - 1
    call.arrived_ns = world.now
    assert serving.permitted(call, "m", 1) is served
    call.arrived_ns = policy.not_after_ns
    with pytest.raises(RefusedError) as refused:
        serving.permitted(call, "m", 1)
    assert (refused.value.code, refused.value.http_status) == ("policy.expired", 403)


@pytest.mark.parametrize(
    ("policy", "left"),
    [
        (Policy(), [1.2345, 6.789]),
        (Policy(output=Output.ROUNDED, decimals=1), [1.2, 6.8]),
        (Policy(output=Output.LABELS), [0.0, 1.0]),
    ],
)
def test_what_is_recorded_and_sent_is_what_the_policy_left(policy, left):
    world, serving, served, call = under(policy)
    reply = asyncio.run(serving.answer(call, served, JsonWork(BODY, None)))
    assert json.loads(reply.rendered.body)["outputs"][0]["data"] == left
    record = decoded_record(world.frames[reply.position])
    assert record.output_commitment == keyed_id(KEY, record.nonce + reply.rendered.body)


def test_a_call_whose_policy_cannot_be_computed_is_recorded_and_nothing_leaves():
    # As an older keep may hold it: nobody is let in with such a policy any more.
    world, serving, served, call = under(Policy(output=Output.ROUNDED, decimals=400))
    with pytest.raises(OverflowError):
        asyncio.run(serving.answer(call, served, JsonWork(BODY, None)))
    record = decoded_record(world.frames[-1])
    assert (record.status, record.code) == (500, "serve.internal")
    assert record.output_commitment == b""
    assert call.passage.stage is Stage.RECORDED
    assert serving.in_flight == 0
