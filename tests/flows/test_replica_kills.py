"""Replicas are killed and stopped at random under half of the highest load: no request fails.

Goal: bar 2 of the gateway. Method: a real gateway over TLS with two replicas, clients that keep
their connections; first as fast as they can, which says the highest rate, then at half of it while
a replica is killed (and started again, as a supervisor does) or stopped for up to two seconds.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import time

import pytest
import uvloop
from gateway_world import started
from replica_scenes import doubling_model

from modelkeep.core.artifact import Port, Schema
from modelkeep.gate.settings import GateSettings

pytestmark = pytest.mark.slow
CONNECTIONS = 16
SCHEMA = Schema(
    inputs=(Port(name="x", dtype="FP32", shape=(-1, 64)),),
    outputs=(Port(name="y", dtype="FP32", shape=(-1, 64)),),
)


@pytest.fixture
def world(tmp_path):
    running = started(
        tmp_path / "keep",
        model=doubling_model(),
        schema=SCHEMA,
        settings=GateSettings(call_timeout_s=10.0),
    )
    running.wait_ready()
    yield running
    for process in running.replicas:
        process.popen.send_signal(signal.SIGCONT)
    running.stop()


def request(world):
    """One call, as bytes."""
    given = {"name": "x", "shape": [1, 64], "datatype": "FP32", "data": [1.0] * 64}
    body = json.dumps({"inputs": [given]}).encode()
    head = (
        f"POST /v2/models/digits/infer HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {world.key}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def answered(reader):
    """The status of the next answer, which is read to its end."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    await reader.readexactly(length)
    return int(head[9:12])


async def calling(world, statuses, *, ends_s, per_s):
    """One client with one connection; `per_s` 0 for as fast as it can."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", world.port, ssl=world.context(), server_hostname="127.0.0.1"
    )
    raw, number, started_s = request(world), 0, time.monotonic()
    while (now_s := time.monotonic()) < ends_s:
        due_s = started_s + number / per_s if per_s else now_s
        if due_s > now_s:
            await asyncio.sleep(due_s - now_s)
        number += 1
        writer.write(raw)
        statuses.append(await answered(reader))
    writer.close()
    await writer.wait_closed()


async def load(world, seconds, *, per_s=0.0):
    """The statuses of all calls of some seconds."""
    statuses, ends_s = [], time.monotonic() + seconds
    share = per_s / CONNECTIONS
    clients = (calling(world, statuses, ends_s=ends_s, per_s=share) for _ in range(CONNECTIONS))
    await asyncio.gather(*clients)
    return statuses


async def harm(world, chance, ends_s):
    """Kill or stop one replica after the other."""
    harmed = 0
    while time.monotonic() < ends_s:
        process = chance.choice(world.replicas)
        if chance.random() < 0.6:
            await asyncio.to_thread(process.kill)
            await asyncio.sleep(chance.uniform(0, 0.1))
            process.start()
        else:
            process.popen.send_signal(signal.SIGSTOP)
            await asyncio.sleep(chance.uniform(0, 2.0))
            process.popen.send_signal(signal.SIGCONT)
        harmed += 1
        await asyncio.sleep(chance.uniform(0.1, 1.0))
    return harmed


@pytest.mark.verify("replica-kills")
def test_no_request_fails_while_replicas_are_killed_and_stopped(world, count, record_property):
    seconds = count(3, full=60)
    seed = count(11, full=int(time.time()))

    async def scene():
        best = len(await load(world, count(1, full=5))) / count(1, full=5)
        chance = random.Random(seed)  # noqa: S311 - it only chooses whom to kill
        harming = asyncio.create_task(harm(world, chance, time.monotonic() + seconds - 0.5))
        statuses = await load(world, seconds, per_s=best / 2)
        return best, statuses, await harming

    best, statuses, harmed = uvloop.run(scene())
    failed = [each for each in statuses if each != 200]
    for name, value in (("per_s_max", best), ("calls", len(statuses)), ("harmed", harmed)):
        record_property(name, value)
    assert not failed, (seed, len(statuses), failed[:10])
    assert harmed
