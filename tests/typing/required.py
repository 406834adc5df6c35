"""A function that requires something keeps its signature."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import assert_type

from modelkeep import require


@require(min_ram="1 GiB")
def predict(x: int, *, scale: float = 1.0) -> float:
    return x * scale


@require(accelerator="cuda", once=True)
async def awaited(x: int) -> str:
    return str(x)


@require(packages={"numpy": ">=2"}, reachable=("host:5432",))
def items(x: int) -> Iterator[int]:
    yield x


@require(ports_free=(8443,))
async def stream() -> AsyncIterator[bytes]:
    yield b""


async def use() -> None:
    assert_type(predict(1, scale=2.0), float)
    assert_type(await awaited(1), str)
    assert_type(items(1), Iterator[int])
    assert_type(stream(), AsyncIterator[bytes])
    predict("1")  # type: ignore[arg-type]
    require(min_ram=1)  # type: ignore[arg-type]
