"""A body is what was sent, however it came, and nothing of the next request is in it."""

import asyncio
import hashlib
import random

import pytest
from http_server import served
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.web.bodies import GROWTH, STEP_BYTES, TURN_BYTES_MAX, Bodies, Body
from modelkeep.web.messages import Response

NOISE = random.Random(7).randbytes(3 * STEP_BYTES)  # noqa: S311  # a body, no secret


@given(st.lists(st.binary(max_size=50), max_size=8), st.integers(0, 60))
def test_parts_and_room_give_the_same_body(parts, wanted):
    body = Body()
    whole = b"".join(parts)
    if 0 < wanted <= len(whole):
        body.expect(len(whole))
        body.add(whole[:wanted])
        while body.missing_bytes:
            room = body.room()
            count = min(len(room), 7)
            room[:count] = whole[body.size_bytes : body.size_bytes + count]
            body.came(count)
    else:
        for part in parts:
            body.add(part)
    assert (body.whole(), body.size_bytes, body.missing_bytes) == (whole, len(whole), 0)


def test_room_is_made_a_step_at_a_time():
    bodies = Bodies(1 << 30)
    body = Body(bodies)
    wanted = 2 * GROWTH * STEP_BYTES + 5
    body.expect(wanted)
    assert len(body.room()) == bodies.held_bytes == STEP_BYTES
    body.add(b"a" * (STEP_BYTES - 1))
    assert len(body.room()) == 1
    body.add(b"b")
    assert bodies.held_bytes == STEP_BYTES
    assert len(body.room()) == (GROWTH - 1) * STEP_BYTES
    body.add(b"c" * (GROWTH - 1) * STEP_BYTES)
    assert bodies.held_bytes == GROWTH * STEP_BYTES
    assert body.missing_bytes == GROWTH * STEP_BYTES + 5
    assert len(body.room()) == TURN_BYTES_MAX
    assert body.whole() == b"a" * (STEP_BYTES - 1) + b"b" + b"c" * (GROWTH - 1) * STEP_BYTES
    body.release()
    assert bodies.held_bytes == 0


def test_what_comes_in_one_turn_is_bounded_however_large_the_room_is():
    body = Body()
    body.expect(100 * TURN_BYTES_MAX)
    most = 0
    while body.missing_bytes:
        most = max(most, count := len(body.room()))
        body.came(count)
    assert most == TURN_BYTES_MAX


class Echo:
    """Answers with the digest of what it got."""

    def begin(self, request):
        pass

    async def respond(self, request):
        if request.refusal is not None:
            return Response(request.refusal.http_status, b"", b"refused")
        return Response(200, b"", hashlib.sha256(request.body).hexdigest().encode())


def posted(body):
    return b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body


@pytest.mark.parametrize("size", [65_535, 65_536, STEP_BYTES, STEP_BYTES + 7, 3 * STEP_BYTES])
@pytest.mark.parametrize("cut", [1, 40, 70, 20_000, 10**9])
def test_large_bodies_arrive_whole_and_the_request_behind_them_too(size, cut):
    bodies = [NOISE[:size], b"small", NOISE[1 : size + 1]]

    async def run():
        async with served(Echo()) as (connect, _):
            reader, writer = await connect()
            raw = b"".join(map(posted, bodies))
            writer.write(raw[:cut])
            await writer.drain()
            await asyncio.sleep(0.02)
            writer.write(raw[cut:])
            for body in bodies:
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
                assert head.startswith(b"HTTP/1.1 200")
                assert await reader.readexactly(64) == hashlib.sha256(body).hexdigest().encode()
            writer.close()

    asyncio.run(run())


def test_a_large_body_that_does_not_come_is_refused_in_time():
    async def run():
        async with served(Echo(), read_timeout_s=0.5) as (connect, _):
            reader, writer = await connect()
            writer.write(posted(NOISE[:100_000])[:90_000])
            assert b" 408 " in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            writer.close()

    asyncio.run(run())
