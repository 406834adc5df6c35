"""The limiter of several machines keeps the promises of its port, with a real Redis."""

import asyncio
import os
import time

import pytest
from redis_server import PASSWORD, running_redis

from modelkeep.adapters.limiter_fallback import FallbackLimiter
from modelkeep.adapters.limiter_redis import RedisLimiter
from modelkeep.adapters.limiter_shared import SharedLimiter
from modelkeep.core.errors import UnavailableError
from modelkeep.crypto.secret import Secret
from modelkeep.gate.limit_settings import LimiterSettings
from modelkeep.ports.limiter import Meter
from modelkeep.testing.limiter_contract import LimiterContract

HOUR = Meter(b"hour".ljust(16), 3600 * 10**9, 100)


@pytest.fixture(scope="module")
def server():
    with running_redis() as started:
        yield started


@pytest.fixture(scope="module")
def tls_server():
    with running_redis(with_tls=True) as started:
        yield started


def password():
    return Secret(PASSWORD.encode())


def limiter_at(server, *, prefix, **changes):
    ca = str(server.ca) if server.with_tls else ""
    settings = LimiterSettings(**{"redis": server.url, "ca": ca, "timeout_s": 5.0, **changes})
    return RedisLimiter(settings, prefix=prefix, password=password)


class TestRedisLimiter(LimiterContract):
    @pytest.fixture
    def workers(self, server):
        prefix = os.urandom(4).hex()
        return lambda: limiter_at(server, prefix=prefix)


def test_it_speaks_tls_and_knows_whom_it_speaks_to(tls_server):
    async def scene(ca):
        limiter = limiter_at(tls_server, prefix="tls", ca=ca)
        try:
            return (await limiter.lease(HOUR, least=1, wish=0)).amount
        finally:
            await limiter.close()

    assert asyncio.run(scene(str(tls_server.ca))) == 1
    with pytest.raises(UnavailableError) as caught:
        asyncio.run(scene(""))  # not an authority that this machine knows
    assert caught.value.code == "gate.limiter"


def test_a_wrong_password_lends_nothing_and_is_told_nowhere(server):
    async def scene():
        settings = LimiterSettings(redis=server.url, timeout_s=5.0)
        limiter = RedisLimiter(settings, prefix="x", password=lambda: Secret(b"hunter2"))
        try:
            await limiter.lease(HOUR, least=1, wish=0)
        finally:
            await limiter.close()

    with pytest.raises(UnavailableError) as caught:
        asyncio.run(scene())
    assert "hunter2" not in str(caught.value) + repr(caught.value.__cause__)


def test_who_waits_for_a_place_is_heard_by_those_who_hold_some(server, monkeypatch):
    monkeypatch.setattr("modelkeep.adapters.limiter_redis.REFRESH_NS", 0)

    async def scene():
        one, other = (limiter_at(server, prefix="heard") for _ in range(2))
        places = Meter(b"p" * 16, 0, 10)
        assert await one.hold(places, 10) == 10
        assert await one.tend() == frozenset()
        assert await other.hold(places, 1) == 0
        assert await one.tend() == {places.key}
        assert await one.tend() == frozenset()
        await one.close()
        await other.close()

    asyncio.run(scene())


def test_the_places_of_a_dead_worker_come_back_when_its_time_is_over(server, monkeypatch):
    from modelkeep.adapters import limiter_redis  # noqa: PLC0415

    short = limiter_redis._HOLD.replace(str(limiter_redis.HOLD_US), "200000")
    monkeypatch.setattr(limiter_redis, "_HOLD", short)

    async def scene():
        dead, other = (limiter_at(server, prefix="dead") for _ in range(2))
        places = Meter(b"p" * 16, 0, 10)
        assert await dead.hold(places, 10) == 10
        assert await other.hold(places, 1) == 0
        await asyncio.sleep(0.25)
        assert await other.hold(places, 10) == 10
        dead._held.clear()
        await dead.close()
        await other.close()

    asyncio.run(scene())


@pytest.fixture
def going():
    """A server that is stopped and started by its test."""
    with running_redis() as started:
        yield started


def test_while_redis_is_away_nothing_is_lent_and_nobody_waits(going):
    async def scene():
        limiter = limiter_at(going, prefix="away")
        assert (await limiter.lease(HOUR, least=1, wish=0)).amount == 1
        going.stop()
        begun = time.monotonic()
        for _ in range(100):
            with pytest.raises(UnavailableError):
                await limiter.lease(HOUR, least=1, wish=0)
        assert time.monotonic() - begun < 0.4
        going.start()
        await asyncio.sleep(0.6)
        assert (await limiter.lease(HOUR, least=1, wish=0)).amount == 1
        await limiter.close()

    asyncio.run(scene())


def test_a_local_share_goes_on_while_redis_is_away(going, tmp_path):
    async def scene():
        local = SharedLimiter(tmp_path / "limits")
        limiter = FallbackLimiter(limiter_at(going, prefix="share"), local, share=0.25)
        places = Meter(b"p" * 16, 0, 8)
        assert (await limiter.lease(HOUR, least=1, wish=0)).amount == 1
        assert await limiter.hold(places, 1) == 1
        going.stop()
        lease = await limiter.lease(HOUR, least=25, wish=0)
        assert lease.amount == 25
        assert 0 < lease.ends_ns - limiter.now_ns() <= 36 * 10**9
        assert (await limiter.lease(HOUR, least=1, wish=0)).amount == 0
        assert [await limiter.hold(places, 1) for _ in range(3)] == [1, 1, 0]
        assert await limiter.hold(places, -3) == -3
        assert await limiter.hold(places, 2) == 2
        await limiter.close()

    asyncio.run(scene())
