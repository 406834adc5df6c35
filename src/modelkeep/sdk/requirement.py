"""`require`: what must hold on a machine before a function runs, checked when it is called."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar, cast

from modelkeep.adapters.host_facts import SystemFacts
from modelkeep.assess.demands import asked_of, unmet
from modelkeep.assess.settings import Demands, demand_sound
from modelkeep.core.errors import RefusedError
from modelkeep.core.verdict import Finding, Severity
from modelkeep.kernels.versions import demand_specifier
from modelkeep.ports.host import Asked, HostFacts

P = ParamSpec("P")
R = TypeVar("R")


def require(
    *,
    min_ram: str = "",
    min_disk: str = "",
    disk: str = ".",
    cpu_flags: Sequence[str] = (),
    accelerator: str = "",
    os: Sequence[str] = (),
    kernel: str = "",
    libc: str = "",
    python: str = "",
    packages: Mapping[str, str] | None = None,
    reachable: Sequence[str] = (),
    ports_free: Sequence[int] = (),
    reach_timeout_s: float = 2.0,
    once: bool = False,
    facts: HostFacts | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Have a function run only where the machine has what it needs.

    The requirements are checked at each call; of a generator when its first item is asked for, of a
    coroutine when it is awaited. What is free is what is free then: ask for it before the model is
    loaded, or `once`. Coroutines look at the machine in a thread, so the loop goes on.

    Args:
        min_ram: memory that is free, within what a container allows: `"8 GiB"`.
        min_disk: room that is free where `disk` is.
        cpu_flags: as `/proc/cpuinfo` names them: `("avx2",)`.
        accelerator: `"cuda"` or `"rocm"`; `"cuda:2"` for two devices.
        os: a system or a distribution, one of which suffices: `("linux",)`, `("debian 12",)`.
        kernel: such as `">=5.13"`.
        libc: such as `"glibc>=2.31"`.
        python: such as `">=3.11"`.
        packages: installed distributions and their versions: `{"numpy": ">=2"}`.
        reachable: `"host:port"`, `"postgresql://host/database"`, `"https://host"` or a path.
        ports_free: TCP ports that nobody listens on.
        once: whether the first call that found everything is the last that looks.
        facts: looks at the machine; another one in tests.

    Raises:
        UsageError: `require.value`, `size.text` or `version.specifier`, where it is written.
        RefusedError: `require.unmet`, by the function, with everything that is not met.
    """
    for versions in (packages or {}).values():
        demand_specifier(versions)
    demands = Demands(
        min_ram=min_ram,
        min_disk=min_disk,
        cpu_flags=_words(cpu_flags),
        accelerators=(accelerator,) if accelerator else (),
        os=_words(os),
        kernel=kernel,
        libc=libc,
        python=python,
        packages=tuple(f"{name}{versions}" for name, versions in (packages or {}).items()),
        reachable=_words(reachable),
        ports_free=tuple(ports_free),
    )
    demand_sound(demands)
    asked = asked_of(demands, folder=disk, reach_timeout_s=reach_timeout_s)

    def decorated(function: Callable[P, R]) -> Callable[P, R]:
        check = _check(getattr(function, "__qualname__", "a function"), demands, asked, facts)
        # The wrapper is of the function's own kind, which the type checker cannot see.
        return cast("Callable[P, R]", _wrapped(function, _once(check) if once else check))

    return decorated


def _check(
    name: str, demands: Demands, asked: Asked, facts: HostFacts | None
) -> Callable[[], None]:
    def demand_met() -> None:
        host = (facts or SystemFacts()).gathered(asked)
        findings = unmet(demands, host, severity=Severity.HIGH)
        if findings:
            raise _refused(name, findings)

    return demand_met


def _once(check: Callable[[], None]) -> Callable[[], None]:
    """The same until it has passed."""
    passed = threading.Event()

    def first() -> None:
        if not passed.is_set():
            check()
            passed.set()

    return first


def _refused(name: str, findings: tuple[Finding, ...]) -> RefusedError:
    texts = "; ".join(f"{each.evidence} ({_rule(each)})" for each in findings)
    return RefusedError(
        "require.unmet",
        f"{name} requires what this machine does not have: {texts}",
        hint="`modelkeep preflight --machine` says what it has",
        unmet=[_rule(each) for each in findings],
    )


def _rule(finding: Finding) -> str:
    return finding.rule.replace("preflight.", "require.", 1)


def _words(given: Sequence[str]) -> tuple[str, ...]:
    """One word may stand for a list of one."""
    return (given,) if isinstance(given, str) else tuple(given)


def _wrapped(function: Callable[..., Any], demand_met: Callable[[], None]) -> Callable[..., Any]:
    """A function of the same kind that looks first."""
    if inspect.isasyncgenfunction(function):
        return _items(function, demand_met)
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(*args: Any, **options: Any) -> Any:
            await _in_thread(demand_met)
            return await function(*args, **options)

        return awaited
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def generated(*args: Any, **options: Any) -> Any:
            demand_met()
            return (yield from function(*args, **options))

        return generated

    @functools.wraps(function)
    def called(*args: Any, **options: Any) -> Any:
        demand_met()
        return function(*args, **options)

    return called


def _items(function: Callable[..., Any], demand_met: Callable[[], None]) -> Callable[..., Any]:
    """Of an asynchronous generator; what is sent and thrown goes on, as `yield from` does it."""

    @functools.wraps(function)
    async def items(*args: Any, **options: Any) -> Any:
        await _in_thread(demand_met)
        inner = function(*args, **options)
        try:
            item = await anext(inner)
            while True:
                try:
                    sent = yield item
                except GeneratorExit:
                    raise
                except BaseException as error:  # noqa: BLE001 - it is thrown to the function
                    item = await inner.athrow(error)
                else:
                    item = await inner.asend(sent)
        except StopAsyncIteration:
            return
        finally:
            await inner.aclose()

    return items


async def _in_thread(work: Callable[[], None]) -> None:
    import asyncio  # noqa: PLC0415 - only where a loop runs

    await asyncio.to_thread(work)
