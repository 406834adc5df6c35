"""A replica that was taken over gets at nothing: each attack is tried from within a real one.

The attacker is locked in by the code that locks in every replica, and is asked over a real pool.
Beside it a second replica, the victim, goes on answering.
"""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

import malicious_replica
import pytest
import uvloop
from replica_scenes import Replicas, Scripted, doubling_model, numbers, pooled, row, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is Linux's"),
]
SCRIPT = Path(malicious_replica.__file__)
NAMES = [each.__name__ for each in malicious_replica.ATTACKS]


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """An attacker and a victim, beside a keep whose files anybody may read."""
    keep = tmp_path_factory.mktemp("keep")
    run = keep / "run"
    run.mkdir()
    (keep / "modelkeep.toml").write_text("secret")
    (keep / "state.db").write_text("secret")
    for path in (keep, run, *keep.glob("*.*")):
        path.chmod(0o777)
    recorder = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    recorder.bind(str(run / "recorder.sock"))
    recorder.listen()
    replicas = Replicas(run, doubling_model())
    replicas.start("victim")
    victim = replicas.processes["victim"].popen.pid
    replicas.start("attacker", str(SCRIPT), "--victim", str(victim), "--keep", str(keep))
    attacker = replicas.processes["attacker"]
    assert isinstance(attacker, Scripted)
    attacker.kill()
    attacker.log = str(keep / "log")
    attacker.start()
    yield keep, replicas
    replicas.stop()
    recorder.close()


@pytest.fixture(scope="module")
def outcomes(scene):
    """Each attack's outcome by its name: whether it got out, and the error that stopped it."""
    keep, _ = scene

    async def attacked():
        found = {}
        async with pooled(keep / "run", first_s=60, hung_s=120, text_hung_s=120) as pool:
            pool.add("m", 1, ["attacker"])
            await until(lambda: pool.ready_count("m", 1) == 1)
            for at, name in enumerate(NAMES):
                got, number = numbers(await pool.ask("m", 1, row([at, 0])))[0].tolist()
                found[name] = (bool(got), int(number))
            assert pool.said == []
            pool.change("m", 1, ["victim"])
            await until(lambda: pool.is_drained("m", 1, "attacker"))
            assert numbers(await pool.ask("m", 1, row([4]))).item() == 8
        return found

    return uvloop.run(attacked())


@pytest.mark.parametrize("name", NAMES)
def test_a_replica_that_was_taken_over_is_stopped(outcomes, name):
    got_out, number = outcomes[name]
    assert not got_out, f"it got out: {name}"
    assert number


def test_afterwards_everything_is_as_it_was(scene, outcomes):
    assert outcomes
    keep, replicas = scene
    assert (keep / "state.db").read_text() == "secret"
    assert (keep / "log").stat().st_size <= 1 << 20
    assert replicas.processes["victim"].popen.poll() is None
    assert replicas.processes["attacker"].popen.poll() is None


def descriptors():
    """How many this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def test_descriptors_that_a_replica_sends_are_not_kept(scene):
    keep, _ = scene

    async def attacked():
        async with pooled(keep / "run") as pool:
            pool.add("m", 1, ["attacker"])
            await until(lambda: pool.ready_count("m", 1) == 1)
            at = NAMES.index("hand_over_descriptors")
            await pool.ask("m", 1, row([at, 0]))
            before = descriptors()
            for _ in range(50):
                await pool.ask("m", 1, row([at, 0]))
            assert descriptors() <= before + 1

    uvloop.run(attacked())


def test_a_thread_bomb_leaves_the_neighbour_its_speed(scene):
    keep, _ = scene

    async def attacked():
        async with (
            pooled(keep / "run", first_s=60, hung_s=120) as bombed,
            pooled(keep / "run", first_s=60, hung_s=120) as pool,
        ):
            bombed.add("m", 1, ["attacker"])
            pool.add("m", 1, ["victim"])
            await until(lambda: bombed.ready_count("m", 1) + pool.ready_count("m", 1) == 2)
            bomb = bombed.ask("m", 1, row([NAMES.index("thread_bomb"), 0]))
            ends = time.monotonic() + 0.5
            answered = 0
            while time.monotonic() < ends:
                answer = await pool.ask("m", 1, row([1.0]))
                assert numbers(answer).item() == 2
                answered += 1
            assert answered > 50
            await bomb

    uvloop.run(attacked())
