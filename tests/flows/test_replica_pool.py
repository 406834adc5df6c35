"""A real pool before real replicas that are killed, stopped, changed and overloaded."""

from __future__ import annotations

import asyncio
import random
import signal
import time

import numpy as np
import pytest
import uvloop
from replica_scenes import Replicas, doubling_model, numbers, pooled, row, until

from modelkeep.core.errors import KeepError, UnavailableError, UsageError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def replicas(tmp_path_factory):
    made = Replicas(tmp_path_factory.mktemp("run"), doubling_model())
    for name in ("a", "b", "c"):
        made.start(name)
    yield made
    made.stop()


def resumed(replicas):
    """Whatever a test before did: all run."""
    for process in replicas.processes.values():
        if process.popen.poll() is not None:
            process.start()
        process.popen.send_signal(signal.SIGCONT)


async def called(pool, stop, outcomes):
    """Keep asking until told to stop; every outcome is noted."""
    number = 0
    while not stop.is_set():
        number += 1
        try:
            answer = await pool.ask("m", 1, row([number, 1.0]))
        except KeepError as error:
            outcomes.append(error.code)
            await asyncio.sleep(0.01)
            continue
        outcomes.append(numbers(answer).tolist() == [[2.0 * number, 2.0]])


async def under_load(pool, act, callers=16):
    """Do something while calls come; the outcomes of these."""
    stop, outcomes = asyncio.Event(), []
    tasks = [asyncio.create_task(called(pool, stop, outcomes)) for _ in range(callers)]
    await asyncio.sleep(0.2)
    await act()
    stop.set()
    await asyncio.gather(*tasks)
    return outcomes


@pytest.mark.verify("replica-kills")
def test_replicas_that_are_killed_and_stopped_at_random_fail_no_call(replicas, count):
    resumed(replicas)
    seed = count(7, full=int(time.time()))
    chance = random.Random(seed)  # noqa: S311 - it only chooses whom to kill
    seconds = count(3, full=60)
    names = ["a", "b", "c"]

    async def scene():
        async with pooled(replicas.folder, suspect_s=0.3, hung_s=3.0) as pool:
            pool.add("m", 1, names)
            await until(lambda: pool.ready_count("m", 1) == 3)

            async def kill():
                ends = time.monotonic() + seconds
                while time.monotonic() < ends:
                    process = replicas.processes[chance.choice(names)]
                    if chance.random() < 0.5:
                        process.kill()
                        await asyncio.sleep(chance.uniform(0, 0.1))
                        process.start()
                    else:
                        process.popen.send_signal(signal.SIGSTOP)
                        await asyncio.sleep(chance.uniform(0, 0.8))
                        process.popen.send_signal(signal.SIGCONT)
                    await asyncio.sleep(chance.uniform(0.2, 1.0))

            outcomes = await under_load(pool, kill)
            failed = [each for each in outcomes if each is not True]
            assert not failed, (seed, failed[:5], len(outcomes))
            assert len(outcomes) > 500

    uvloop.run(scene())


def test_a_group_changes_under_load_and_no_call_fails(replicas):
    resumed(replicas)

    async def scene():
        async with pooled(replicas.folder) as pool:
            pool.add("m", 1, ["a"])
            await until(lambda: pool.ready_count("m", 1) == 1)

            async def change():
                for sockets in (["a", "b"], ["b"], ["b", "c"], ["a", "b", "c"], ["c"], ["a"]):
                    pool.change("m", 1, sockets)
                    await asyncio.sleep(0.15)
                await until(lambda: pool.is_drained("m", 1, "c"))

            outcomes = await under_load(pool, change)
            assert set(outcomes) == {True}
            assert pool.ready_count("m", 1) == 1

    uvloop.run(scene())


def test_a_group_that_is_removed_answers_what_it_was_asked_and_then_ends(replicas):
    resumed(replicas)

    async def scene():
        async with pooled(replicas.folder) as pool:
            pool.add("m", 1, ["a", "b"])
            await until(lambda: pool.ready_count("m", 1) == 2)
            asked = [pool.ask("m", 1, row([each])) for each in range(50)]
            gone = pool.remove("m", 1)
            assert pool.remove("m", 1) is gone
            late = pool.ask("m", 1, row([7]))  # permitted just before the table changed
            assert [numbers(each).item() for each in await asyncio.gather(*asked)] == [
                2.0 * each for each in range(50)
            ]
            assert numbers(await late).item() == 14.0
            await asyncio.wait_for(gone, 5)
            with pytest.raises(UnavailableError) as raised:
                pool.ask("m", 1, row([1]))
            assert raised.value.code == "gate.no_replica"
            pool.add("m", 1, ["a"])
            assert numbers(await pool.ask("m", 1, row([3]))).item() == 6.0
            pool.remove("m", 1)
            pool.add("m", 1, ["a"])  # back before it was gone
            await asyncio.sleep(1.1)
            assert numbers(await pool.ask("m", 1, row([4]))).item() == 8.0

    uvloop.run(scene())


def test_large_tensors_go_through_shared_memory_and_come_back_the_same(replicas):
    resumed(replicas)
    images = [np.random.default_rng(each).normal(size=(1, 150_528)).astype("f4") for each in (1, 2)]

    async def scene(shared_bytes):
        async with pooled(replicas.folder, shared_bytes=shared_bytes) as pool:
            pool.add("m", 1, ["a", "b"])
            await until(lambda: pool.ready_count("m", 1) == 2)
            for _ in range(2):
                asked = [pool.ask("m", 1, row(images[each % 2])) for each in range(16)]
                for each, answer in enumerate(await asyncio.gather(*asked)):
                    assert (numbers(answer) == 2 * images[each % 2]).all()
            assert pool.said == []

    for shared_bytes in (16 << 20, 2 << 20, 0):  # enough, enough for three calls, none
        uvloop.run(scene(shared_bytes))


def test_a_replica_that_hangs_is_told_of_and_its_calls_are_answered_elsewhere(replicas):
    resumed(replicas)

    async def scene():
        async with pooled(
            replicas.folder, suspect_s=0.2, hung_s=0.8, ping_s=0.1, hedge_percent=0, ejection_s=0.5
        ) as pool:
            pool.add("m", 1, ["a", "b"])
            await until(lambda: pool.ready_count("m", 1) == 2)
            for each in range(200):
                await pool.ask("m", 1, row([each]))
            replicas.processes["a"].popen.send_signal(signal.SIGSTOP)
            started = time.monotonic()
            asked = [pool.ask("m", 1, row([each])) for each in range(64)]
            await asyncio.gather(*asked)
            assert time.monotonic() - started < 1.0
            await until(lambda: pool.hung == [("m", 1, "a")])
            assert pool.ready_count("m", 1) == 1
            replicas.processes["a"].kill()
            replicas.processes["a"].start()
            await until(lambda: pool.ready_count("m", 1) == 2, 20)

    uvloop.run(scene())


def test_an_idle_replica_that_hangs_is_found_before_any_call_is_sent_there(replicas):
    resumed(replicas)

    async def scene():
        async with pooled(replicas.folder, suspect_s=0.2, ping_s=0.1) as pool:
            pool.add("m", 1, ["a", "b"])
            await until(lambda: pool.ready_count("m", 1) == 2)
            for each in range(50):
                await pool.ask("m", 1, row([each]))
            replicas.processes["b"].popen.send_signal(signal.SIGSTOP)
            await until(lambda: pool.ready_count("m", 1) == 1, 3)
            started = time.monotonic()
            await asyncio.gather(*(pool.ask("m", 1, row([each])) for each in range(32)))
            assert time.monotonic() - started < 0.15
            replicas.processes["b"].popen.send_signal(signal.SIGCONT)
            await until(lambda: pool.ready_count("m", 1) == 2, 3)

    uvloop.run(scene())


def test_with_every_replica_gone_calls_wait_and_are_answered_when_one_is_back(replicas):
    resumed(replicas)

    async def scene():
        async with pooled(replicas.folder) as pool:
            pool.add("m", 1, ["a"])
            await until(lambda: pool.ready_count("m", 1) == 1)
            replicas.processes["a"].kill()
            asked = [pool.ask("m", 1, row([each])) for each in range(20)]
            await asyncio.sleep(0.1)
            assert pool.pending_count("m", 1) == 20
            replicas.processes["a"].start()
            assert len(await asyncio.gather(*asked)) == 20

    uvloop.run(scene())


def test_a_replica_that_leaves_serves_until_its_successor_is_there(replicas):
    resumed(replicas)

    async def scene():
        async with pooled(replicas.folder, drain_s=5.0) as pool:
            pool.add("m", 1, ["a"])
            await until(lambda: pool.ready_count("m", 1) == 1)
            replicas.processes["b"].kill()
            pool.change("m", 1, ["b"])
            for each in range(10):
                assert numbers(await pool.ask("m", 1, row([each]))).item() == 2 * each
                await asyncio.sleep(0.02)
            assert not pool.is_drained("m", 1, "a")
            replicas.processes["b"].start()
            await until(lambda: pool.is_drained("m", 1, "a"))
            assert numbers(await pool.ask("m", 1, row([1]))).item() == 2

    uvloop.run(scene())


@pytest.mark.parametrize("name", ["", "../a", "a/b", "unix:a", "tls://h:1#n", "a" * 101])
def test_a_replica_is_a_socket_of_the_run_folder_and_nothing_else(tmp_path, name):
    async def scene():
        async with pooled(tmp_path) as pool:
            with pytest.raises(UsageError):
                pool.add("m", 1, [name])
            assert pool.ready_count("m", 1) == 0

    uvloop.run(scene())
