"""What stands in for Ray where Ray is not: one process per replica, asked through a pipe.

As a program it is such a replica: `python ray_stand_in.py` reads frames from its standard input,
first the model, the key and the sealed parts, then batches; each is answered by one frame.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from modelkeep.core.errors import UnavailableError

LENGTH_BYTES = 4
SOURCE = Path(__file__).resolve().parents[2] / "src"


def framed(raw: bytes) -> bytes:
    return len(raw).to_bytes(LENGTH_BYTES, "little") + raw


class StandIn:
    """The handle of several replicas, asked in turn; the next one's turn comes when one is lost."""

    def __init__(self, model: bytes, key: bytes, parts: Iterable[bytes], *, replicas: int) -> None:
        parts = tuple(parts)
        told = [model, key, len(parts).to_bytes(4, "little"), *parts]
        self._told = b"".join(map(framed, told))
        self.processes: list[asyncio.subprocess.Process] = []
        self._locks = [asyncio.Lock() for _ in range(replicas)]
        self._turn = 0
        self.blobs: list[bytes] = []
        self._exchanges: set[asyncio.Task[bytes]] = set()

    async def start(self) -> None:
        """Start the processes."""
        for _ in self._locks:
            self.processes.append(await self._started())

    async def _started(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, __file__),
            env={"PYTHONPATH": str(SOURCE)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            limit=1 << 26,
        )
        assert process.stdin is not None
        process.stdin.write(self._told)
        return process

    async def ask(self, blob: bytes) -> bytes:
        """Have a batch answered by whoever's turn it is.

        Who gives up waiting leaves the exchange to end, or the next batch would read its answer.
        """
        self._turn += 1
        self.blobs.append(blob)
        exchange = asyncio.create_task(self._exchanged(blob, self._turn % len(self.processes)))
        self._exchanges.add(exchange)
        exchange.add_done_callback(self._ended)
        return await asyncio.shield(exchange)

    def _ended(self, exchange: asyncio.Task[bytes]) -> None:
        self._exchanges.discard(exchange)
        if not exchange.cancelled():
            exchange.exception()  # whoever still waits hears of it

    async def _exchanged(self, blob: bytes, at: int) -> bytes:
        process = self.processes[at]
        async with self._locks[at]:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(framed(blob))
                head = await process.stdout.readexactly(LENGTH_BYTES)
                return await process.stdout.readexactly(int.from_bytes(head, "little"))
            except (OSError, EOFError) as error:
                raise UnavailableError("ray.lost", "a replica is gone") from error

    async def end(self) -> None:
        """End every process."""
        for each in self.processes:
            if each.returncode is None:
                each.kill()
            await each.wait()


def main() -> None:
    """Be a replica."""
    from modelkeep.workers.ray_replica import RayReplica  # noqa: PLC0415

    read = sys.stdin.buffer.read

    def taken() -> bytes:
        head = read(LENGTH_BYTES)
        if len(head) < LENGTH_BYTES:
            sys.exit(0)
        return read(int.from_bytes(head, "little"))

    model, key, count = taken(), taken(), int.from_bytes(taken(), "little")
    replica = RayReplica(model, key, [memoryview(taken()) for _ in range(count)])
    while True:
        sys.stdout.buffer.write(framed(replica.answer(taken())))
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
