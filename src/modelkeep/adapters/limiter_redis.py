"""The limiter of several machines: Redis or Valkey counts, with its own clock.

The same sliding window as `gate.quota`, in scripts that run whole or not at all inside the server.
A lease ends by the server's clock; a worker counts its rest from the moment it asked, so that it
never ends later here than there.

Places are kept per worker with an end; `tend` puts it off. So those of a dead worker come back
within `HOLD_US`, and one that was stopped for longer may hold places that were given to others.

While Redis is away nothing is lent, and nobody waits for it: for `AWAY_NS` after a failure every
question is refused at once. What Redis forgets (a restart without persistence, a failover to a
replica that lagged behind) begins anew. Its wall clock should not be set forward; set back, windows
last longer.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import RedisError

from modelkeep.core.errors import UnavailableError
from modelkeep.crypto.secret import Secret
from modelkeep.gate.limit_settings import LimiterSettings
from modelkeep.gate.quota import BUCKETS, FREE_PARTS, RING, SLICES
from modelkeep.ports.limiter import Change, Lease, Meter

CONNECTIONS_MAX = 8
AWAY_NS = 500_000_000
HOLD_US = 10_000_000
REFRESH_NS = 2_000_000_000
_US = 1000  # nanoseconds

# KEYS: the window. ARGV: width of a bucket (us), limit, least, wish, then bucket and amount of each
# change. Gives amount, bucket, us until the bucket ends, us until `least` may fit (-1 never).
_LEASE = f"""
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local width, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local least, wish = tonumber(ARGV[3]), tonumber(ARGV[4])
local head = (now - now % width) / width
local counts, total, old = {{}}, 0, {{}}
local stored = redis.call('HGETALL', KEYS[1])
for i = 1, #stored, 2 do
    local bucket, count = tonumber(stored[i]), tonumber(stored[i + 1])
    counts[bucket] = count
    if bucket > head then head = bucket end
end
for bucket, count in pairs(counts) do
    if bucket <= head - {RING} then old[#old + 1] = bucket else total = total + count end
end
for i = 1, #old do
    counts[old[i]] = nil
    redis.call('HDEL', KEYS[1], string.format('%.0f', old[i]))
end
local function put(bucket, count)
    total = total + count - (counts[bucket] or 0)
    counts[bucket] = count
    redis.call('HSET', KEYS[1], string.format('%.0f', bucket), string.format('%.0f', count))
end
for i = 5, #ARGV, 2 do
    local bucket, amount = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
    if amount > 0 then
        put(head, math.min((counts[head] or 0) + amount, {2**46}))
    elseif counts[bucket] then
        put(bucket, math.max(0, counts[bucket] + amount))
    end
end
local free, amount, opens = limit - total, 0, 0
if least > 0 and free >= least then
    local most = math.min(math.floor(limit / {SLICES}), math.floor(free / {FREE_PARTS}))
    amount = math.max(least, math.min(wish, most))
    put(head, (counts[head] or 0) + amount)
elseif least > limit then
    opens = -1
elseif least > 0 then
    local missing = least - free
    for bucket = head - {BUCKETS}, head do
        missing = missing - (counts[bucket] or 0)
        if missing <= 0 then
            opens = (bucket + {RING}) * width - now
            break
        end
    end
end
redis.call('PEXPIRE', KEYS[1], math.ceil(width * {RING + 1} / 1000) + 1000)
return {{string.format('%.0f', amount), string.format('%.0f', head),
    string.format('%.0f', (head + 1) * width - now), string.format('%.0f', opens)}}
"""
# KEYS: the places. ARGV: limit, worker, what it holds, what it wants beyond (negative frees),
# spare. Gives what it holds now, and when somebody was last refused.
_HOLD = f"""
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local limit, worker = tonumber(ARGV[1]), ARGV[2]
local held, change, spare = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local others, wanted = 0, '0'
local stored = redis.call('HGETALL', KEYS[1])
for i = 1, #stored, 2 do
    if stored[i] == 'wanted' then
        wanted = stored[i + 1]
    elseif stored[i] ~= worker then
        local count, ends = string.match(stored[i + 1], '^(%d+):(%d+)$')
        if tonumber(ends) <= now then
            redis.call('HDEL', KEYS[1], stored[i])
        else
            others = others + tonumber(count)
        end
    end
end
local free = limit - others - held
if change > 0 then
    if free >= change then
        held = held + change + math.min(spare, math.floor((free - change) / 8))
    else
        redis.call('HSET', KEYS[1], 'wanted', string.format('%.0f', now))
    end
else
    held = math.max(0, held + change)
end
if held > 0 then
    local ends = string.format('%.0f', now + {HOLD_US})
    redis.call('HSET', KEYS[1], worker, string.format('%.0f', held) .. ':' .. ends)
else
    redis.call('HDEL', KEYS[1], worker)
end
redis.call('PEXPIRE', KEYS[1], {2 * HOLD_US // 1000})
return {{string.format('%.0f', held), wanted}}
"""


class RedisLimiter:
    """Limits of all workers that know one Redis.

    Args:
        settings: of the table `[limiter]`.
        password: read at each connection.
        prefix: of every key, so that several keeps can share one server.
    """

    def __init__(
        self,
        settings: LimiterSettings,
        *,
        prefix: str,
        password: Callable[[], Secret] | None = None,
        now_ns: Callable[[], int] = lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME),
    ) -> None:
        self._now_ns = now_ns
        self._prefix = prefix
        self._worker = os.urandom(8).hex()
        self._redis = _client(settings, password)
        self._lease = self._redis.register_script(_LEASE)
        self._hold = self._redis.register_script(_HOLD)
        self._away_ns = 0
        self._held: dict[bytes, tuple[Meter, int]] = {}
        self._wanted: dict[bytes, str] = {}
        self._locks: dict[bytes, asyncio.Lock] = {}
        self._refreshed_ns = now_ns()

    def now_ns(self) -> int:
        return self._now_ns()

    async def lease(
        self, meter: Meter, *, least: int, wish: int, changes: Sequence[Change] = ()
    ) -> Lease:
        width_us = meter.window_ns // BUCKETS // _US
        told: list[int] = [width_us, meter.limit, least, wish]
        for each in changes:
            told += [each.bucket, each.amount]
        asked_ns = self.now_ns()
        said = await self._asked(self._lease, f"w:{width_us}:{meter.key.hex()}", told)
        amount, bucket, ends_us, opens_us = map(int, said)
        opens_ns = 0 if amount or not least else -1
        if opens_us > 0:
            opens_ns = self.now_ns() + opens_us * _US  # later than there, so that it is true then
        return Lease(amount, bucket, asked_ns + ends_us * _US, opens_ns)

    async def hold(self, meter: Meter, change: int, *, spare: int = 0) -> int:
        async with self._locks.setdefault(meter.key, asyncio.Lock()):
            return await self._changed(meter, change, spare=spare)

    async def tend(self) -> frozenset[bytes]:
        if self.now_ns() - self._refreshed_ns < REFRESH_NS:
            return frozenset()
        self._refreshed_ns = self.now_ns()
        before = dict(self._wanted)
        for key, (meter, _) in list(self._held.items()):
            async with self._locks.setdefault(key, asyncio.Lock()):
                await self._changed(meter, 0, spare=0)
        for key in [each for each in self._locks if each not in self._held]:
            if not self._locks[key].locked():
                del self._locks[key]
                self._wanted.pop(key, None)
        return frozenset(key for key, at in self._wanted.items() if before.get(key, "0") != at)

    async def close(self) -> None:
        held, self._held = self._held, {}
        try:
            for meter, count in held.values():
                await self._asked(
                    self._hold,
                    f"p:{meter.key.hex()}",
                    [meter.limit, self._worker, count, -count, 0],
                )
        except UnavailableError:
            pass  # they come back by themselves
        await self._redis.aclose()

    async def _changed(self, meter: Meter, change: int, *, spare: int) -> int:
        """Say what is held and what is wanted; what is held is always said whole."""
        before = self._held.get(meter.key, (meter, 0))[1]
        if change < 0:  # given back, whether or not it is heard now: the next word says it again
            self._held[meter.key] = (meter, max(0, before + change))
        told = [meter.limit, self._worker, before, change, spare]
        held, wanted = await self._asked(self._hold, f"p:{meter.key.hex()}", told)
        if int(held):
            self._held[meter.key] = (meter, int(held))
        else:
            self._held.pop(meter.key, None)
        self._wanted[meter.key] = wanted
        return int(held) - before

    async def _asked(self, script: Any, key: str, told: Sequence[object]) -> list[str]:
        """Run a script.

        Raises:
            UnavailableError: `gate.limiter`.
        """
        if self.now_ns() < self._away_ns:
            raise _away("it did not answer a moment ago")
        try:
            said: list[str] = await script(keys=[f"{self._prefix}:{key}"], args=list(told))
        except (RedisError, OSError, TimeoutError) as error:
            self._away_ns = self.now_ns() + AWAY_NS
            raise _away(type(error).__name__) from error
        return said


class _Password(CredentialProvider):
    """The user and the password as their reference gives them at this moment."""

    def __init__(self, user: str, password: Callable[[], Secret]) -> None:
        self._user = user
        self._password = password

    def get_credentials(self) -> tuple[str, str] | tuple[str]:
        secret = self._password().reveal().decode()
        return (self._user, secret) if self._user else (secret,)


def _client(settings: LimiterSettings, password: Callable[[], Secret] | None) -> Any:
    scheme, _, rest = settings.redis.partition("://")
    user, at, place = rest.rpartition("@") if scheme != "unix" else ("", "", rest)
    options: dict[str, Any] = {}
    if scheme == "rediss":
        options = {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
        if settings.ca:
            options["ssl_ca_certs"] = settings.ca
    if password is not None:
        options["credential_provider"] = _Password(user, password)
    elif at:
        options["username"] = user
    pool = BlockingConnectionPool.from_url(
        f"{scheme}://{place}",
        max_connections=CONNECTIONS_MAX,
        timeout=settings.timeout_s,
        socket_timeout=settings.timeout_s,
        socket_connect_timeout=settings.timeout_s,
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
        **options,
    )
    return Redis.from_pool(pool)


def _away(why: str) -> UnavailableError:
    return UnavailableError(
        "gate.limiter",
        f"what callers used up cannot be asked for ({why})",
        hint='try again soon; [limiter] away = "local" goes on without Redis',
    )
