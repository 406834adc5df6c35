"""Clients that mean harm, each run in a process of its own so that the honest client's times are
its own: slow ones, idle ones, huge bodies, bombs, deep nesting. What the server did comes back.

Where times are judged, attackers are last in line for the machine's processors (SCHED_IDLE): they
stand for other machines, and what they make the service do shall count, not what they do.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import logging
import multiprocessing
import os
import socket
import ssl
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

PIECE = b" " * (256 * 1024)
GIGABYTE = 1_000_000_000
INFER = "/v2/models/digits/infer"
SLOW = ("slow_head", "slow_body")
# In attacks that go on for so long, slow clients that were cut off come back.
SUSTAINED_S = 6


@dataclass(frozen=True)
class Target:
    """Where to, as whom, for how long."""

    port: int
    ca_path: str
    key: str
    metrics_key: str
    seconds: float
    connections: int


@dataclass(frozen=True)
class Outcome:
    """What became of an attack: answers by status, connections the server closed, bytes sent."""

    statuses: dict[int, int]
    closed: int
    sent_bytes: int


class _Seen:
    """Counts while an attack runs."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.closed = 0
        self.sent_bytes = 0


Attack = Callable[[Target, asyncio.StreamReader, asyncio.StreamWriter, _Seen], Awaitable[None]]


def head(target: Target, *lines: str) -> bytes:
    """The head of an infer call with the good key."""
    first = (f"POST {INFER} HTTP/1.1", "Host: a", f"Authorization: Bearer {target.key}")
    return "\r\n".join((*first, *lines, "", "")).encode()


async def slow_head(
    target: Target, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: _Seen
) -> None:
    """A byte of the head now and then, for ever."""
    for byte in head(target) + b"X: " + b"y" * 10_000:
        writer.write(bytes([byte]))
        await writer.drain()
        seen.sent_bytes += 1
        await asyncio.sleep(0.2)


async def slow_body(
    target: Target, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: _Seen
) -> None:
    """A whole head, then a byte of the body now and then."""
    writer.write(head(target, "Content-Length: 10000"))
    for _ in range(10_000):
        writer.write(b" ")
        await writer.drain()
        seen.sent_bytes += 1
        await asyncio.sleep(0.2)


async def slow_reader(
    target: Target, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: _Seen
) -> None:
    """Asks for much, again and again, and never reads an answer."""
    request = f"GET /metrics HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {target.metrics_key}\r\n"
    transport: Any = writer.transport
    transport.pause_reading()
    while True:
        writer.write((request + "\r\n").encode())
        await writer.drain()
        seen.sent_bytes += len(request)
        await asyncio.sleep(0.001)


async def idle(
    _target: Target, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter, _seen: _Seen
) -> None:
    """Says nothing."""
    await reader.read()


async def huge_length(
    target: Target, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: _Seen
) -> None:
    """A body of 1 GB that says so."""
    writer.write(head(target, f"Content-Length: {GIGABYTE}"))
    await _poured(reader, writer, seen, PIECE)


async def huge_chunks(
    target: Target, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: _Seen
) -> None:
    """A body of 1 GB in chunks."""
    writer.write(head(target, "Transfer-Encoding: chunked"))
    await _poured(reader, writer, seen, b"%x\r\n%b\r\n" % (len(PIECE), PIECE))


async def gzip_bomb(
    target: Target, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: _Seen
) -> None:
    """A megabyte that unfolds to a gigabyte."""
    body = _bomb()
    for coding in ("gzip", "deflate", "br", "zstd", "identity, gzip"):
        lines = (f"Content-Length: {len(body)}", f"Content-Encoding: {coding}")
        writer.write(head(target, *lines) + body)
        seen.sent_bytes += len(body)
        await _answered(reader, writer, seen)


async def deep_json(
    target: Target, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: _Seen
) -> None:
    """Arrays and objects in one another: 100, 10,000 and 1,000,000 deep."""
    for depth in (100, 10_000, 1_000_000):
        nested = b"[" * depth + b"]" * depth
        objects = b'{"a":' * depth + b"1" + b"}" * depth
        given = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": "HERE"}
        whole = json.dumps({"inputs": [given]}).encode().replace(b'"HERE"', nested)
        for body in (nested, objects, b"[" * depth, whole):
            writer.write(head(target, f"Content-Length: {len(body)}") + body)
            seen.sent_bytes += len(body)
            await _answered(reader, writer, seen)


ATTACKS: dict[str, Attack] = {
    each.__name__: each
    for each in (
        slow_head, slow_body, slow_reader, idle, huge_length, huge_chunks, gzip_bomb, deep_json,
    )
}  # fmt: skip


@contextlib.contextmanager
def under(
    targets: dict[str, Target], *, are_last: bool = False
) -> Iterator[Callable[[], dict[str, Outcome]]]:
    """Have attacks run beside the block; call what comes for their outcomes, which waits.

    Args:
        are_last: they get what the others leave of the processors.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_attacking, args=(targets, there, sys.path), daemon=True)
    process.start()
    there.close()
    assert here.poll(60), "the attacks did not start"
    assert here.recv() == "started"
    if are_last:
        put_last(process.pid)

    def outcomes() -> dict[str, Outcome]:
        assert here.poll(max(each.seconds for each in targets.values()) + 60), "they do not end"
        made = here.recv()
        assert isinstance(made, dict)
        return made

    try:
        yield outcomes
    finally:
        process.kill()
        process.join()


def put_last(pid: int | None) -> None:
    """Let a process have only what the others leave of the processors."""
    assert pid is not None
    os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))


def _attacking(targets: dict[str, Target], pipe: Any, path: list[str]) -> None:
    sys.path[:] = path
    logging.disable()  # asyncio tells of every connection that the server cuts
    pipe.send("started")
    pipe.send(asyncio.run(_all_attacked(targets)))


async def _all_attacked(targets: dict[str, Target]) -> dict[str, Outcome]:
    made = await asyncio.gather(*(_attacked(name, each) for name, each in targets.items()))
    return dict(zip(targets, made, strict=True))


async def _attacked(name: str, target: Target) -> Outcome:
    attack, seen = ATTACKS[name], _Seen()
    context = ssl.create_default_context(cafile=target.ca_path)
    # A slow client goes on until it is cut off; on a busy machine that takes longer.
    patience_s = 20 if name in SLOW and target.seconds < SUSTAINED_S else 0
    ends = time.monotonic() + target.seconds + patience_s
    opening = asyncio.Semaphore(64)

    async def one() -> None:
        async with opening:
            opened = await _opened(target, context)
        if opened is None:
            seen.closed += 1
            return
        reader, writer = opened
        try:
            await asyncio.wait_for(attack(target, reader, writer, seen), ends - time.monotonic())
        except TimeoutError:
            return
        except (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()
        seen.closed += 1

    # Whoever is cut off comes back, but for the patient ones of a short run.
    is_cut_once = target.seconds < SUSTAINED_S

    async def again() -> None:
        while time.monotonic() < ends:
            await one()
            if name in ("idle", "slow_reader") or (is_cut_once and name in SLOW):
                return

    await asyncio.gather(*(again() for _ in range(target.connections)))
    return Outcome(dict(seen.statuses), seen.closed, seen.sent_bytes)


async def _opened(
    target: Target, context: ssl.SSLContext
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
    plain = socket.socket()
    # A reader that is slow fills the server's buffers sooner when it has little room itself.
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    plain.settimeout(0)
    try:
        await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", target.port))
        opening = asyncio.open_connection(sock=plain, ssl=context, server_hostname="127.0.0.1")
        return await asyncio.wait_for(opening, 30)
    except (OSError, ssl.SSLError, TimeoutError):
        plain.close()
        return None


async def _poured(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: _Seen, piece: bytes
) -> None:
    """Send a gigabyte unless the server ends it, as it may after its answer."""
    answer = asyncio.create_task(_answered(reader, writer, seen))
    sent_bytes = 0
    try:
        while sent_bytes < GIGABYTE and not writer.is_closing():
            writer.write(piece)
            await writer.drain()
            sent_bytes += len(piece)
            seen.sent_bytes += len(piece)
    finally:
        answer.cancel()


async def _answered(
    reader: asyncio.StreamReader, _writer: asyncio.StreamWriter, seen: _Seen
) -> None:
    """Read one answer whole."""
    lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    seen.statuses[int(lines[0].split()[1])] += 1
    for line in lines:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            await reader.readexactly(int(value))


def _bomb() -> bytes:
    return gzip.compress(bytes(1024 * 1024), 9) * 1024
