"""A gateway follows State: what changed is in force soon, and silence lets nobody in."""

import asyncio
import contextlib
import threading
import time

from modelkeep.core.errors import UnavailableError
from modelkeep.core.record import replaced
from modelkeep.core.rows import Token
from modelkeep.workers.state_watch import NOBODY, StateWatch

TOKEN = Token(
    token_id="0" * 16, secret_sha256="0" * 64, principal="a", tenant="t", scopes=(), expires_ns=0
)


class Fake:
    """A State in the test's hands; its methods are called by the watch's own thread."""

    def __init__(self):
        self.number = 1
        self.tokens = (TOKEN,)
        self.opened = 0
        self.fails = False
        self.hangs = threading.Event()
        self.hangs.set()

    def open(self):
        self.opened += 1
        return self

    def revision(self):
        self.hangs.wait(10)
        if self.fails:
            raise UnavailableError("state.unavailable", "no")
        return self.number

    def rows(self, kind):
        return self.tokens if kind is Token else ()

    def close(self):
        return


@contextlib.asynccontextmanager
async def watching(fake, monkeypatch, stale_s=0.05):
    monkeypatch.setattr("modelkeep.workers.state_watch.STALE_S_MAX", stale_s)
    seen = []
    watch = StateWatch(fake.open, every_s=0.005, changed=seen.append, complain=lambda _: None)
    await watch.start()
    guard = asyncio.get_running_loop().create_task(watch.guard())
    try:
        yield seen
    finally:
        guard.cancel()


async def until(holds):
    ends = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < ends
        await asyncio.sleep(0.002)


def test_keys_are_known_before_the_first_call_and_read_again_only_after_a_change(monkeypatch):
    async def scene():
        fake = Fake()
        async with watching(fake, monkeypatch, stale_s=5) as seen:
            assert len(seen[0].keyring) == 1
            await asyncio.sleep(0.05)
            assert len(seen) == 1
            fake.tokens, fake.number = (), 2
            await until(lambda: len(seen) == 2)
            assert len(seen[1].keyring) == 0
            assert fake.opened == 1

    asyncio.run(scene())


def test_a_state_that_fails_lets_nobody_in_until_it_answers(monkeypatch):
    async def scene():
        fake = Fake()
        async with watching(fake, monkeypatch) as seen:
            fake.fails = True
            await until(lambda: seen[-1] is NOBODY)
            fake.fails = False
            await until(lambda: len(seen[-1].keyring) == 1)
            assert fake.opened > 1

    asyncio.run(scene())


def test_a_state_that_hangs_stops_neither_the_gateway_nor_the_guard(monkeypatch):
    async def scene():
        fake = Fake()
        async with watching(fake, monkeypatch) as seen:
            fake.hangs.clear()
            await until(lambda: seen[-1] is NOBODY)
            count = len(seen)
            fake.number = 2
            fake.hangs.set()
            await until(lambda: len(seen) > count)
            assert len(seen[-1].keyring) == 1

    asyncio.run(scene())


def test_a_revocation_survives_a_gateway_that_stalls(monkeypatch):
    """Rows that come too late are not used, and must not be taken for read either."""

    async def scene():
        fake = Fake()
        fake.tokens = (TOKEN, replaced(TOKEN, token_id="1" * 16))
        async with watching(fake, monkeypatch) as seen:
            assert len(seen[-1].keyring) == 2
            fake.tokens, fake.number = (TOKEN,), 2
            time.sleep(0.3)  # noqa: ASYNC251 - the event loop stalls, the reading thread does not
            await until(lambda: len(seen[-1].keyring) == 1)
            assert all(len(each.keyring) < 2 for each in seen[1:])

    asyncio.run(scene())


def test_a_row_that_cannot_be_used_lets_nobody_in(monkeypatch):
    """The reading thread ends; silence does the rest."""
    monkeypatch.setattr(threading, "excepthook", lambda _: None)

    async def scene():
        fake = Fake()
        async with watching(fake, monkeypatch) as seen:
            fake.tokens, fake.number = ("no token",), 2
            await until(lambda: seen[-1] is NOBODY)

    asyncio.run(scene())
