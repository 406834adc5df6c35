"""Whoever sends much or holds much has its turn and its share, and no more."""

import asyncio
import time

from http_server import served

from modelkeep.core.errors import LimitError
from modelkeep.gate.settings import GateSettings
from modelkeep.web import server as servers
from modelkeep.web.bodies import STEP_BYTES, Bodies, Body
from modelkeep.web.messages import Response
from modelkeep.web.reading import STRETCH_BYTES, Reading

MIB = 1024 * 1024


class Application:
    """Answers with the length of the body; `/refused` is refused by its head."""

    def __init__(self):
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    def begin(self, request):
        if request.url == b"/refused":
            raise LimitError("quota.calls", "no more calls")

    async def respond(self, request):
        if request.refusal is not None:
            return Response(request.refusal.http_status, b"", request.refusal.code.encode())
        await self.may_answer.wait()
        return Response(200, b"", b"%d" % len(request.body))


def head(length, path="/"):
    return f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n".encode()


async def status(reader):
    raw = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    length = int(raw.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return int(raw[9:12]), await reader.readexactly(length)


class Transport:
    """Counts pauses."""

    def __init__(self):
        self.is_paused = False

    def is_closing(self):
        return False

    def pause_reading(self):
        assert not self.is_paused
        self.is_paused = True

    def resume_reading(self):
        assert self.is_paused
        self.is_paused = False


def test_after_a_stretch_the_others_have_their_turn_and_a_hold_outlasts_it():
    async def run():
        transport = Transport()
        reading = Reading(asyncio.get_running_loop())
        reading.begin(transport)
        reading.came(STRETCH_BYTES - 1, discarding=False)
        assert not transport.is_paused
        reading.came(1, discarding=False)
        assert transport.is_paused
        await asyncio.sleep(0)
        assert not transport.is_paused
        reading.came(STRETCH_BYTES, discarding=True)
        reading.hold()
        await asyncio.sleep(0)
        assert transport.is_paused
        await asyncio.sleep(0.05)
        assert transport.is_paused, "it is held"
        reading.release()
        assert not transport.is_paused
        reading.came(STRETCH_BYTES, discarding=False)
        reading.end()
        await asyncio.sleep(0)

    asyncio.run(run())


def test_the_rest_of_a_refused_body_is_read_slowly_and_its_refusal_arrives():
    async def run():
        async with served(Application()) as (connect, complaints):
            reader, writer = await connect()
            began = time.monotonic()
            writer.write(head(8 * MIB, "/refused") + bytes(8 * MIB))
            assert await status(reader) == (429, b"quota.calls")
            assert await asyncio.wait_for(reader.read(), 5) == b""
            assert time.monotonic() - began > 0.2  # 8 MiB at 25 MiB/s
            writer.close()
            assert complaints == []

    asyncio.run(run())


def test_rooms_grow_with_what_came_and_are_given_back():
    bodies = Bodies(10 * MIB)
    body = Body(bodies)
    body.expect(5 * MIB)
    assert bodies.held_bytes == STEP_BYTES
    while body.missing_bytes:
        body.came(min(len(body.room()), 50_000))
        assert bodies.held_bytes == max(body.size_bytes, STEP_BYTES)
    body.release()
    body.release()
    assert bodies.held_bytes == 0


def test_what_is_thrown_away_counts_no_more():
    bodies = Bodies(10 * MIB)
    body = Body(bodies)
    body.expect(MIB)
    body.came(1000)
    body.clear()
    body.came(1000)
    assert (bodies.held_bytes, body.whole()) == (0, b"")


def test_bodies_share_one_bound_and_what_is_over_it_is_told_to_come_again():
    """Large, chunked and small ones; the first that grows past the bound is the one refused."""
    bound = 300_000

    async def run():
        application = Application()
        application.may_answer.clear()
        async with served(application, bodies_bytes_max=bound) as (connect, _):
            first_reader, first = await connect()
            first.write(head(250_000) + bytes(250_000))
            await asyncio.sleep(0.1)
            reader, writer = await connect()
            writer.write(head(MIB) + bytes(MIB))
            assert await status(reader) == (503, b"gate.bodies")
            writer.close()
            reader, writer = await connect()
            writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
            writer.write((b"10000\r\n" + bytes(65_536) + b"\r\n") * 4 + b"0\r\n\r\n")
            assert await status(reader) == (503, b"gate.bodies")
            writer.close()
            application.may_answer.set()
            assert await status(first_reader) == (200, b"250000")
            for _ in range(3):  # all room has been given back
                first.write(head(290_000) + bytes(290_000))
                assert await status(first_reader) == (200, b"290000")
            first.close()

    asyncio.run(run())


def test_a_body_whose_client_is_gone_gives_its_room_back():
    async def run():
        async with served(Application(), bodies_bytes_max=300_000) as (connect, _):
            for _ in range(5):
                _, writer = await connect()
                writer.write(head(280_000) + bytes(270_000))
                await asyncio.sleep(0.05)
                writer.transport.abort()
            await asyncio.sleep(0.05)
            reader, writer = await connect()
            writer.write(head(280_000) + bytes(280_000))
            assert await status(reader) == (200, b"280000")
            writer.close()

    asyncio.run(run())


def test_a_newcomer_takes_the_place_of_whoever_is_idle_longest():
    async def run():
        application = Application()
        async with served(application, connections_max=2) as (connect, _):
            one_reader, one = await connect()
            two_reader, two = await connect()
            one.write(head(1) + b"x")
            assert (await status(one_reader))[0] == 200  # `two` is idle longer now
            three_reader, three = await connect()
            three.write(head(1) + b"x")
            assert (await status(three_reader))[0] == 200
            assert await two_reader.read() == b""
            application.may_answer.clear()
            one.write(head(1) + b"x")
            three.write(head(1) + b"x")
            await asyncio.sleep(0.1)
            four_reader, four = await connect()
            with_nothing = await asyncio.wait_for(_read(four_reader), 5)
            assert with_nothing == b"", "where none is idle the newcomer is refused"
            application.may_answer.set()
            assert (await status(one_reader))[0] == (await status(three_reader))[0] == 200
            for writer in (one, two, three, four):
                writer.close()

    asyncio.run(run())


def test_those_idle_longest_are_found_without_looking_at_all_each_time(monkeypatch):
    monkeypatch.setattr(servers, "LOOKED_UP", 3)

    class Waiting:
        def __init__(self, waits_until_s):
            self.waits_until_s = waits_until_s
            self.is_idle = True
            self.is_hung_up_on = False

        def hang_up(self):
            self.is_hung_up_on = True

    async def run():
        server = servers.Server(Application(), GateSettings(connections_max=8), complain=print)
        there = [Waiting(number) for number in range(8)]
        assert all(server.admits(each) for each in there)
        gone = []
        for newcomer in range(8):
            if newcomer == 1:  # looked up as idle longest, and then not idle any more, or anew
                there[1].is_idle = False
                there[2].waits_until_s = 50
            assert server.admits(Waiting(100 + newcomer))
            gone += [each for each in there if each.is_hung_up_on and each not in gone]
        assert [there.index(each) for each in gone] == [0, 3, 4, 5, 6, 7, 2]

    asyncio.run(run())


def test_requests_sent_ahead_are_read_a_few_at_a_time():
    """However many a client sends at once, one turn of the loop does not read them all."""

    class Counting(Application):
        def __init__(self):
            super().__init__()
            self.seen = []
            self.turn = 0

        def begin(self, _request):
            self.seen.append(self.turn)

    async def run():
        application = Counting()
        async with served(application) as (connect, complaints):
            reader, writer = await connect()
            loop = asyncio.get_running_loop()

            def count():
                application.turn += 1
                counting[0] = loop.call_soon(count)

            counting = [loop.call_soon(count)]
            one = head(0).replace(b"host: x", b"host: x\r\nx-padding: " + b"p" * 100)
            many = 300
            writer.write(one * many)
            for _ in range(many):
                assert await status(reader) == (200, b"0")
            counting[0].cancel()
            most = max(application.seen.count(turn) for turn in set(application.seen))
            assert most <= 32
            writer.close()
            assert complaints == []

    asyncio.run(run())


def test_thousands_whose_time_is_over_are_ended_a_few_in_a_turn():
    class Over:
        ended = False

        def sweep(self, _now):
            self.ended = True
            return True

    async def run():
        server = servers.Server(Application(), GateSettings(), complain=print)
        there = [Over() for _ in range(100)]
        server._sweep_some(iter(there), 0.0)
        before = 0
        while before < 100:
            now = sum(each.ended for each in there)
            assert 0 < now - before <= servers.ENDED_A_TURN
            before = now
            await asyncio.sleep(0)

    asyncio.run(run())


def test_answers_that_are_not_read_take_little_memory_here_and_in_the_kernel():
    """What is held for one client: our room for answers, and the kernel's."""

    class Large(Application):
        answered = 0

        async def respond(self, _request):
            self.answered += 1
            return Response(200, b"", bytes(16 * 1024))

    async def run():
        application = Large()
        async with served(application) as (connect, _):
            reader, writer = await connect()
            writer.transport.pause_reading()
            writer.write(head(0) * 320)
            seen = -1
            while application.answered > seen:  # until no more is answered
                seen = application.answered
                await asyncio.sleep(0.05)
            assert application.answered * 16 * 1024 < 3 * MIB  # 5 MiB were asked for
            writer.transport.abort()
            assert reader is not None

    asyncio.run(run())


async def _read(reader):
    try:
        return await reader.read()
    except ConnectionError:
        return b""


def test_nothing_is_written_to_a_client_that_is_going():
    class Going(Transport):
        written = 0

        def set_write_buffer_limits(self, _high):
            pass

        def get_extra_info(self, _name):
            return None

        def is_closing(self):
            return True

        def close(self):
            pass

        def write(self, _data):
            self.written += 1

    async def run():
        server = servers.Server(Application(), GateSettings(), complain=print)
        connection = servers.Connection(server)
        transport = Going()
        connection.connection_made(transport)
        raw = head(3).replace(b"host", b"expect: 100-continue\r\nhost") + b"abc"
        connection.get_buffer(-1)[: len(raw)] = raw
        connection.buffer_updated(len(raw))
        await asyncio.sleep(0.02)
        assert transport.written == 0
        connection.connection_lost(None)

    asyncio.run(run())
