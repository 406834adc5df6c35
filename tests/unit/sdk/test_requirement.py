"""`require`: a function runs only where the machine has what it needs."""

import asyncio
import inspect

import pytest

import modelkeep
from modelkeep import KeepError, RefusedError, UsageError, require
from modelkeep.core.record import replaced
from modelkeep.ports.host import Host, Memory

PLENTY = Host(
    system="linux",
    python="3.11.7",
    memory=Memory(available_bytes=1 << 40, total_bytes=1 << 40, bound_by="the machine"),
)


class Machine:
    """A machine that can change; counts how often it is looked at."""

    def __init__(self, host=PLENTY):
        self.host = host
        self.looks = 0

    def gathered(self, asked):
        self.looks += 1
        self.asked = asked
        return self.host

    def shrink(self):
        self.host = replaced(self.host, memory=replaced(self.host.memory, available_bytes=1))


def test_a_function_runs_where_everything_is_there():
    @require(min_ram="1 MiB", os=("linux",), python=">=3.11", packages={"numpy": ">=2"})
    def predict(x: int, *, scale: int = 1) -> int:
        """Predict."""
        return x * scale

    assert predict(2, scale=3) == 6
    assert predict.__name__ == "predict"
    assert predict.__doc__ == "Predict."
    assert list(inspect.signature(predict).parameters) == ["x", "scale"]


def test_everything_that_is_not_there_is_said_at_once():
    ran = []

    @require(min_ram="100 TiB", cpu_flags="no-such-flag", packages={"no-such-package": ""})
    def predict():
        ran.append(1)

    with pytest.raises(RefusedError) as refused:
        predict()
    assert ran == []
    assert refused.value.code == "require.unmet"
    assert refused.value.context["unmet"] == ["require.memory", "require.cpu", "require.package"]
    assert len(refused.value.context["unmet"]) == 3
    assert "100.0 TiB are demanded" in refused.value.message
    assert isinstance(refused.value, KeepError)
    assert refused.value.exit_status == 3


def test_it_is_checked_at_each_call_or_once():
    always, first = Machine(), Machine()

    @require(min_ram="1 GiB", facts=always)
    def each_time():
        return 1

    @require(min_ram="1 GiB", once=True, facts=first)
    def at_first():
        return 1

    assert [each_time(), each_time(), at_first(), at_first()] == [1, 1, 1, 1]
    assert (always.looks, first.looks) == (2, 1)
    always.shrink()
    first.shrink()
    assert at_first() == 1
    with pytest.raises(RefusedError):
        each_time()


def test_once_looks_again_until_everything_is_there():
    machine = Machine(replaced(PLENTY, memory=Memory(available_bytes=1, bound_by="x")))

    @require(min_ram="1 GiB", once=True, facts=machine)
    def predict():
        return 1

    with pytest.raises(RefusedError):
        predict()
    machine.host = PLENTY
    assert predict() == 1


def test_a_coroutine_is_checked_when_it_is_awaited_and_stays_one():
    machine = Machine()

    @require(min_ram="1 GiB", facts=machine)
    async def predict(x):
        return x + 1

    assert inspect.iscoroutinefunction(predict)
    assert asyncio.run(predict(1)) == 2
    machine.shrink()
    waiting = predict(1)
    with pytest.raises(RefusedError):
        asyncio.run(waiting)


def test_a_generator_is_checked_before_its_first_item_and_passes_on_what_is_sent():
    machine = Machine()

    @require(min_ram="1 GiB", facts=machine)
    def items():
        got = yield 1
        yield got
        return "end"

    assert inspect.isgeneratorfunction(items)
    running = items()
    assert machine.looks == 0
    assert (next(running), running.send(5)) == (1, 5)
    with pytest.raises(StopIteration) as ended:
        next(running)
    assert ended.value.value == "end"
    machine.shrink()
    with pytest.raises(RefusedError):
        next(items())


def test_an_asynchronous_generator_is_checked_and_closed():
    machine, closed = Machine(), []

    @require(min_ram="1 GiB", facts=machine)
    async def items():
        try:
            yield 1
            yield 2
        finally:
            closed.append(1)

    async def first():
        running = items()
        found = await anext(running)
        await running.aclose()
        return found

    assert inspect.isasyncgenfunction(items)
    assert asyncio.run(first()) == 1
    assert closed == [1]
    machine.shrink()
    with pytest.raises(RefusedError):
        asyncio.run(first())


def test_an_asynchronous_generator_gets_what_is_sent_and_thrown():
    @require(min_ram="1 GiB", facts=Machine())
    async def items():
        got = yield 1
        try:
            yield got
        except ValueError as error:
            yield str(error)
        yield await asyncio.sleep(0, "last")

    async def talk():
        running = items()
        said = [await anext(running), await running.asend(5)]
        said.append(await running.athrow(ValueError("thrown")))
        said += [each async for each in running]
        other = items()
        await anext(other)
        with pytest.raises(KeyError):
            await other.athrow(KeyError())
        return said

    assert asyncio.run(talk()) == [1, 5, "thrown", "last"]


def test_a_method_is_checked_as_a_function_is():
    class Model:
        @require(min_ram="1 GiB", facts=Machine())
        def predict(self, x):
            return self, x

    model = Model()
    assert model.predict(1) == (model, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_ram": "much"},
        {"python": "3"},
        {"packages": {"numpy": "2"}},
        {"accelerator": "tpu"},
        {"reachable": "nowhere"},
        {"ports_free": (0,)},
    ],
)
def test_what_cannot_be_checked_is_refused_where_it_is_written(wrong):
    with pytest.raises(UsageError):
        require(**wrong)


def test_an_import_alone_loads_nothing():
    assert "require" in modelkeep.__all__
    with pytest.raises(AttributeError):
        _ = modelkeep.no_such_name
