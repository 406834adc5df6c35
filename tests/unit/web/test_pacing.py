"""Promise: a page that costs much is as fresh as who asks may expect, and costs the loop little."""

import asyncio
from itertools import pairwise

import pytest

from modelkeep.web.pacing import PARTS, Paced


class Page:
    """Takes 2 ms of a clock of its own; says how often it was made."""

    def __init__(self):
        self.made = 0
        self.took_s = 0.0

    def make(self):
        self.made += 1
        self.took_s += 0.002
        return b"%d" % self.made


def paced(page):
    loop = asyncio.get_running_loop()
    return Paced(page.make, now_s=lambda: page.took_s + loop.time())


def test_it_is_made_once_for_all_who_wait_and_never_before_they_asked():
    async def run():
        page = Page()
        one = paced(page)
        assert await one.page() == b"1", "who asks alone has it at once"
        many = await asyncio.gather(*(one.page() for _ in range(50)))
        assert many == [b"2"] * 50
        assert await one.page() == b"3"

    asyncio.run(run())


def test_making_it_takes_a_twentieth_of_the_time():
    async def run():
        page = Page()
        one = paced(page)
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        for _ in range(5):
            await one.page()
        assert page.made == 5
        assert loop.time() - begun_s >= 4 * (PARTS - 1) * 0.002

    asyncio.run(run())


def test_it_is_handed_to_one_in_a_turn_and_not_to_who_has_gone():
    async def run():
        page = Page()
        one = paced(page)
        await one.page()
        got = []

        async def asked(number):
            await one.page()
            got.append(number)

        tasks = [asyncio.create_task(asked(number)) for number in range(10)]
        await asyncio.sleep(0)
        tasks[3].cancel()
        seen = [0]
        while len(got) < 9:
            await asyncio.sleep(0)
            seen.append(len(got))
        assert max(late - early for early, late in pairwise(seen)) == 1
        assert got == [0, 1, 2, 4, 5, 6, 7, 8, 9]

    asyncio.run(run())


def test_who_asks_for_one_that_cannot_be_made_is_told_and_the_next_is_made():
    async def run():
        page = Page()

        def broken():
            if page.made == 0:
                page.made = 1
                raise ZeroDivisionError
            return page.make()

        one = Paced(broken)
        with pytest.raises(ZeroDivisionError):
            await one.page()
        assert await one.page() == b"2"

    asyncio.run(run())
