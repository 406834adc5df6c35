"""What every Limiter promises, as a suite: inherit, and give the fixture `workers`.

`workers()` opens one worker's access to counts that all of one test share, and is called inside a
running loop; the suite closes what it opened.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from modelkeep.core.instant import NS_PER_S
from modelkeep.gate.quota import BUCKETS, RING
from modelkeep.ports.limiter import NOW, Change, Limiter, Meter

Workers = Callable[[], Limiter]
WINDOW_NS = NS_PER_S // 2


def meter(name: str = "a", *, limit: int = 100, window_ns: int = WINDOW_NS) -> Meter:
    """A meter of a test."""
    return Meter(name.encode().ljust(16, b"."), window_ns, limit)


class LimiterContract:
    """The promises of `modelkeep.ports.limiter.Limiter`."""

    @pytest.fixture
    def run(self, workers: Workers) -> Callable[..., None]:
        """Run a scene with as many workers as it wants, and close them."""

        def ran(scene: Callable[..., Awaitable[None]], many: int = 2) -> None:
            async def whole() -> None:
                opened = [workers() for _ in range(many)]
                try:
                    await scene(*opened)
                finally:
                    for each in opened:
                        await each.close()

            asyncio.run(whole())

        return ran

    def test_what_all_workers_lend_in_any_window_is_at_most_the_limit(
        self, run: Callable[..., None]
    ) -> None:
        lent: Counter[int] = Counter()
        refused = 0

        async def worker(limiter: Limiter, seed: int) -> None:
            nonlocal refused
            drawn = random.Random(seed)  # noqa: S311  # a test's own dice
            back: list[Change] = []
            ends_ns = limiter.now_ns() + 3 * WINDOW_NS
            while limiter.now_ns() < ends_ns:
                least = drawn.randint(1, 4)
                lease = await limiter.lease(
                    meter(), least=least, wish=drawn.randint(0, 9), changes=back
                )
                lent.update({each.bucket: each.amount for each in back})
                back = []
                lent[lease.bucket] += lease.amount
                refused += not lease.amount
                if lease.amount and drawn.random() < 0.3:
                    back = [Change(lease.bucket, -drawn.randint(1, lease.amount))]
                await asyncio.sleep(WINDOW_NS / NS_PER_S / BUCKETS * drawn.random())

        async def scene(*workers: Limiter) -> None:
            await asyncio.gather(*(worker(each, at) for at, each in enumerate(workers)))

        run(scene, many=3)
        assert refused
        assert sum(lent.values()) > 2 * meter().limit
        for first in lent:
            assert sum(lent[each] for each in range(first, first + RING)) <= meter().limit

    def test_a_lease_ends_with_its_bucket(self, run: Callable[..., None]) -> None:
        async def scene(one: Limiter, _: Limiter) -> None:
            hour_ns = 3600 * NS_PER_S
            asked_ns = one.now_ns()
            lease = await one.lease(meter(window_ns=hour_ns), least=1, wish=50)
            assert 1 <= lease.amount <= 50
            assert asked_ns < lease.ends_ns <= one.now_ns() + hour_ns // BUCKETS

        run(scene)

    def test_a_part_that_does_not_fit_is_not_lent_at_all(self, run: Callable[..., None]) -> None:
        async def scene(one: Limiter, other: Limiter) -> None:
            assert (await one.lease(meter(), least=60, wish=0)).amount == 60
            assert (await other.lease(meter(), least=60, wish=0)).amount == 0
            assert (await other.lease(meter(), least=40, wish=0)).amount == 40

        run(scene)

    def test_what_is_given_back_is_lent_to_others(self, run: Callable[..., None]) -> None:
        async def scene(one: Limiter, other: Limiter) -> None:
            lease = await one.lease(meter(), least=100, wish=0)
            told = await one.lease(meter(), least=0, wish=0, changes=[Change(lease.bucket, -30)])
            assert told.amount == 0
            assert (await other.lease(meter(), least=31, wish=0)).amount == 0
            assert (await other.lease(meter(), least=30, wish=0)).amount == 30

        run(scene)

    def test_more_than_was_lent_is_not_given_back(self, run: Callable[..., None]) -> None:
        async def scene(one: Limiter, other: Limiter) -> None:
            lease = await one.lease(meter(), least=10, wish=0)
            back = [Change(lease.bucket, -1000), Change(lease.bucket - RING, -1000)]
            await one.lease(meter(), least=0, wish=0, changes=back)
            assert (await other.lease(meter(), least=101, wish=0)).amount == 0
            assert (await other.lease(meter(), least=100, wish=0)).amount == 100

        run(scene)

    def test_what_was_used_unasked_is_counted_past_the_limit(
        self, run: Callable[..., None]
    ) -> None:
        async def scene(one: Limiter, other: Limiter) -> None:
            await one.lease(meter(), least=0, wish=0, changes=[Change(NOW, 150)])
            refusal = await other.lease(meter(), least=1, wish=0)
            assert refusal.amount == 0
            assert 0 < refusal.opens_ns - other.now_ns() <= WINDOW_NS * RING // BUCKETS

        run(scene)

    def test_it_opens_when_it_said(self, run: Callable[..., None]) -> None:
        async def scene(one: Limiter, other: Limiter) -> None:
            small = meter(window_ns=WINDOW_NS // 5)
            await one.lease(small, least=100, wish=0)
            refusal = await other.lease(small, least=1, wish=0)
            wait_s = (refusal.opens_ns - other.now_ns()) / NS_PER_S
            assert 0 < wait_s <= 0.12  # less where the machine was busy meanwhile
            await asyncio.sleep(wait_s + 0.001)
            assert (await other.lease(small, least=100, wish=0)).amount == 100

        run(scene)

    def test_more_than_the_limit_never_fits(self, run: Callable[..., None]) -> None:
        async def scene(one: Limiter, _: Limiter) -> None:
            refusal = await one.lease(meter(), least=101, wish=0)
            assert (refusal.amount, refusal.opens_ns) == (0, -1)

        run(scene)

    def test_what_was_counted_holds_under_a_new_limit(self, run: Callable[..., None]) -> None:
        async def scene(one: Limiter, other: Limiter) -> None:
            await one.lease(meter(), least=100, wish=0)
            assert (await other.lease(meter(limit=120), least=21, wish=0)).amount == 0
            assert (await other.lease(meter(limit=120), least=20, wish=0)).amount == 20
            assert (await other.lease(meter(limit=50), least=1, wish=0)).amount == 0

        run(scene)

    def test_meters_do_not_count_for_each_other(self, run: Callable[..., None]) -> None:
        async def scene(one: Limiter, _: Limiter) -> None:
            for name in "abcdefghijklmnopqrstuvwxyz":
                assert (await one.lease(meter(name), least=100, wish=0)).amount == 100
                assert (await one.lease(meter(name), least=1, wish=0)).amount == 0

        run(scene)

    def test_what_was_used_is_remembered_by_the_next_life(self, workers: Workers) -> None:
        async def life(least: int) -> int:
            limiter = workers()
            try:
                day = meter(window_ns=86_400 * NS_PER_S)
                return (await limiter.lease(day, least=least, wish=0)).amount
            finally:
                await limiter.close()

        assert asyncio.run(life(70)) == 70
        assert asyncio.run(life(31)) == 0
        assert asyncio.run(life(30)) == 30

    def test_places_are_never_more_than_there_are(self, run: Callable[..., None]) -> None:
        async def scene(*workers: Limiter) -> None:
            ten = Meter(b"p" * 16, 0, 10)
            got = [await each.hold(ten, 1) for each in workers * 5]
            assert got == [1] * 10 + [0] * 5
            assert await workers[0].hold(ten, -2) == -2
            assert [await each.hold(ten, 1) for each in workers] == [1, 1, 0]

        run(scene, many=3)

    def test_places_that_are_asked_for_at_once_are_given_once(
        self, run: Callable[..., None]
    ) -> None:
        async def scene(one: Limiter, other: Limiter) -> None:
            ten = Meter(b"p" * 16, 0, 10)
            got = await asyncio.gather(*(each.hold(ten, 1) for each in (one, other) * 20))
            assert sum(got) == 10

        run(scene)

    def test_spare_places_are_given_where_there_are_plenty(self, run: Callable[..., None]) -> None:
        async def scene(one: Limiter, other: Limiter) -> None:
            many = Meter(b"p" * 16, 0, 1000)
            assert await one.hold(many, 1, spare=60) == 61
            assert await other.hold(many, 1, spare=600) == 1 + (1000 - 61 - 1) // 8

        run(scene)

    def test_the_places_of_who_has_left_are_free(self, workers: Workers) -> None:
        async def scene() -> None:
            ten = Meter(b"p" * 16, 0, 10)
            one, other = workers(), workers()
            try:
                assert await one.hold(ten, 10) == 10
                assert await other.hold(ten, 1) == 0
                await one.close()
                assert await other.hold(ten, 10) == 10
            finally:
                await one.close()
                await other.close()

        asyncio.run(scene())
