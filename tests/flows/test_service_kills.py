"""Replicas of a real service are killed at random while wrk calls: no request fails.

Goal: bar 2 of the gateway at the rate of a load tool in C. Method: a service with two replicas,
whose supervisor starts again what dies; wrk on 32 connections, first as fast as it can, which says
the highest rate, then with a pause before each request that makes it half of that.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import threading
import time

import pytest
from command import Desk, Process
from load import BODY
from service_facts import pids

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not on the PATH (apt: wrk)"),
]
CONNECTIONS = 32


class Load:
    """What wrk did in some seconds."""

    def __init__(self, said: str) -> None:
        bad = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
        errors = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
        self.calls = int(re.search(r"(\d+) requests in", said)[1])
        self.per_s = float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1])
        self.failed = int(bad[1]) if bad else 0
        self.failed += sum(map(int, errors.groups())) if errors else 0


def load(script, url, seconds):
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "20s"]
    done = subprocess.run([*command, "-s", script, url], check=True, capture_output=True, text=True)
    return Load(done.stdout)


def scripted(path, key, *, pause_ms):
    quoted = BODY.replace('"', '\\"')
    path.write_text(
        'wrk.method = "POST"\nwrk.path = "/v2/models/digits/infer"\n'
        f'wrk.headers["Authorization"] = "Bearer {key}"\n'
        f'wrk.body = "{quoted}"\n'
        f"function delay() return {pause_ms} end\n"
    )
    return str(path)


def killing(desk, chance, is_over, killed):
    """Kill one replica after the other, whichever are there."""
    while not is_over.wait(chance.uniform(0.1, 3.0)):
        there = [pid for name, pid in pids(desk).items() if name.startswith("replica-")]
        with contextlib.suppress(ProcessLookupError, IndexError):  # it is gone, or all are
            os.kill(chance.choice(there), signal.SIGKILL)
            killed.append(time.monotonic())


@pytest.mark.verify("replica-kills")
def test_no_request_fails_while_the_replicas_of_a_service_are_killed(
    tmp_path, count, record_property
):
    seed = count(7, full=int(time.time()))
    desk = Desk.made(tmp_path, second=False)
    desk.admit()
    key = desk.json("tokens", "new", "alice", "--scope", "infer:*")["api_key"]
    process = Process(*desk.words("serve", "--json"))
    try:
        url = process.event("ready")["url"]
        best = load(scripted(tmp_path / "all.lua", key, pause_ms=0), url, count(1, full=5))
        assert not best.failed
        half = scripted(tmp_path / "half.lua", key, pause_ms=round(CONNECTIONS / best.per_s * 1000))
        is_over, killed = threading.Event(), []
        chance = random.Random(seed)  # noqa: S311 - it only chooses whom to kill
        killer = threading.Thread(target=killing, args=(desk, chance, is_over, killed))
        killer.start()
        try:
            found = load(half, url, count(3, full=60))
        finally:
            is_over.set()
            killer.join()
    finally:
        process.clean()
    facts = {"seed": seed, "per_s_max": best.per_s, "per_s": found.per_s, "calls": found.calls,
             "killed": len(killed)}  # fmt: skip
    for name, value in facts.items():
        record_property(name, value)
    assert not found.failed, facts
    assert killed
    assert found.calls
