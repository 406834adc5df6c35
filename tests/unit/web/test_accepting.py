"""Promise: however many connect at once, one handshake begins in a turn, and few are open."""

import asyncio
import contextlib
import socket
import ssl
import time
from functools import partial

import pytest
import uvloop
from http_server import contexts

from modelkeep.web import accepting
from modelkeep.web.accepting import Accepting

LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


def client_hello(trusting):
    """What a client says first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


class World:
    """A listener whose beginnings are counted for each turn of the loop."""

    def __init__(self, **bounds):
        self.context, self.trusting = contexts()
        self.hello = client_hello(self.trusting)
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.address = self.listening.getsockname()
        self.loop = asyncio.get_running_loop()
        self.begun = []  # the turn of each
        self.complaints = []
        self._turn = 0
        self._is_counting = True
        self._count()
        bounds = {"handshake_s": 5.0} | bounds
        self.accepting = Accepting(
            self.listening, self.context, make=self._made, complain=self.complaints.append, **bounds
        )
        self.clients = []

    def _count(self):
        self._turn += 1
        if self._is_counting:
            self.loop.call_soon(self._count)

    def _made(self):
        self.begun.append(self._turn)
        return asyncio.Protocol()

    def connect(self, said=b""):
        client = socket.create_connection(self.address)
        client.sendall(said)
        client.settimeout(0)
        self.clients.append(client)
        return client

    async def until(self, holds):
        ends = time.monotonic() + 5
        while not holds():
            assert time.monotonic() < ends
            await asyncio.sleep(0.001)

    async def secured(self):
        """A client that is through its handshake."""
        _, writer = await asyncio.open_connection(
            *self.address, ssl=self.trusting, server_hostname="localhost"
        )
        return writer

    def end(self):
        self._is_counting = False
        self.accepting.stop()
        for each in self.clients:
            each.close()
        assert self.complaints == []


def opening(world, count):
    return world.accepting.opening_count == count


def is_open(client):
    try:
        return client.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


def ran(loop, test, **bounds):
    async def run():
        world = World(**bounds)
        try:
            await test(world)
        finally:
            world.end()
            await asyncio.sleep(0.01)

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(run())


@pytest.mark.parametrize("loop", LOOPS)
def test_of_a_burst_one_handshake_begins_in_a_turn_and_few_go_on_at_once(loop, monkeypatch):
    monkeypatch.setattr(accepting, "YOUNG_S", 0.1)

    async def burst(world):
        for _ in range(40):
            world.connect(world.hello)
        await world.until(lambda: len(world.begun) == accepting.YOUNG_MAX)
        await asyncio.sleep(0.02)
        assert len(world.begun) == accepting.YOUNG_MAX, "the others wait until these are old"
        await world.until(lambda: len(world.begun) == 40)
        assert len(set(world.begun)) == 40, "two began in one turn"

    ran(loop, burst)


@pytest.mark.parametrize("loop", LOOPS)
def test_those_who_say_nothing_and_then_all_speak_at_once_begin_one_by_one(loop):
    async def chorus(world):
        silent = [world.connect() for _ in range(40)]
        await world.until(lambda: world.accepting.opening_count == 40)
        assert world.begun == [], "TLS is set up for whoever speaks"
        for each in silent:
            each.sendall(world.hello)
        await world.until(lambda: len(world.begun) == 40)
        assert len(set(world.begun)) == 40

    ran(loop, chorus)


def test_past_the_bound_a_newcomer_takes_the_place_of_whoever_is_silent_longest():
    async def crowd(world):
        silent = []
        for number in range(20):
            silent.append(world.connect())
            there = min(number + 1, 8)
            await world.until(partial(opening, world, there))
            await asyncio.sleep(0.002)
        assert [is_open(each) for each in silent] == [False] * 12 + [True] * 8
        (await world.secured()).close()

    ran("uvloop", crowd, opening_max=8)


def test_past_the_bound_those_amid_a_handshake_keep_their_place_for_a_while(monkeypatch):
    monkeypatch.setattr(accepting, "PATIENCE_S", 0.3)
    monkeypatch.setattr(accepting, "YOUNG_S", 0.0)

    async def crowd(world):
        slow = [world.connect(world.hello) for _ in range(8)]
        await world.until(lambda: len(world.begun) == 8)
        waiting = asyncio.create_task(world.secured())
        await asyncio.sleep(0.1)
        assert world.accepting.opening_count == 8
        assert not waiting.done()
        while not waiting.done():  # the server does so twice a second
            world.accepting.sweep()
            await asyncio.sleep(0.02)
        (await waiting).close()
        await asyncio.sleep(0.02)
        assert all(is_open(each) for each in slow[2:])

    ran("uvloop", crowd, opening_max=8)


def test_who_says_nothing_in_time_is_hung_up_on():
    async def silence(world):
        client = world.connect()
        await world.until(lambda: world.accepting.opening_count == 1)
        world.accepting.sweep()
        assert is_open(client)
        await asyncio.sleep(0.06)
        world.accepting.sweep()
        await asyncio.sleep(0.01)
        assert not is_open(client)
        assert world.accepting.opening_count == 0

    ran("uvloop", silence, handshake_s=0.05)


@pytest.mark.parametrize("loop", LOOPS)
def test_what_is_no_tls_or_gives_up_leaves_nothing(loop):
    async def nonsense(world):
        for said in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01" * 90, world.hello[:50], b""):
            world.connect(said).close()
        await world.until(lambda: len(world.begun) == 4)
        await world.until(lambda: world.accepting.opening_count == 0)
        (await world.secured()).close()

    ran(loop, nonsense)


def test_when_it_stops_the_silent_are_hung_up_on():
    async def stopping(world):
        client = world.connect()
        await world.until(lambda: world.accepting.opening_count == 1)
        world.accepting.stop()
        await asyncio.sleep(0.01)
        assert not is_open(client)
        with pytest.raises(ConnectionError):
            socket.create_connection(world.address)

    ran("uvloop", stopping)
