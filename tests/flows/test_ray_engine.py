"""Replicas in a Ray cluster: nodes die under load, and no request fails.

Goal: bar 3 of the gateway. Method: `./run verify ray` makes an environment with Ray, starts three
real nodes and `modelkeep serve --engine ray`, and kills a node that serves. What needs no Ray is
tested everywhere: the bridge, with replicas in processes of their own in Ray's place.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from command import Desk, Process, wait_until
from hypothesis import given
from hypothesis import strategies as st
from load import Callers
from ray_stand_in import StandIn
from ray_world import Nodes, ray_python
from replica_scenes import ROW_SCHEMA, doubling_model, row

from modelkeep.adapters.replica_pool import ReplicaPool
from modelkeep.core.errors import IntegrityError, UnavailableError
from modelkeep.core.record import to_json
from modelkeep.crypto.secret import Secret
from modelkeep.kernels.replica_frames import CallFrame, FaultFrame
from modelkeep.kernels.wire import Tensor
from modelkeep.workers import ray_replica
from modelkeep.workers.plan import RayModel, RayPlan
from modelkeep.workers.ray_bridge import Bridge, delivered
from modelkeep.workers.ray_replica import (
    RayReplica,
    opened_calls,
    opened_parts,
    opened_replies,
    sealed_calls,
    sealed_parts,
)

KEY = Secret(bytes(range(32)))
OTHER_KEY = Secret(bytes(32))
WEIGHTS = doubling_model()
WEIGHTS_BYTES = len(WEIGHTS)


def model_of(size_bytes=WEIGHTS_BYTES, **more):
    facts = {"batchable": True, "batch_rows_max": 64, "threads": 1, **more}
    return RayModel(model="digits", version=1, schema=ROW_SCHEMA, size_bytes=size_bytes, **facts)


def call(number, values):
    array = np.atleast_2d(np.asarray(values, np.float32))
    return CallFrame(number, (array.shape,), (memoryview(array.tobytes()),))


# ---- what leaves this machine -------------------------------------------------------------------


def test_weights_leave_sealed_and_come_back_whole(monkeypatch):
    monkeypatch.setattr(ray_replica, "PART_BYTES", 1000)
    weights = bytes(np.random.default_rng(7).bytes(2500))
    model = model_of(2500)
    parts = list(sealed_parts(KEY, memoryview(weights), model))
    assert [len(each) for each in parts] == [1016, 1016, 516]
    assert not any(weights[at : at + 16] in b"".join(parts) for at in range(0, 2500, 16))
    memory = opened_parts(KEY, map(memoryview, parts), model)
    fd = memory.sealed()
    assert os.pread(fd, 3000, 0) == weights
    with pytest.raises(OSError, match="not permitted"):
        os.write(fd, b"x")
    memory.wiped()


@pytest.mark.parametrize(
    "harm",
    [
        lambda parts: parts[:-1],
        lambda parts: [*parts, parts[-1]],
        lambda parts: [parts[1], parts[0], parts[2]],
        lambda parts: [bytes([parts[0][0] ^ 1]) + parts[0][1:], *parts[1:]],
        lambda parts: [parts[0][:-1], *parts[1:]],
        lambda parts: [b"", *parts[1:]],
        lambda _: [],
    ],
)
def test_weights_that_were_changed_on_the_way_do_not_open(harm, monkeypatch):
    monkeypatch.setattr(ray_replica, "PART_BYTES", 1000)
    model = model_of(2500)
    parts = list(sealed_parts(KEY, memoryview(bytes(2500)), model))
    with pytest.raises(IntegrityError):
        opened_parts(KEY, map(memoryview, harm(parts)), model)


def test_weights_open_under_their_key_and_for_their_version_only():
    parts = list(sealed_parts(KEY, memoryview(WEIGHTS), model_of()))
    other = RayModel(**{**{f: getattr(model_of(), f) for f in model_of().__struct_fields__},
                        "version": 2})  # fmt: skip
    for key, model in ((OTHER_KEY, model_of()), (KEY, other)):
        with pytest.raises(IntegrityError, match="authenticate"):
            opened_parts(key, map(memoryview, parts), model)


@given(raw=st.binary(max_size=300))
def test_a_batch_that_is_not_ours_is_refused_whatever_it_is(raw):
    for opened in (opened_calls, opened_replies):
        with pytest.raises(IntegrityError):
            opened(KEY, raw)


def test_calls_leave_sealed_and_no_two_batches_look_alike():
    calls = [call(1, [1.0, 2.0, 3.0, 4.0])]
    first, second = sealed_calls(KEY, calls), sealed_calls(KEY, calls)
    assert first != second
    assert bytes(calls[0].tensors[0]) not in first
    assert opened_calls(KEY, first) == tuple(calls)
    with pytest.raises(IntegrityError):
        opened_replies(KEY, first)  # a batch of calls is none of replies


# ---- the actor, without Ray ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def actor():
    parts = [memoryview(each) for each in sealed_parts(KEY, memoryview(WEIGHTS), model_of())]
    return RayReplica(to_json(model_of()), KEY.reveal(), parts)


def test_a_batch_of_many_forms_is_answered_call_by_call_in_order(actor):
    asked = [call(7, [[1, 2]]), call(8, [[3, 4]]), call(9, [[1, 2, 3]]), call(7, [[5, 6], [7, 8]])]
    asked.insert(2, CallFrame(4, ((2, 2),), (memoryview(b"short"),)))
    replies = opened_replies(KEY, actor.answer(sealed_calls(KEY, asked)))
    assert [each.number for each in replies] == [7, 8, 4, 9, 7]
    assert isinstance(replies[2], FaultFrame)
    assert replies[2].code == "frame.form"
    for each, reply in zip(asked, replies, strict=True):
        if not isinstance(reply, FaultFrame):
            twice = 2 * np.frombuffer(each.tensors[0], np.float32)
            assert np.array_equal(np.frombuffer(reply.tensors[0], np.float32), twice)
            assert reply.shapes == each.shapes


# ---- asking again -------------------------------------------------------------------------------


class Handle:
    """Answers as told: a value, an error, or silence."""

    def __init__(self, *script):
        self.script = list(script)
        self.asked = 0

    async def ask(self, _blob):
        self.asked += 1
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if step is None:
            await asyncio.Event().wait()
        if isinstance(step, Exception):
            raise step
        return step


def delivered_by(handle, wait_s=5.0):
    async def scene():
        until_s = asyncio.get_running_loop().time() + wait_s
        return await delivered(handle, b"", until_s=until_s, hedge_s=0.05)

    return asyncio.run(scene())


def test_a_batch_is_asked_again_until_somebody_answers():
    lost = UnavailableError("ray.lost", "gone")
    handle = Handle(lost, lost, lost, b"here")
    assert delivered_by(handle) == b"here"
    assert handle.asked == 4


def test_a_silent_replica_does_not_hold_a_batch():
    handle = Handle(None, b"here")
    assert delivered_by(handle) == b"here"


def test_what_nobody_answers_ends_at_its_deadline():
    handle = Handle(None)
    with pytest.raises(UnavailableError, match="in time"):
        delivered_by(handle, 0.3)
    assert 3 <= handle.asked <= 7


# ---- the bridge, with processes in Ray's place --------------------------------------------------


@contextlib.asynccontextmanager
async def bridged(folder: Path) -> AsyncIterator[tuple[ReplicaPool, StandIn]]:
    """A gateway's pool, a bridge and two replicas."""
    parts = sealed_parts(KEY, memoryview(WEIGHTS), model_of())
    stand_in = StandIn(to_json(model_of()), KEY.reveal(), parts, replicas=2)
    await stand_in.start()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(folder / "bridge.sock"))
    listening.listen(16)
    plan = RayPlan(
        name="test", model=model_of(), model_fd=-1, listen_fd=listening.detach(), lifeline_fd=-1,
        replicas=2, call_timeout_s=10.0,
    )  # fmt: skip
    over = asyncio.Event()
    serving = asyncio.create_task(Bridge(plan, KEY, stand_in).run(over))
    pool = ReplicaPool(folder, call_timeout_s=10.0, complain=lambda _: None)
    pool.add("digits", 1, ["bridge.sock"])
    try:
        async with asyncio.timeout(20):
            while not pool.ready_count("digits", 1):  # noqa: ASYNC110 - as a gateway's clients do
                await asyncio.sleep(0.01)
        yield pool, stand_in
    finally:
        pool.close()
        over.set()
        await serving
        await stand_in.end()


def test_calls_pass_the_bridge_together_and_survive_the_loss_of_a_replica(tmp_path):
    async def scene():
        async with bridged(tmp_path) as (pool, stand_in):
            values = [[float(at), 2.0] for at in range(400)]
            asked = [pool.ask("digits", 1, row(each)) for each in values[:200]]
            first = await asyncio.gather(*asked)
            before = len(stand_in.blobs)
            asked = [pool.ask("digits", 1, row(each)) for each in values[200:]]
            stand_in.processes[0].kill()
            answers = [*first, *await asyncio.gather(*asked)]
            bad = pool.ask("digits", 1, (Tensor("x", "FP32", (1, 9), b"short"),))
            with pytest.raises(UnavailableError, match=r"runtime\.failed"):
                await bad
            return values, answers, before, b"".join(stand_in.blobs)

    values, answers, batches, blobs = asyncio.run(scene())
    got = [np.frombuffer(each.tensors[0], np.float32).tolist() for each in answers]
    assert got == [[2 * first, 2 * second] for first, second in values]
    assert batches < 100  # 200 calls
    assert np.float32([399.0, 2.0]).tobytes() not in blobs


# ---- with Ray -----------------------------------------------------------------------------------


@pytest.fixture
def nodes(count):
    if not count(0, full=1):
        pytest.skip("needs an environment of 500 MB: ./run verify ray")
    folder = Path(tempfile.mkdtemp(prefix="ray"))  # its sockets' names are long
    made = Nodes(ray_python(), folder, workers=2)
    yield made
    made.end()
    shutil.rmtree(folder, ignore_errors=True)


def replicas_of(nodes):
    return nodes.asked("serving")["serving"]


@pytest.mark.slow
@pytest.mark.verify("ray")
def test_no_request_fails_when_a_node_that_serves_is_killed_and_it_is_replaced(nodes, tmp_path):
    desk = Desk.made(tmp_path / "desk")
    desk.configure("[objectives]", f'[ray]\naddress = "{nodes.address}"\n\n[objectives]')
    desk.admit(1)
    key = desk.json("tokens", "new", "alice", "--scope", "infer:*")["api_key"]
    serving = Process(*desk.words("serve", "--engine", "ray", "--json"), python=str(ray_python()))
    try:
        url = serving.event("ready")["url"]
        before = replicas_of(nodes)
        assert sorted(len(each) for each in before.values()) == [1, 1]
        with Callers(url, desk.keep / "ca.pem", key, count=8) as callers:
            callers.wait(300, wait_s=60)
            victim, old = next(iter(before.items()))
            assert nodes.asked("kill", victim)["killed"] >= 2
            callers.wait(1000, wait_s=60)
            wait_until(lambda: _all(replicas_of(nodes)) - set(old) - _all(before), 90)
            callers.wait(300, wait_s=60)
        print(f"{callers.done} calls, {len(callers.failed)} failed")  # noqa: T201 - the figure
        assert callers.failed == []
        assert len(_all(replicas_of(nodes))) == 2
        assert _not_on_disk(nodes.folder)
    finally:
        serving.clean()
    wait_until(lambda: not replicas_of(nodes), 60)


def _all(serving):
    return {pid for pids in serving.values() for pid in pids}


def _not_on_disk(folder):
    """Nothing that Ray wrote holds a piece of the model."""
    from onnx_models import trained_models  # noqa: PLC0415

    raw = Path(trained_models()[1][0].file).read_bytes()
    pieces = [raw[at : at + 64] for at in range(256, len(raw) - 64, len(raw) // 16)]
    for path in folder.rglob("*"):
        if path.is_file() and any(piece in path.read_bytes() for piece in pieces):
            return False
    return True
