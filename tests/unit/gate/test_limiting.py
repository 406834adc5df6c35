"""Goal: who is bound by what, what a refusal costs (nothing), what comes back when a call is over.

The limits run over the real limiter of one machine, with clocks that the test turns.
"""

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelkeep.adapters.limiter_shared import SharedLimiter
from modelkeep.core.errors import KeepError, LimitError, UnavailableError
from modelkeep.core.principal import Principal
from modelkeep.gate.limit_rules import counted_network
from modelkeep.gate.limit_settings import (
    LimiterSettings,
    LimitSettings,
    QueueSettings,
    limit_problems,
)
from modelkeep.gate.limiting import Limits

S = 10**9


def who(name="alice", tenant="acme", roles=()):
    return Principal(name=name, tenant=tenant, scopes=("infer:*",), roles=roles)


class Scene:
    """Gateways of one machine; `tick` lets time pass."""

    def __init__(self, folder, *rules, workers=1, queue=QueueSettings(), room=16):  # noqa: B008
        self.at_ns = 1000 * S
        self.refused = []
        self.all = []
        for _ in range(workers):
            limits = Limits(
                rules,
                lambda: SharedLimiter(
                    folder / "limits", boottime_ns=lambda: self.at_ns, boot_id=b"1" * 16
                ),
                queue=queue,
                now_ns=lambda: self.at_ns,
                make_turn=lambda: asyncio.get_running_loop().create_future(),
                room_of=lambda _: (room, room),
                on_refused=self.refused.append,
            )
            self.all.append(limits)
        self.limits = self.all[0]

    def tick(self, seconds):
        self.at_ns += int(seconds * S)

    async def enter(self, principal=None, model="digits", address="10.0.0.1", **used):
        used = {"size_bytes": 100, **used}
        return await self.limits.enter(principal or who(), model, address, **used)

    async def let_in(self, many, *words, **used):
        """How many of so many calls get in; those who did leave at once."""
        count = 0
        for _ in range(many):
            try:
                ticket = await self.enter(*words, **used)
            except LimitError:
                continue
            ticket.leave(tokens=used.get("tokens", 0))
            count += 1
        return count

    async def close(self):
        for each in self.all:
            await each.close()


@pytest.fixture
def play(tmp_path):
    """Run a scene in a loop, and close it."""

    def played(act, *rules, **knobs):
        async def whole():
            scene = Scene(tmp_path, *rules, **knobs)
            try:
                return await act(scene)
            finally:
                await scene.close()

        return asyncio.run(whole())

    return played


def test_without_tables_everybody_gets_in_and_no_file_is_made(play, tmp_path):
    async def act(scene):
        assert await scene.let_in(10_000) == 10_000
        await scene.limits.tend()

    play(act)
    assert not (tmp_path / "limits").exists()


def test_a_call_is_bound_by_every_table_that_fits(play):
    async def act(scene):
        assert await scene.let_in(20) == 5
        assert await scene.let_in(20, who("bob")) == 2  # of acme's seven
        assert await scene.let_in(20, who("eve", "evil")) == 5
        scene.tick(61)
        assert await scene.let_in(20) == 5

    each = LimitSettings(name="each", calls_per_minute=5)
    tenant = LimitSettings(name="tenant", each=("tenant",), calls_per_minute=7)
    play(act, each, tenant)


@pytest.mark.parametrize(
    ("rule", "bound", "free"),
    [
        ({"principal": "ali*"}, who(), who("bob")),
        ({"tenant": "acme"}, who(), who(tenant="blue")),
        ({"role": "trial*"}, who(roles=("x", "trial-2")), who()),
    ],
)
def test_a_table_binds_whom_its_patterns_fit(play, rule, bound, free):
    async def act(scene):
        assert await scene.let_in(5, bound) == 1
        assert await scene.let_in(5, free) == 5

    play(act, LimitSettings(name="r", calls_per_hour=1, **rule))


def test_models_and_networks_are_counted_apart_where_a_table_says_so(play):
    async def act(scene):
        assert await scene.let_in(5, None, "digits", "2001:db8:1:2::1") == 1
        assert await scene.let_in(5, None, "digits", "2001:db8:1:2:ffff::9%eth0") == 0
        assert await scene.let_in(5, None, "digits", "2001:db8:1:3::1") == 1
        assert await scene.let_in(5, None, "llm", "2001:db8:1:2::1") == 1
        assert await scene.let_in(5, None, "digits", "10.0.0.1") == 5

    rule = LimitSettings(
        name="r", address="2001:db8::/32", each=("model", "address"), calls_per_hour=1
    )
    play(act, rule)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", "unknown"),
        ("no address", "unknown"),
    ],
)
def test_an_address_counts_under_what_one_household_commands(address, network):
    assert counted_network(address) == network


def test_a_refusal_says_when_to_come_again_and_then_it_is_true(play):
    async def act(scene):
        await scene.let_in(10)
        with pytest.raises(LimitError) as caught:
            await scene.enter()
        assert caught.value.code == "quota.calls"
        assert caught.value.http_status == 429
        assert "each of 10 calls in any minute" in caught.value.message
        wait_s = caught.value.context["retry_after_s"]
        assert 60 <= wait_s <= 62
        assert scene.refused == ["quota.calls"]
        scene.tick(wait_s)
        assert await scene.let_in(20) == 10

    play(act, LimitSettings(name="each", calls_per_minute=10))


def test_a_refusal_charges_nothing(play):
    async def act(scene):
        for _ in range(50):
            with pytest.raises(LimitError) as caught:
                await scene.enter(size_bytes=101)
            assert caught.value.code == "quota.bytes"
            assert "ask for less" in caught.value.hint
        assert scene.refused == ["quota.bytes"] * 50
        assert await scene.let_in(20, size_bytes=10) == 10

    play(act, LimitSettings(name="each", calls_per_minute=11, concurrent=3, bytes_per_minute=100))


def test_asked_tokens_are_reserved_and_what_was_not_used_comes_back(play):
    async def act(scene):
        ticket = await scene.enter(tokens=800)
        with pytest.raises(LimitError) as caught:
            await scene.enter(tokens=300)
        assert caught.value.code == "quota.tokens"
        ticket.leave(tokens=100)
        ticket.leave(tokens=100)  # a second time changes nothing
        scene.tick(0.1)
        with pytest.raises(LimitError):
            await scene.enter(tokens=901)
        (await scene.enter(tokens=900)).leave(tokens=900)
        with pytest.raises(LimitError):
            await scene.enter(tokens=1)

    play(act, LimitSettings(name="each", tokens_per_hour=1000))


def test_tokens_beyond_what_was_reserved_are_paid_by_the_next(play):
    async def act(scene):
        (await scene.enter(tokens=10)).leave(tokens=5_000)
        with pytest.raises(LimitError):
            await scene.enter(tokens=1)
        scene.tick(3600 * 1.02)
        (await scene.enter(tokens=1000)).leave(tokens=1000)

    play(act, LimitSettings(name="each", tokens_per_hour=1000))


def test_bytes_that_went_out_are_paid_by_the_next(play):
    async def act(scene):
        (await scene.enter(size_bytes=400)).leave(size_bytes=700)
        with pytest.raises(LimitError):
            await scene.enter(size_bytes=1)
        assert await scene.let_in(3, size_bytes=0) == 3

    play(act, LimitSettings(name="each", bytes_per_hour=1000))


def test_places_come_back_when_calls_leave(play):
    async def act(scene):
        tickets = [await scene.enter() for _ in range(3)]
        with pytest.raises(LimitError) as caught:
            await scene.enter()
        assert caught.value.code == "quota.concurrent"
        tickets[0].leave()
        await scene.enter()

    play(act, LimitSettings(name="each", concurrent=3))


def test_idle_places_of_one_gateway_go_to_the_other_that_wants_them(play):
    async def act(scene):
        one, other = scene.all
        for ticket in [await one.enter(who(), "m", "", size_bytes=1) for _ in range(4)]:
            ticket.leave()
        with pytest.raises(LimitError):
            await other.enter(who(), "m", "", size_bytes=1)
        await one.tend()
        for _ in range(4):
            await other.enter(who(), "m", "", size_bytes=1)

    play(act, LimitSettings(name="each", concurrent=4), workers=2)


def test_what_an_idle_gateway_lent_comes_back_when_it_tends(play):
    async def act(scene):
        one, other = scene.all
        for _ in range(64):  # its slices grow
            (await one.enter(who(), "m", "", size_bytes=1)).leave()
        scene.tick(1)
        await one.tend()
        got = 0
        for _ in range(10_000):
            try:
                (await other.enter(who(), "m", "", size_bytes=1)).leave()
            except LimitError:
                break
            got += 1
        assert got == 10_000 - 64

    play(act, LimitSettings(name="each", calls_per_minute=10_000), workers=2)


def test_what_was_used_is_remembered_when_the_tables_change(play):
    async def act(scene):
        assert await scene.let_in(20) == 10
        scene.limits.replace(
            (LimitSettings(name="each", calls_per_minute=15),), queue=QueueSettings()
        )
        assert await scene.let_in(20) == 5
        scene.limits.replace((), queue=QueueSettings())
        assert await scene.let_in(20) == 20
        scene.limits.replace(
            (LimitSettings(name="each", calls_per_minute=15),), queue=QueueSettings()
        )
        assert await scene.let_in(20) == 0

    play(act, LimitSettings(name="each", calls_per_minute=10))


def test_who_is_shed_has_been_charged_nothing(play):
    async def act(scene):
        held = [await scene.enter() for _ in range(2)]
        with pytest.raises(UnavailableError) as caught:
            await scene.enter()
        assert caught.value.code == "gate.busy"
        assert caught.value.context["retry_after_s"] >= 1
        for each in held:
            each.leave()
        assert await scene.let_in(20) == 8

    queue = QueueSettings(waiting_max=0)
    play(act, LimitSettings(name="each", calls_per_minute=10, concurrent=9), queue=queue, room=2)


def test_who_goes_away_while_it_waits_has_been_charged_nothing(play):
    async def act(scene):
        held = await scene.enter()
        waiting = asyncio.create_task(scene.enter())
        await asyncio.sleep(0)
        assert scene.limits.waiting == 1
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert scene.limits.waiting == 0
        held.leave()
        assert await scene.let_in(20) == 9

    play(act, LimitSettings(name="each", calls_per_minute=10, concurrent=9), room=1)


def test_a_limiter_that_cannot_answer_refuses_what_is_limited_and_nothing_else(play):
    async def act(scene):
        await scene.enter(who("bob"))
        limiter = scene.limits._limiter
        held = SharedLimiter(limiter_path(limiter))
        meter = next(iter(scene.limits._gauges.values())).meter
        held._locks.take(held._place(meter.key) + 65)
        scene.tick(2)
        with pytest.raises(UnavailableError) as caught:
            await scene.enter(who("bob"))
        assert caught.value.code == "gate.limiter"
        await scene.enter(who("alice"))
        held._locks.let_go(held._place(meter.key) + 65)
        await held.close()
        await scene.enter(who("bob"))

    play(act, LimitSettings(name="bob", principal="bob", calls_per_minute=10))


def limiter_path(limiter):
    from pathlib import Path  # noqa: PLC0415

    return Path(f"/proc/self/fd/{limiter._fd}").readlink()


class Story:
    """Random calls over several gateways, and a plain list of what they were given."""

    def __init__(self, scene, seed):
        self.scene = scene
        self.drawn = random.Random(seed)  # noqa: S311
        self.entered, self.under_way, self.used = [], [], []

    async def call(self, limits):
        asked = self.drawn.randint(0, 200)
        try:
            ticket = await limits.enter(who(), "m", "", size_bytes=1, tokens=asked)
        except KeepError:
            return
        self.entered.append(self.scene.at_ns)
        self.under_way.append((ticket, self.scene.at_ns, asked))

    def leave(self):
        if self.under_way:
            place = self.drawn.randrange(len(self.under_way))
            ticket, at_ns, asked = self.under_way.pop(place)
            used = self.drawn.randint(0, asked)
            self.used.append((at_ns, used))
            ticket.leave(tokens=used)

    async def step(self):
        limits = self.drawn.choice(self.scene.all)
        kind = self.drawn.choices(("call", "leave", "tick", "tend"), (60, 25, 10, 5))[0]
        if kind == "call":
            await self.call(limits)
        elif kind == "leave":
            self.leave()
        elif kind == "tick":
            self.scene.tick(self.drawn.choice((0.01, 1, 10)))
        else:
            await limits.tend()


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.integers(1, 3))
def test_no_order_of_calls_passes_a_limit_or_loses_a_unit(tmp_path_factory, seed, workers):
    rule = LimitSettings(name="r", calls_per_minute=50, tokens_per_minute=2000, concurrent=7)

    async def act():
        scene = Scene(tmp_path_factory.mktemp("limits"), rule, workers=workers)
        story = Story(scene, seed)
        for _ in range(250):
            await story.step()
            assert len(story.under_way) <= 7
        for start in story.entered:
            assert sum(start <= at <= start + 60 * S for at in story.entered) <= 50
        for start, _ in story.used:
            assert sum(used for at, used in story.used if 0 <= at - start <= 60 * S) <= 2000
        while story.under_way:
            story.leave()
        scene.tick(62)
        for each in scene.all * 2:
            await each.tend()
        scene.tick(1)
        assert await scene.let_in(60) == 50  # all of it is there again
        await scene.close()

    asyncio.run(act())


def problems(*limits, limiter=LimiterSettings(), queue=QueueSettings()):  # noqa: B008
    return [text for is_bad, text in limit_problems(limits, limiter, queue) if is_bad]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"name": "Bad Name", "calls_per_day": 1}, "limits.name"),
        ({"name": "a"}, "limits nothing"),
        ({"name": "a", "calls_per_day": -1}, "calls_per_day"),
        ({"name": "a", "calls_per_day": 2**47}, "calls_per_day"),
        ({"name": "a", "concurrent": 2**21}, "concurrent"),
        ({"name": "a", "priority": 10}, "priority"),
        ({"name": "a", "calls_per_day": 1, "address": "10.0.0.0/99"}, "address"),
        ({"name": "a", "calls_per_day": 1, "address": "2001:db8::1"}, "address"),
        ({"name": "a", "calls_per_day": 1, "principal": ""}, "pattern"),
        ({"name": "a", "calls_per_day": 1, "each": ("role",)}, "each"),
        ({"name": "a", "calls_per_day": 1, "each": ("model", "model")}, "each"),
    ],
)
def test_a_table_that_makes_no_sense_is_named(rule, said):
    assert any(said in each for each in problems(LimitSettings(**rule)))


@pytest.mark.parametrize(
    ("limiter", "said"),
    [
        ({"redis": "rediss://:secret@host:6379/0"}, "password"),
        ({"redis": "rediss://host:6379/0?password=x"}, "password"),
        ({"redis": "redis://host:6379/0"}, "rediss"),
        ({"away": "open"}, "away"),
        ({"share": 0.0}, "share"),
        ({"timeout_s": 0.0}, "timeout_s"),
    ],
)
def test_a_redis_that_could_be_read_along_is_refused(limiter, said):
    found = problems(limiter=LimiterSettings(**limiter))
    assert any(said in each for each in found)
    assert "secret" not in str(found)


def test_sound_tables_have_no_problems():
    good = LimitSettings(name="a", address="10.0.0.0/8", calls_per_day=1)
    assert problems(good, limiter=LimiterSettings(redis="redis://127.0.0.1:6379/0")) == []
    assert problems(limiter=LimiterSettings(redis="rediss://me@redis.example:6379/0")) == []
    twice = problems(good, good)
    assert twice == ["limits: two tables have one name"]
