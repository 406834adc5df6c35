"""A body in many small parts takes no more memory than it holds."""

import tracemalloc

from modelkeep.web.bodies import Body


def test_a_body_in_many_small_parts_takes_little_more_than_it_holds():
    body = Body()
    tracemalloc.start()
    try:
        for number in range(100_000):
            body.add(bytes((number % 251, number % 241)))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(body.whole()) == 200_000
    assert held < 2 * 200_000
