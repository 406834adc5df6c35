"""Which HTTP server: three of them, and ours, under the same tiny application.

The figures of docs/decisions/0002-http-server.md. The application parses a V2 JSON body, waits for
one turn of the event loop (as for a replica or the journal) and answers; TLS; `wrk` on loopback.
The losers are in no lock of ours; run it so that uv brings them:

    PYTHONPATH=src uv run --no-project --python 3.11 --with-requirements requirements.lock \
        --with granian==2.8.7 --with uvicorn==0.54.0 benchmarks/decisions/http_servers.py
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

import msgspec  # noqa: E402
import uvloop  # noqa: E402

KINDS = ("bare", "modelkeep", "granian", "uvicorn")
ROUNDS = 5
REPLY = json.dumps(
    {
        "model_name": "digits",
        "model_version": "1",
        "outputs": [{"name": "p", "datatype": "FP32", "shape": [1, 10], "data": [0.1] * 10}],
    }
).encode()
HEADERS = (("content-type", "application/json"), ("modelkeep-receipt", "gateway-0:123456"))
LUA = """wrk.method = "POST"
wrk.path = "/v2/models/digits/infer"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer mk_0123456789abcdef_{secret}"
wrk.body = [[{body}]]
"""
waiting: list[asyncio.Future[None]] = []


async def answer(body: bytes) -> bytes:
    """The application."""
    msgspec.json.decode(body)
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    if not waiting:
        loop.call_soon(flush)
    waiting.append(future)
    await future
    return REPLY


def flush() -> None:
    """Let everybody who waits go on."""
    for future in waiting:
        if not future.done():
            future.set_result(None)
    waiting.clear()


class Bare(asyncio.Protocol):
    """The least that httptools needs: no bound, no check. A floor, not a candidate."""

    def connection_made(self, transport: Any) -> None:
        """Start."""
        import httptools  # noqa: PLC0415

        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        """Parse."""
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        """Start a request."""
        self.parts: list[bytes] = []
        self.headers: dict[bytes, bytes] = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header."""
        self.headers[name.lower()] = value

    def on_body(self, part: bytes) -> None:
        """Keep a part."""
        self.parts.append(part)

    def on_message_complete(self) -> None:
        """Answer."""
        self.task = asyncio.ensure_future(self.respond(b"".join(self.parts)))

    async def respond(self, body: bytes) -> None:
        """Write."""
        got = await answer(body)
        lines = "".join(f"{name}: {value}\r\n" for name, value in HEADERS).encode()
        self.transport.write(
            b"HTTP/1.1 200 OK\r\n%bcontent-length: %d\r\n\r\n%b" % (lines, len(got), got)
        )


class Application:
    """The application for our own server."""

    def begin(self, request: Any) -> None:
        """Accept every head."""

    async def respond(self, request: Any) -> Any:
        """Answer."""
        from modelkeep.web.http1 import Response  # noqa: PLC0415

        lines = "".join(f"{name}: {value}\r\n" for name, value in HEADERS).encode()
        return Response(200, lines, await answer(request.body))


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """The application for uvicorn."""
    assert scope["type"] == "http"
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    got = await answer(body)
    headers = [(name.encode(), value.encode()) for name, value in HEADERS]
    headers.append((b"content-length", b"%d" % len(got)))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": got})


async def rsgi(_scope: Any, protocol: Any) -> None:
    """The application for granian."""
    protocol.response_bytes(200, list(HEADERS), await answer(await protocol()))


async def serve_own(kind: str, listening: socket.socket, chain: Path) -> None:
    """Serve with asyncio."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    if kind == "bare":
        await asyncio.get_running_loop().create_server(Bare, sock=listening, ssl=context)
    else:
        from modelkeep.gate.settings import GateSettings  # noqa: PLC0415
        from modelkeep.web.server import Server  # noqa: PLC0415

        server = Server(Application(), GateSettings(), complain=print)
        await server.start(listening, context)
    await asyncio.Event().wait()


async def serve_granian(listening: socket.socket, chain: Path) -> None:
    """Serve with granian embedded, on an inherited socket."""
    from granian._granian import SocketHolder  # noqa: PLC0415
    from granian.constants import HTTPModes, Interfaces, SSLProtocols  # noqa: PLC0415
    from granian.http import HTTP1Settings  # noqa: PLC0415
    from granian.server.embed import Server  # noqa: PLC0415

    class Inherited(Server):
        def _init_shared_socket(self) -> None:
            self._ssp = None
            self._shd = SocketHolder(listening.fileno(), False, 1024)  # noqa: FBT003

    server = Inherited(
        rsgi,
        interface=Interfaces.RSGI,
        http=HTTPModes.http1,
        websockets=False,
        log_enabled=False,
        ssl_cert=chain,
        ssl_key=chain.with_suffix(".key"),
        ssl_protocol_min=SSLProtocols.tls12,
        http1_settings=HTTP1Settings(pipeline_flush=True),
    )
    await server.serve()


def serve(kind: str, fd: int, chain: Path) -> None:
    """Be one of the servers."""
    listening = socket.socket(fileno=fd)
    if kind == "granian":
        uvloop.run(serve_granian(listening, chain))
    elif kind == "uvicorn":
        import uvicorn  # noqa: PLC0415

        config = uvicorn.Config(
            asgi, http="httptools", loop="uvloop", ws="none", lifespan="off", access_log=False,
            log_level="error", ssl_certfile=str(chain), ssl_keyfile=str(chain),
        )  # fmt: skip
        uvicorn.Server(config).run(sockets=[listening])
    else:
        uvloop.run(serve_own(kind, listening, chain))


def measured(kind: str, folder: Path, *, seconds: int = 3) -> tuple[float, float]:
    """Requests a second, and CPU microseconds a request."""
    from benchmarks.gateway import cpu_s  # noqa: PLC0415

    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        port, fd = listening.getsockname()[1], listening.fileno()
        child = subprocess.Popen([sys.executable, __file__, kind, str(fd), folder], pass_fds=[fd])
        time.sleep(1.5)
        command = ["wrk", "-t1", "-c32", "-s", str(folder / "call.lua")]
        url = f"https://127.0.0.1:{port}"
        subprocess.run([*command, "-d1s", url], check=True, capture_output=True)
        before = cpu_s(child.pid)
        done = subprocess.run(
            [*command, f"-d{seconds}s", url], check=True, capture_output=True, text=True
        )
        spent = cpu_s(child.pid) - before
        child.kill()
        child.wait()
    calls = re.search(r"(\d+) requests in", done.stdout)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    assert calls is not None
    assert rate is not None
    assert "Non-2xx" not in done.stdout, done.stdout
    return float(rate[1]), spent / int(calls[1]) * 1e6


def main() -> None:
    """Measure all in turns and print medians."""
    from benchmarks.gateway import body  # noqa: PLC0415
    from modelkeep.crypto.certificates import new_authority, server_certificate  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        now_ns = time.time_ns()
        authority = new_authority(keep_id="measured", now_ns=now_ns)
        hosts = ("127.0.0.1",)
        chain = server_certificate(
            authority, keep_id="measured", hosts=hosts, now_ns=now_ns
        ).reveal()
        (folder / "chain.pem").write_bytes(chain)
        (folder / "chain.key").write_bytes(chain[chain.index(b"-----BEGIN PRIVATE") :])
        (folder / "call.lua").write_text(LUA.format(secret="A" * 43, body=body()))
        figures: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
        for _ in range(ROUNDS):
            for kind in KINDS:
                figures[kind].append(measured(kind, folder))
    for kind, each in figures.items():
        rates, costs = zip(*each, strict=True)
        rate, cost = statistics.median(rates), statistics.median(costs)
        spread = f"({min(costs):.1f}-{max(costs):.1f})"
        print(f"{kind:10}{rate:9.0f} requests/s {cost:7.1f} us of CPU a request {spread}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3], "chain.pem"))
    else:
        main()
