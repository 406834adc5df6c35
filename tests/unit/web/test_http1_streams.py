"""Streams over HTTP/1.1: part by part, no faster than the client reads, closed when it is gone."""

import asyncio
import contextlib

import pytest
from http_server import served

from modelkeep.web.messages import Response

PART = bytes(64 * 1024)


class Application:
    """Answers /parts, /endless, /breaks and everything else with its length."""

    def __init__(self):
        self.closed = asyncio.Event()
        self.sent = 0

    def begin(self, request):
        pass

    async def respond(self, request):
        name = request.url.rpartition(b"/")[2]
        source = {b"parts": self.parts, b"endless": self.endless, b"breaks": self.breaks}.get(name)
        if source is None:
            return Response(200, b"", b"whole")
        return Response(200, b"content-type: text/event-stream\r\n", b"", source())

    async def parts(self):
        for part in (b"one", b"", b"two"):
            await asyncio.sleep(0)
            yield part

    async def endless(self):
        try:
            while True:
                self.sent += len(PART)
                yield PART
                await asyncio.sleep(0)
        finally:
            self.closed.set()

    async def breaks(self):
        yield b"one"
        raise RuntimeError("a bug")


def request(path, version="1.1"):
    return f"GET /{path} HTTP/{version}\r\nhost: x\r\n\r\n".encode()


async def read_until(reader, end):
    return await asyncio.wait_for(reader.readuntil(end), 5)


def test_parts_leave_as_chunks_and_the_connection_lives_on():
    async def run():
        application = Application()
        async with served(application) as (connect, _):
            reader, writer = await connect()
            writer.write(request("parts") + request("other"))
            head = await read_until(reader, b"\r\n\r\n")
            assert b"transfer-encoding: chunked\r\n" in head
            assert b"content-length" not in head
            assert await read_until(reader, b"0\r\n\r\n") == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
            assert (await read_until(reader, b"whole")).startswith(b"HTTP/1.1 200")
            writer.close()

    asyncio.run(run())


def test_to_http_1_0_a_stream_ends_with_the_connection():
    async def run():
        application = Application()
        async with served(application) as (connect, _):
            reader, writer = await connect()
            writer.write(request("parts", "1.0"))
            raw = await asyncio.wait_for(reader.read(), 5)
            assert b"transfer-encoding" not in raw
            assert raw.endswith(b"\r\n\r\nonetwo")
            writer.close()

    asyncio.run(run())


def test_a_stream_waits_for_a_client_that_does_not_read_and_hangs_up_in_the_end():
    async def run():
        application = Application()
        async with served(application, read_timeout_s=1.0) as (connect, _):
            _, writer = await connect()
            writer.transport.pause_reading()
            writer.write(request("endless"))
            await asyncio.sleep(0.4)
            first = application.sent
            await asyncio.sleep(0.3)
            assert application.sent == first, "nothing more is made for whoever does not read"
            assert first < 32 * 1024 * 1024
            await asyncio.wait_for(application.closed.wait(), 5)
            writer.transport.abort()

    asyncio.run(run())


def test_a_stream_is_closed_when_its_client_is_gone():
    async def run():
        application = Application()
        async with served(application) as (connect, complaints):
            reader, writer = await connect()
            writer.write(request("endless"))
            await read_until(reader, b"\r\n\r\n")
            writer.transport.abort()
            await asyncio.wait_for(application.closed.wait(), 5)
            assert complaints == []

    asyncio.run(run())


def test_a_stream_that_breaks_off_does_not_look_whole():
    async def run():
        application = Application()
        async with served(application) as (connect, complaints):
            reader, writer = await connect()
            writer.write(request("breaks"))
            with contextlib.suppress(ConnectionError):
                raw = await asyncio.wait_for(reader.read(), 5)
                assert not raw.endswith(b"0\r\n\r\n")
            assert complaints == ["RuntimeError: a bug"]
            writer.close()

    asyncio.run(run())


@pytest.mark.parametrize("path", ["parts", "endless"])
def test_stopping_waits_for_streams_no_longer_than_it_may(path):
    async def run():
        application = Application()
        async with served(application, drain_timeout_s=0.5) as (connect, _):
            reader, writer = await connect()
            writer.write(request(path))
            await read_until(reader, b"\r\n\r\n")
            if path == "endless":
                writer.transport.pause_reading()
        writer.transport.abort()

    asyncio.run(asyncio.wait_for(run(), 5))
