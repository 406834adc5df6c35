"""Clients that mean harm: memory stays bounded, and an honest client hardly notices.

A tenth in CI, which looks at what is done about each attack and at memory; the full run
(`./run verify abuse`) also holds the honest client's p99 to twice what it was.

How that is judged: one client calls without pause, 200 calls make a window, and a window has a p99.
Compared are medians of windows: while the gateway is attacked (from the attack's first second on,
so with the opening of all its connections), and while the same attackers attack another gateway of
the same machine. So what attackers cost by being here, on the two cores that they share with us
and would not share in life, is in both. They and the other gateway are last in line for the cores
(SCHED_IDLE) in both. The p99 without any attack is printed beside them. There is no floor: two
milliseconds may not become five.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import logging
import resource
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from gateway_attacks import ATTACKS, SLOW, SUSTAINED_S, Outcome, Target, put_last, under
from gateway_world import started
from small_onnx import small_onnx

from modelkeep.core.artifact import Port, Schema
from modelkeep.gate.settings import GateSettings

pytestmark = [pytest.mark.slow, pytest.mark.verify("abuse")]
LOG = logging.getLogger(__name__)  # `--log-cli-level info` shows the figures
SMALL = Schema(
    inputs=(Port(name="x", dtype="FP32", shape=(-1, 4)),),
    outputs=(Port(name="y", dtype="FP32", shape=(-1, 4)),),
)
BODY = json.dumps(
    {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
).encode()
READ_TIMEOUT_S = 0.5
MIB = 1024 * 1024
# Of one that has sent little: TLS, parser, and what the kernel has not to hand yet.
CONNECTION_BYTES = 160 * 1024
# Files, replicas, and handshakes that are not counted yet.
DESCRIPTORS_BESIDE = 200
WINDOW_CALLS = 200
WINDOWS = 20
ROUNDS = 2


def running(folder):
    settings = GateSettings(read_timeout_s=READ_TIMEOUT_S, drain_timeout_s=5.0)
    model = small_onnx(folder / "small.onnx").read_bytes()
    made = started(folder / "keep", model=model, schema=SMALL, settings=settings, replica_count=1)
    made.wait_ready()
    return made


@pytest.fixture(autouse=True)
def _one_after_the_other(tmp_path_factory, count):
    """Where times are judged, the tests of this file do not run beside each other."""
    with (tmp_path_factory.getbasetemp().parent / "abuse.lock").open("w") as lock:
        if count(0, full=1):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    made = running(tmp_path_factory.mktemp("world"))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def next_door(tmp_path_factory, count):
    """Another gateway, which is attacked for comparison; only where times are judged."""
    if not count(0, full=1):
        yield None
        return
    made = running(tmp_path_factory.mktemp("next door"))
    for each in (made.gateway, *made.replicas):
        for thread in Path(f"/proc/{each.popen.pid}/task").iterdir():
            put_last(int(thread.name))
    yield made
    made.stop()


class Honest:
    """A client with one connection, open since before the attack."""

    def __init__(self, world):
        self._connection = http.client.HTTPSConnection(
            "127.0.0.1", world.port, context=world.context(), timeout=20
        )
        self._headers = {"Authorization": f"Bearer {world.key}"}

    def call(self):
        self._connection.request("POST", "/v2/models/digits/infer", BODY, self._headers)
        answer = self._connection.getresponse()
        answer.read()
        return answer.status

    def p99_ms(self, calls=WINDOW_CALLS):
        """Call after call; the time that one in a hundred took longer than."""
        times = []
        for _ in range(calls):
            started_at = time.perf_counter()
            assert self.call() == 200
            times.append(time.perf_counter() - started_at)
        return sorted(times)[len(times) * 99 // 100] * 1000


@pytest.fixture
def honest(world):
    made = Honest(world)
    with contextlib.closing(made._connection):
        made.p99_ms(50)
        yield made


def memory_bytes(world, what="VmRSS"):
    """What the gateway has in memory now; `VmHWM`: what it ever had at most."""
    status = Path(f"/proc/{world.gateway.popen.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(what))
    return int(line.split()[1]) * 1024


def descriptor_count(world):
    """What the gateway has open now: mostly connections."""
    return len(list(Path(f"/proc/{world.gateway.popen.pid}/fd").iterdir()))


@dataclass(frozen=True)
class Attacked:
    """What an attack did, and what it cost: the p99 of each window in milliseconds."""

    outcome: Outcome
    connections: int
    seconds: float
    grown_bytes: int
    descriptors: int
    alone_ms: list[float]
    next_door_ms: list[float]
    here_ms: list[float]

    @property
    def slowed(self):
        """By how much the p99 grew."""
        return statistics.median(self.here_ms) / statistics.median(self.next_door_ms)

    def __str__(self):
        alone, next_door, here = (
            f"{statistics.median(each):.2f} ms ({min(each):.2f} to {max(each):.2f})"
            for each in (self.alone_ms, self.next_door_ms, self.here_ms)
        )
        answers, sent = sum(self.outcome.statuses.values()), self.outcome.sent_bytes // MIB
        return (
            f"p99 alone {alone}, attack next door {next_door}, here {here}: x{self.slowed:.2f}; "
            f"{self.connections} connections, {answers} answers, {self.outcome.closed} closed, "
            f"{sent} MiB sent"
        )


def attack(world, honest, names, *, connections, seconds, is_last=False):
    """Run attacks on a gateway, the honest client beside them; outcomes and its windows."""
    targets = {
        name: Target(
            port=world.port,
            ca_path=str(world.ca_path),
            key=world.key,
            metrics_key=world.metrics_key,
            seconds=seconds,
            connections=connections[name],
        )
        for name in names
    }
    windows, descriptors = [], 0
    with under(targets, are_last=is_last) as outcomes:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            windows.append(honest.p99_ms(WINDOW_CALLS if is_last else 20))
            descriptors = max(descriptors, descriptor_count(world))
        made = outcomes()
    assert honest.call() == 200
    return made, windows, descriptors


def attacked(world, honest, names, *, next_door=None, **how):
    """Attack a gateway, and before that the one next door if there is one."""
    is_judged = next_door is not None
    alone_ms, next_door_ms, here_ms = [], [], []
    if is_judged:
        alone_ms = [honest.p99_ms() for _ in range(WINDOWS)]
    Path(f"/proc/{world.gateway.popen.pid}/clear_refs").write_text("5")  # VmHWM begins anew
    before, most_before = memory_bytes(world), memory_bytes(world, "VmHWM")
    for _ in range(ROUNDS if is_judged else 1):  # by turns: a machine is not the same for a minute
        if is_judged:
            next_door_ms += attack(next_door, honest, names, is_last=True, **how)[1]
        made, windows, descriptors = attack(world, honest, names, is_last=is_judged, **how)
        here_ms += windows
    most = memory_bytes(world, "VmHWM")
    LOG.info("VmHWM %d -> %d MiB", most_before // MIB, most // MIB)
    return {
        name: Attacked(
            outcome=outcome,
            connections=how["connections"][name],
            seconds=how["seconds"],
            grown_bytes=most - before,
            descriptors=descriptors,
            alone_ms=alone_ms,
            next_door_ms=next_door_ms,
            here_ms=here_ms,
        )
        for name, outcome in made.items()
    }


def demand_held_off(name, found):
    """What must have become of each attack."""
    outcome, connections = found.outcome, found.connections
    if name in SLOW:  # cut off within the reading time, and again when they come back
        rounds = 2 if found.seconds >= SUSTAINED_S else 1
        assert outcome.closed >= connections * rounds, name
    elif name == "slow_reader":  # as soon as what it does not read fills its room
        assert outcome.closed == connections or found.seconds < SUSTAINED_S, name
    elif name == "idle":
        assert found.descriptors <= GateSettings().connections_max + DESCRIPTORS_BESIDE, name
    else:  # 408 for who was kept waiting with the rest of a body by the machine's load
        wanted = {"gzip_bomb": {415}, "deep_json": {400, 408}}.get(name, {408, 413})
        assert set(outcome.statuses) <= wanted, name
        assert outcome.statuses or outcome.closed, name


def test_all_attacks_at_once_are_held_off_in_little_memory(world, honest, count):
    connections = dict.fromkeys(ATTACKS, 4) | {"idle": count(200, full=2000)}
    seconds = count(4, full=8)
    found = attacked(world, honest, ATTACKS, connections=connections, seconds=seconds)
    for name, each in found.items():
        demand_held_off(name, each)
        assert each.grown_bytes < 256 * MIB + sum(connections.values()) * CONNECTION_BYTES


# Of a whole run; 10,000 connections need as many descriptors on either side.
FULL_CONNECTIONS = {
    "slow_head": 1000,
    "slow_body": 1000,
    "slow_reader": 200,
    "idle": 10_000,
    "huge_length": 2,
    "huge_chunks": 2,
    "gzip_bomb": 2,
    "deep_json": 2,
}


def test_each_attack_alone_leaves_the_honest_client_its_p99(world, next_door, honest, count):
    """One after the other; the first few in the full run only."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    names = sorted(FULL_CONNECTIONS)[: count(1, full=len(FULL_CONNECTIONS))]
    slowed = {}
    for name in names:
        wanted = min(count(2, full=FULL_CONNECTIONS[name]), most - 1000)
        found = attacked(
            world, honest, [name], next_door=next_door, connections={name: wanted},
            seconds=count(1, full=30 if name == "idle" else 7),
        )[name]  # fmt: skip
        demand_held_off(name, found)
        assert found.grown_bytes < 64 * MIB + wanted * CONNECTION_BYTES, name
        if next_door is not None:
            LOG.info("%s: %s", name, found)
            if found.slowed > 2:
                slowed[name] = str(found)
    assert not slowed
