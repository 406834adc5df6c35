"""What a pool does with a replica that lies, breaks, is slow or writes texts: a test plays it."""

from __future__ import annotations

import asyncio
import mmap
import os
import socket
import time

import numpy as np
import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from replica_scenes import PlayedReplica, numbers, pooled, row, until

from modelkeep.core.errors import KeepError, UnavailableError
from modelkeep.kernels.link_frames import (
    CANCEL,
    PING,
    SHARE,
    Offer,
    Ping,
    Pong,
    SharedAnswer,
)
from modelkeep.kernels.replica_frames import (
    PROTOCOL,
    AnswerFrame,
    CallFrame,
    Cancel,
    FaultFrame,
    Hello,
    Piece,
    TextCall,
    TextEnd,
    framed,
)

HELLO = framed(Hello(PROTOCOL, "m", 1))


def doubled(call):
    array = np.frombuffer(call.tensors[0], np.float32) * 2
    return framed(AnswerFrame(call.number, call.shapes, (memoryview(array.tobytes()),)))


def honest(asked, writer):
    if isinstance(asked, CallFrame):
        writer.write(doubled(asked))
    elif isinstance(asked, Ping):
        writer.write(framed(Pong(asked.number)))


async def code_of(waiting):
    try:
        await waiting
    except KeepError as error:
        return error.code
    return "answered"


# ---- lies ----------------------------------------------------------------------------------------


def twice(call, writer):
    writer.write(doubled(call) * 2)


def of_another_number(call, writer):
    writer.write(framed(AnswerFrame(call.number + 1000, call.shapes, call.tensors)))


def giant(_, writer):
    writer.write((1 << 31).to_bytes(4, "little"))


def nonsense(_, writer):
    writer.write((5).to_bytes(4, "little") + b"\xc1" * 5)


def a_piece_of_no_text(call, writer):
    writer.write(framed(Piece(call.number, 0, "forged", 1)))


def memory_that_is_not_shared(call, writer):
    writer.write(framed(SharedAnswer(call.number, ((1, 1),), 0, (4,))))


def a_pong_for_nothing(_, writer):
    writer.write(framed(Pong(0)))


def hello_again(_, writer):
    writer.write(HELLO)


def an_offer_too_late(_, writer):
    writer.write(framed(Offer((SHARE,))))


LIES = (
    *(of_another_number, giant, nonsense, a_piece_of_no_text, memory_that_is_not_shared),
    *(a_pong_for_nothing, hello_again, an_offer_too_late),
)


@pytest.mark.parametrize("lie", LIES, ids=lambda each: each.__name__)
def test_a_replica_that_lies_loses_its_connection_and_the_call_goes_elsewhere(tmp_path, lie):
    async def scene():
        async with (
            PlayedReplica(tmp_path, "liar", lie) as liar,
            PlayedReplica(tmp_path, "honest", honest),
            pooled(tmp_path, answer_bytes_max=1 << 20) as pool,
        ):
            pool.add("m", 1, ["liar", "honest"])
            await until(lambda: pool.ready_count("m", 1) == 2)
            for _ in range(2):
                asked = [pool.ask("m", 1, row([each])) for each in range(40)]
                answers = await asyncio.gather(*asked)
                assert [numbers(each).item() for each in answers] == [2.0 * e for e in range(40)]
            await until(lambda: liar.connections > 1)
            assert any("frame" in each or "record" in each for each in pool.said)

    uvloop.run(scene())


def test_a_second_answer_to_the_same_call_ends_the_connection(tmp_path):
    async def scene():
        async with PlayedReplica(tmp_path, "a", twice) as liar, pooled(tmp_path) as pool:
            pool.add("m", 1, ["a"])
            assert numbers(await pool.ask("m", 1, row([1]))).item() == 2.0
            await until(lambda: liar.connections == 2)
            assert "nobody waits for" in pool.said[0]

    uvloop.run(scene())


def test_a_connection_that_stays_mute_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr("modelkeep.adapters.replica_link.HELLO_S_MAX", 0.2)

    async def scene():
        async with (
            PlayedReplica(tmp_path, "a", honest, first=b"") as mute,
            pooled(tmp_path) as pool,
        ):
            pool.add("m", 1, ["a"])
            await until(lambda: mute.connections == 3)
            mute._first = HELLO
            assert numbers(await pool.ask("m", 1, row([1]))).item() == 2.0
            connections = mute.connections
            await asyncio.sleep(0.5)
            assert mute.connections == connections

    uvloop.run(scene())


@pytest.mark.parametrize(
    "hello",
    [Hello(PROTOCOL, "other", 1), Hello(PROTOCOL, "m", 2), Hello("v9", "m", 1), Pong(1)],
    ids=str,
)
def test_a_replica_of_another_model_gets_no_call(tmp_path, hello):
    async def scene():
        async with (
            PlayedReplica(tmp_path, "a", honest, first=framed(hello)) as other,
            pooled(tmp_path, call_timeout_s=0.3) as pool,
        ):
            pool.add("m", 1, ["a"])
            assert await code_of(pool.ask("m", 1, row([1]))) == "gate.no_replica"
            assert other.connections > 2
            assert other.asked == []

    uvloop.run(scene())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=60), min_size=1, max_size=4), st.booleans())
def test_no_bytes_of_a_replica_do_more_than_end_its_connection(tmp_path_factory, parts, is_framed):
    folder = tmp_path_factory.mktemp("run")

    def play(asked, writer):
        if isinstance(asked, CallFrame):
            for part in parts:
                writer.write(len(part).to_bytes(4, "little") * is_framed + part)
            writer.close()

    async def scene():
        async with (
            PlayedReplica(folder, "a", play),
            PlayedReplica(folder, "b", honest),
            pooled(folder) as pool,
        ):
            pool.add("m", 1, ["a", "b"])
            await until(lambda: pool.ready_count("m", 1) == 2)
            asked = [pool.ask("m", 1, row([each])) for each in range(4)]
            assert [numbers(each).item() for each in await asyncio.gather(*asked)] == [0, 2, 4, 6]

    uvloop.run(scene())


def test_the_shared_memory_cannot_be_resized_and_calls_in_it_cannot_be_changed(tmp_path):
    """A played replica takes the descriptors and tries."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(tmp_path / "a"))
    listening.listen()
    tried = []

    def attack():
        connected, _ = listening.accept()
        connected.sendall(framed(Offer((SHARE, PING))) + HELLO)
        _, (calls, answers), _, _ = socket.recv_fds(connected, 4096, 2)
        for fd in (calls, answers):
            for size in (0, 4096, 1 << 30):
                with pytest.raises(PermissionError):
                    os.ftruncate(fd, size)
                tried.append(size)
        with pytest.raises(PermissionError):
            mmap.mmap(calls, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        with pytest.raises(PermissionError):
            os.write(calls, b"other")
        connected.sendall(framed(SharedAnswer(1, ((1,),), (1 << 20) - 8, (64,))))
        tried.append(connected.recv(100) == b"")
        connected.close()

    async def scene():
        async with pooled(tmp_path, shared_bytes=1 << 20, call_timeout_s=3) as pool:
            pool.add("m", 1, ["a"])
            await asyncio.get_running_loop().run_in_executor(None, attack)
            assert tried == [0, 4096, 1 << 30] * 2 + [True]
            assert "frame.span" in pool.said[0]

    with listening:
        uvloop.run(scene())


# ---- faults, hedges, circuits --------------------------------------------------------------------


def faulty(asked, writer):
    if isinstance(asked, CallFrame):
        writer.write(framed(FaultFrame(asked.number, "runtime.failed", "cannot")))


def test_a_fault_that_another_replica_does_not_have_ejects(tmp_path):
    async def scene():
        async with (
            PlayedReplica(tmp_path, "bad", faulty) as bad,
            PlayedReplica(tmp_path, "good", honest),
            pooled(tmp_path, failures_to_eject=3, ejection_s=0.5, hedge_percent=0) as pool,
        ):
            pool.add("m", 1, ["bad", "good"])
            await until(lambda: pool.ready_count("m", 1) == 2)
            for each in range(12):
                assert numbers(await pool.ask("m", 1, row([each]))).item() == 2 * each
            assert pool.ready_count("m", 1) == 1
            many = len(bad.asked)
            assert many == 3
            await until(lambda: pool.ready_count("m", 1) == 2)  # it comes back by itself

    uvloop.run(scene())


def test_calls_on_which_the_model_fails_eject_nobody(tmp_path):
    """Else a caller could eject replicas by what it asks."""

    async def scene():
        async with (
            PlayedReplica(tmp_path, "a", faulty),
            PlayedReplica(tmp_path, "b", faulty),
            pooled(tmp_path, failures_to_eject=3) as pool,
        ):
            pool.add("m", 1, ["a", "b"])
            await until(lambda: pool.ready_count("m", 1) == 2)
            for each in range(10):
                assert await code_of(pool.ask("m", 1, row([each]))) == "runtime.failed"
            assert pool.ready_count("m", 1) == 2

    uvloop.run(scene())


@pytest.mark.parametrize("is_text", [False, True])
def test_what_a_runtime_says_of_itself_is_logged_and_not_told(tmp_path, is_text):
    said = "Traceback: /srv/models/secret.py:7\n\x1b[2J" + "x" * 5000

    def leaking(asked, writer):
        if isinstance(asked, CallFrame | TextCall):
            writer.write(framed(FaultFrame(asked.number, "runtime.failed", said)))

    async def scene():
        async with (
            PlayedReplica(tmp_path, "a", leaking, is_text=is_text),
            pooled(tmp_path) as pool,
        ):
            pool.add("m", 1, ["a"])
            await until(lambda: pool.ready_count("m", 1) == 1)
            for _ in range(20):
                text, tensors = pool.talk("m", 1, b"{}"), row([1])
                with pytest.raises(UnavailableError) as raised:
                    await (said_by(text) if is_text else pool.ask("m", 1, tensors))
                error = raised.value
                assert error.code == "runtime.failed"
                assert "secret" not in f"{error} {error.hint} {error.context}"
            (line,) = pool.said  # one a second, however many calls fail
            assert "/srv/models/secret.py:7" in line
            assert line.isprintable()
            assert len(line) < 800

    uvloop.run(scene())


def test_a_call_whose_own_time_is_over_fails_at_once_and_blames_nobody(tmp_path):
    async def scene():
        async with (
            PlayedReplica(tmp_path, "a", silent),
            pooled(tmp_path, failures_to_eject=1) as pool,
        ):
            pool.add("m", 1, ["a"])
            await until(lambda: pool.ready_count("m", 1) == 1)
            for _ in range(8):
                started = time.monotonic()
                assert await code_of(pool.ask("m", 1, row([1]), timeout_s=0.02)) == "gate.deadline"
                assert 0.015 < time.monotonic() - started < 0.2
            assert pool.ready_count("m", 1) == 1
            pool.add("n", 1, ["nobody"])
            assert await code_of(pool.ask("n", 1, row([1]), timeout_s=0.02)) == "gate.deadline"

    uvloop.run(scene())


def test_a_slow_call_is_asked_of_a_second_replica_within_the_budget(tmp_path):
    delays = {"slow": 0.0}

    async def slow(asked, writer):
        if isinstance(asked, CallFrame):
            await asyncio.sleep(delays["slow"])
            writer.write(doubled(asked))
        elif isinstance(asked, Cancel):
            cancelled.append(asked.number)

    cancelled = []

    async def scene():
        first = framed(Offer((CANCEL,))) + HELLO
        async with (
            PlayedReplica(tmp_path, "slow", slow, first=first) as one,
            PlayedReplica(tmp_path, "fast", honest),
            pooled(tmp_path, hedge_percent=5, slow_start_s=0) as pool,
        ):
            pool.add("m", 1, ["slow", "fast"])
            await until(lambda: pool.ready_count("m", 1) == 2)
            for each in range(400):
                await pool.ask("m", 1, row([each]))
            await asyncio.sleep(0.1)
            delays["slow"] = 0.5
            before = len(one.asked)
            started = time.monotonic()
            for each in range(20):
                assert numbers(await pool.ask("m", 1, row([each]))).item() == 2 * each
            assert len(one.asked) > before
            assert time.monotonic() - started < 0.4
            await until(lambda: cancelled)

    uvloop.run(scene())


def silent(_asked, _writer):
    pass


def test_a_model_that_nobody_answers_for_is_refused_at_once_until_one_call_gets_through(tmp_path):
    answers = [silent]

    def play(asked, writer):
        answers[0](asked, writer)

    async def scene():
        async with (
            PlayedReplica(tmp_path, "a", play),
            pooled(
                tmp_path, call_timeout_s=0.1, open_after_failures=5, open_s=0.3, open_s_max=0.3
            ) as pool,
        ):
            pool.add("m", 1, ["a"])
            await until(lambda: pool.ready_count("m", 1) == 1)
            late = [code_of(pool.ask("m", 1, row([each]))) for each in range(5)]
            assert set(await asyncio.gather(*late)) == {"gate.deadline"}
            with pytest.raises(UnavailableError) as raised:
                pool.ask("m", 1, row([1]))
            assert raised.value.code == "gate.circuit"
            assert 0 < raised.value.context["retry_after_s"] < 0.31
            answers[0] = honest
            await asyncio.sleep(0.35)
            probe = pool.ask("m", 1, row([4]))
            with pytest.raises(UnavailableError):
                pool.ask("m", 1, row([5]))  # one at a time
            assert numbers(await probe).item() == 8
            assert numbers(await pool.ask("m", 1, row([5]))).item() == 10

    uvloop.run(scene())


def test_more_calls_than_may_wait_are_refused(tmp_path):
    async def scene():
        async with (
            PlayedReplica(tmp_path, "a", silent),
            pooled(tmp_path, pending_max=10, call_timeout_s=0.3) as pool,
        ):
            pool.add("m", 1, ["a"])
            await until(lambda: pool.ready_count("m", 1) == 1)
            asked = [code_of(pool.ask("m", 1, row([each]))) for each in range(25)]
            codes = await asyncio.gather(*asked)
            assert codes.count("gate.pending") == 15
            assert codes.count("gate.deadline") == 10

    uvloop.run(scene())


def test_a_call_that_kills_replicas_kills_so_many_and_no_more(tmp_path):
    def dies(asked, writer):
        if isinstance(asked, CallFrame):
            writer.transport.abort()

    async def scene():
        async with PlayedReplica(tmp_path, "a", dies) as victim, pooled(tmp_path) as pool:
            pool.add("m", 1, ["a"])
            assert await code_of(pool.ask("m", 1, row([1]))) == "gate.replica_lost"
            assert len(victim.asked) == 4

    uvloop.run(scene())


# ---- texts ---------------------------------------------------------------------------------------


async def said_by(talk):
    return [each async for each in talk]


def test_a_text_comes_in_pieces_and_ends(tmp_path):
    async def write(asked, writer):
        if isinstance(asked, TextCall):
            for each in ("once", " upon", " a time"):
                writer.write(framed(Piece(asked.number, 0, each, 1)))
                await asyncio.sleep(0.01)
            writer.write(framed(TextEnd(asked.number, ("stop",), 4, 3)))

    async def scene():
        async with (
            PlayedReplica(tmp_path, "a", write, is_text=True) as replica,
            pooled(tmp_path) as pool,
        ):
            pool.add("m", 1, ["a"])
            talks = [said_by(pool.talk("m", 1, b'{"a":1}')) for _ in range(5)]
            for said in await asyncio.gather(*talks):
                assert "".join(each.text for each in said[:-1]) == "once upon a time"
                assert said[-1].completion_tokens == 3
            assert replica.asked[0].request == b'{"a":1}'
            assert pool.pending_count("m", 1) == 0

    uvloop.run(scene())


def test_closing_a_text_cancels_it_and_what_still_comes_is_ignored(tmp_path):
    cancelled = []

    async def write(asked, writer):
        if isinstance(asked, TextCall):
            for _ in range(5):
                writer.write(framed(Piece(asked.number, 0, "more", 1)))
        else:
            cancelled.append(asked.number)
            writer.write(framed(Piece(asked.number, 0, "too late", 1)))
            writer.write(framed(TextEnd(asked.number, ("stop",), 1, 6)))

    async def scene():
        async with PlayedReplica(tmp_path, "a", write, is_text=True), pooled(tmp_path) as pool:
            pool.add("m", 1, ["a"])
            talk = pool.talk("m", 1, b"{}")
            assert (await anext(talk)).text == "more"
            await talk.aclose()
            await until(lambda: cancelled)
            await asyncio.sleep(0.05)
            assert pool.pending_count("m", 1) == 0
            assert pool.said == []
            assert pool.ready_count("m", 1) == 1

    uvloop.run(scene())


@pytest.mark.parametrize("pieces", [0, 1])
def test_a_text_is_asked_again_only_while_nothing_of_it_was_given_away(tmp_path, pieces):
    async def dies(asked, writer):
        for _ in range(pieces):
            writer.write(framed(Piece(asked.number, 0, "half", 1)))
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.transport.abort()

    def whole(asked, writer):
        writer.write(framed(Piece(asked.number, 0, "whole", 1)))
        writer.write(framed(TextEnd(asked.number, ("stop",), 1, 1)))

    async def scene():
        async with (
            PlayedReplica(tmp_path, "a", dies, is_text=True),
            PlayedReplica(tmp_path, "b", whole, is_text=True),
            pooled(tmp_path) as pool,
        ):
            pool.add("m", 1, ["a"])
            await until(lambda: pool.ready_count("m", 1) == 1)
            asking = asyncio.ensure_future(said_by(pool.talk("m", 1, b"{}")))
            await asyncio.sleep(0.01)
            pool.change("m", 1, ["b"])
            if pieces:
                assert await code_of(asking) == "gate.replica_lost"
            else:
                assert [type(each) for each in await asking] == [Piece, TextEnd]

    uvloop.run(scene())


@pytest.mark.parametrize("bounds", [{"pieces_max": 10}, {"pieces_bytes_max": 100}])
def test_a_reader_that_is_too_slow_loses_the_rest_and_the_pool_its_memory(tmp_path, bounds):
    cancelled = []

    def flood(asked, writer):
        if isinstance(asked, TextCall):
            for _ in range(50):
                writer.write(framed(Piece(asked.number, 0, "flood", 1)))
        else:
            cancelled.append(asked.number)

    async def scene():
        async with (
            PlayedReplica(tmp_path, "a", flood, is_text=True),
            pooled(tmp_path, **bounds) as pool,
        ):
            pool.add("m", 1, ["a"])
            talk = pool.talk("m", 1, b"{}")
            await anext(talk)
            await asyncio.sleep(0.05)
            assert await code_of(said_by(talk)) == "gate.reader"
            await until(lambda: cancelled)

    uvloop.run(scene())


def test_what_a_slow_reader_gets_has_no_hole_and_no_end(tmp_path):
    def flood(asked, writer):
        if isinstance(asked, TextCall):
            asyncio.get_running_loop().call_later(0.1, rest, asked.number, writer)
            say(asked.number, writer, 0)

    def say(number, writer, first):
        for at in range(first, first + 20):
            writer.write(framed(Piece(number, 0, f"{at:03}", 1)))

    async def read_slowly(talk, got):
        async for each in talk:
            got.append(each)
            await asyncio.sleep(0.05)

    def rest(number, writer):
        say(number, writer, 20)
        writer.write(framed(TextEnd(number, ("stop",), 1, 40)))

    async def scene():
        got = []
        async with (
            PlayedReplica(tmp_path, "a", flood, is_text=True),
            pooled(tmp_path, pieces_bytes_max=30) as pool,
        ):
            pool.add("m", 1, ["a"])
            assert await code_of(read_slowly(pool.talk("m", 1, b"{}"), got)) == "gate.reader"
        assert [each.text for each in got] == [f"{at:03}" for at in range(len(got))]

    uvloop.run(scene())


def test_a_reader_that_keeps_up_gets_pieces_of_any_size(tmp_path):
    """Each is larger than what may wait, and all together are many times that."""
    texts = [f"{number}\u00e9" * 60 for number in range(20)]
    asking = []

    def begun(asked, writer):
        asking.append((asked.number, writer))
        say(0)

    def say(at):
        number, writer = asking[0]
        if at < len(texts):
            writer.write(framed(Piece(number, 0, texts[at], 1)))
        else:
            writer.write(framed(TextEnd(number, ("stop",), 1, at)))

    async def scene():
        got = []
        async with (
            PlayedReplica(tmp_path, "a", begun, is_text=True),
            pooled(tmp_path, pieces_bytes_max=100) as pool,
        ):
            pool.add("m", 1, ["a"])
            async for each in pool.talk("m", 1, b"{}"):
                got.append(each)
                if isinstance(each, Piece):
                    say(len(got))
        assert [each.text for each in got[:-1]] == texts
        assert isinstance(got[-1], TextEnd)

    uvloop.run(scene())


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("text.kind", "text.kind"),
        ("runtime.failed", "runtime.failed"),
        ("upstream.busy", "upstream.busy"),
        ("anything", "runtime.failed"),
    ],
)
def test_a_fault_ends_a_text_and_says_whose_it_is(tmp_path, fault, code):
    def fail(asked, writer):
        if isinstance(asked, TextCall):
            writer.write(framed(Piece(asked.number, 0, "half", 1)))
            writer.write(framed(FaultFrame(asked.number, fault, "the prompt is too long")))

    async def scene():
        async with PlayedReplica(tmp_path, "a", fail, is_text=True), pooled(tmp_path) as pool:
            pool.add("m", 1, ["a"])
            assert await code_of(said_by(pool.talk("m", 1, b"{}"))) == code

    uvloop.run(scene())
