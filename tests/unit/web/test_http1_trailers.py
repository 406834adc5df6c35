"""What a parser keeps beyond a body is bounded, and nothing in a trailer is believed."""

import asyncio

import pytest
from http_server import served

from modelkeep.core.errors import UsageError
from modelkeep.web.messages import Response

CHUNKED = b"POST %b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"


class Application:
    """Answers with what it knows of the head; `/refused` is refused by it."""

    def __init__(self):
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    def begin(self, request):
        if request.url == b"/refused":
            raise UsageError("auth.missing", "no key")

    async def respond(self, request):
        if request.refusal is not None:
            return Response(request.refusal.http_status, b"", request.refusal.code.encode())
        await self.may_answer.wait()
        given = request.headers.get(b"inference-header-content-length", b"none")
        return Response(200, b"", given + b" %d" % len(request.body))


async def status(reader):
    raw = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    length = int(raw.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return int(raw[9:12]), await reader.readexactly(length)


def dialogue(step, application=None):
    async def run():
        bounds = {"header_bytes_max": 8192, "drain_timeout_s": 0.5}
        async with served(application or Application(), **bounds) as (connect, said):
            reader, writer = await connect()
            try:
                return await step(reader, writer)
            finally:
                writer.close()
                assert said == []

    return asyncio.run(run())


@pytest.mark.parametrize("tail", [b"1\r\nx\r\n0\r\nx-a: ", b"5;a="], ids=["trailer", "extension"])
def test_a_trailer_or_extension_without_end_is_a_head_too_large(tail):
    async def step(reader, writer):
        writer.write(CHUNKED % b"/" + tail)
        for _ in range(4):
            writer.write(b"a" * 4096)
            await writer.drain()
            await asyncio.sleep(0.02)
        return await status(reader)

    assert dialogue(step) == (431, b"limit.header")


def test_of_a_refused_request_no_trailer_is_kept():
    async def step(reader, writer):
        writer.write(CHUNKED % b"/refused" + b"0\r\nx-a: ")
        found = await status(reader)
        for _ in range(4):
            writer.write(b"a" * 4096)
            await writer.drain()
            await asyncio.sleep(0.02)
        writer.write(b"\r\n\r\nGET / HTTP/1.1\r\nhost: x\r\n\r\n")
        return found, await asyncio.wait_for(reader.read(), 5)

    assert dialogue(step) == ((401, b"auth.missing"), b"")


def test_what_a_trailer_says_is_not_believed():
    async def step(reader, writer):
        writer.write(CHUNKED % b"/" + b"1\r\nx\r\n0\r\ninference-header-content-length: 1\r\n\r\n")
        return await status(reader)

    assert dialogue(step) == (200, b"none 1")


def test_a_head_that_follows_a_body_counts_for_itself_alone():
    async def step(reader, writer):
        body = b"x" * 12_000
        whole = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 12000\r\n\r\n" + body
        writer.write(whole + whole[:20])
        await asyncio.sleep(0.05)
        writer.write(whole[20:])
        return [await status(reader), await status(reader)]

    assert dialogue(step) == [(200, b"none 12000")] * 2


def test_nobody_is_told_to_continue_amid_another_answer():
    application = Application()
    application.may_answer.clear()

    async def step(reader, writer):
        head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n"
        writer.write(head + b"\r\nx" + head + b"expect: 100-continue\r\n\r\n")
        await asyncio.sleep(0.05)
        application.may_answer.set()
        first = await status(reader)
        writer.write(b"x")
        return [first, await status(reader)]

    assert dialogue(step, application) == [(200, b"none 1")] * 2
