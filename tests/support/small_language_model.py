"""A very small language model, and an OpenAI-compatible server around it that can misbehave.

The model is real and tiny: it counts which word follows which two words in this repository's own
documents, and draws from these counts. It splits texts into tokens, honours temperature, top_p,
seed and stops, and makes vectors of texts by hashing their words. It says nothing of use; what it
is for is that everything around it works as with a large one.

The server is no server that anybody runs: it is written by the same people as the client that is
tested with it. It speaks the protocol as its documentation says, over TLS, and fails on demand as
servers do (`Faults`). A test against a real llama.cpp stands beside it (test_openai_llama.py).
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import json
import math
import random
import re
import select
import ssl
import struct
import threading
import time
from base64 import b64encode
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from modelkeep.crypto.certificates import new_authority, server_certificate

HOST = "127.0.0.1"
KEY = "sk-canary-of-the-upstream"
# What a hostile or careless server says of itself; none of it may reach a caller.
SECRET_WORDS = "internal-host-17 says tenant-42"  # noqa: S105 - of a server that fails
NAME = "ngram"
DIMENSIONS = 32
_TOKEN = re.compile(r"\s*\w+|\s*[^\w\s]")


def tokens_of(text: str) -> list[str]:
    """A text as tokens; joined they are the text, but for white space at its end."""
    return _TOKEN.findall(text)


class Trigrams:
    """Which token follows which two."""

    def __init__(self, text: str) -> None:
        tokens = tokens_of(text)
        counts: dict[tuple[str, ...], Counter[str]] = {}
        for first, second, third in zip(tokens, tokens[1:], tokens[2:], strict=False):
            for context in ((first.strip(), second.strip()), (second.strip(),), ()):
                counts.setdefault(context, Counter())[third] += 1
        self._counts = {key: each.most_common(200) for key, each in counts.items()}

    def next_token(
        self, context: list[str], *, temperature: float, top_p: float, draw: random.Random
    ) -> str:
        """The next token after a text, from the longest context that is known."""
        last = tuple(each.strip() for each in context[-2:])
        found = next(self._counts[key] for key in (last, last[-1:], ()) if key in self._counts)
        if temperature == 0:
            return found[0][0]
        weights = [count ** (1 / temperature) for _, count in found]
        sums = list(itertools.accumulate(weights))
        kept = bisect.bisect_left(sums, top_p * sums[-1]) + 1
        return draw.choices([token for token, _ in found[:kept]], weights[:kept])[0]


@cache
def model() -> Trigrams:
    """The model, made of the repository's documents; about a quarter of a second."""
    docs = Path(__file__).resolve().parents[2] / "docs" / "design"
    return Trigrams("\n".join(path.read_text() for path in sorted(docs.glob("*.md"))))


def vector_of(text: str) -> list[float]:
    """A text as a vector of length 1: its words, hashed into places."""
    vector = [0.0] * DIMENSIONS
    for word in re.findall(r"\w+", text.lower()):
        digest = hashlib.sha256(word.encode()).digest()
        vector[digest[0] % DIMENSIONS] += 1.0 if digest[1] & 1 else -1.0
    size = math.sqrt(sum(each * each for each in vector)) or 1.0
    return [each / size for each in vector]


@dataclass
class SmallServer:
    """The server; attributes may be changed while it runs.

    Attributes:
        fault: what goes wrong with each call; empty for nothing.
        faulty_calls: how many calls it goes wrong with; -1 for all.
        pause_s: between two tokens.
        begun, finished, broken_off: answers.
        asked: bodies, in order.
    """

    folder: Path
    is_secure: bool = True
    fault: str = ""
    faulty_calls: int = -1
    pause_s: float = 0.0
    says_usage: bool = True
    begun: int = 0
    finished: int = 0
    broken_off: int = 0
    connections: int = 0
    sent_bytes: int = 0
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        model()
        self.lock = threading.Lock()
        self._server = _Quiet((HOST, 0), _handler(self))
        self.port = self._server.server_port
        if self.is_secure:
            now_ns, keep_id = time.time_ns(), "0" * 16
            authority = new_authority(keep_id=keep_id, now_ns=now_ns)
            both = server_certificate(authority, keep_id=keep_id, hosts=[HOST], now_ns=now_ns)
            self.ca = authority.certificate
            path = self.folder / "upstream.pem"
            path.write_bytes(both.reveal())
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(path)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.url = f"http{'s' * self.is_secure}://{HOST}:{self.port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def well(self) -> None:
        """Work as it should, and forget what was."""
        with self.lock:
            self.fault, self.pause_s, self.says_usage, self.faulty_calls = "", 0.0, True, -1
            self.begun = self.finished = self.broken_off = self.sent_bytes = 0
            self.asked.clear()
            self.headers.clear()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def count(self, name: str) -> None:
        with self.lock:
            setattr(self, name, getattr(self, name) + 1)

    def current_fault(self) -> str:
        with self.lock:
            if not self.fault or self.faulty_calls == 0:
                return ""
            self.faulty_calls -= 1
            return self.fault


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, *_: object) -> None:
        """A client hung up."""


# Answers that are no answers, by fault: status, headers, body.
_REFUSALS = {
    "400": (400, {}),
    "401": (401, {}),
    "404": (404, {}),
    "429": (429, {"Retry-After": "7"}),
    "429-soon": (429, {"Retry-After": "1"}),
    "500": (500, {}),
    "503-soon": (503, {"Retry-After": "1"}),
    "redirect": (307, {"Location": "https://192.0.2.1/v1/chat/completions"}),
    "no-content": (204, {}),
}


def _handler(server: SmallServer) -> type[BaseHTTPRequestHandler]:  # noqa: C901 - a class
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def handle(self) -> None:
            server.count("connections")
            super().handle()

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            with server.lock:
                server.asked.append(json.loads(raw))
                server.headers.append({key.lower(): value for key, value in self.headers.items()})
            fault = server.current_fault()
            if self.headers.get("Authorization") != f"Bearer {KEY}":
                fault = "401"
            if fault in _REFUSALS:
                status, headers = _REFUSALS[fault]
                self._plain(status, json.dumps({"error": SECRET_WORDS}).encode(), headers)
            elif fault == "drop":
                self.close_connection = True
            elif fault == "garbage":
                self.wfile.write(b"\x00\x01 nothing that HTTP knows\r\n\r\n")
                self.close_connection = True
            elif fault == "huge-head":
                self.send_response(200)
                self.send_header("X", "x" * 1_000_000)
                self.end_headers()
                self.close_connection = True
            elif fault == "silent":
                self._wait(60)
                self.close_connection = True
            elif self.path == "/v1/embeddings":
                self._vectors(json.loads(raw), fault)
            else:
                self._stream(json.loads(raw), fault)

        # ---- answers ---------------------------------------------------------------------------

        def _plain(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _vectors(self, asked: dict[str, Any], fault: str) -> None:
            texts = asked["input"]
            vectors = [vector_of(each) for each in texts]
            if fault == "vectors-few":
                vectors.pop()
            if fault == "vectors-nan":
                vectors[0][0] = math.nan
            data = [
                {"object": "embedding", "index": index, "embedding": _b64(each)}
                for index, each in enumerate(vectors)
            ]
            used = sum(len(tokens_of(each)) for each in texts)
            usage = {"prompt_tokens": used, "total_tokens": used}
            body = json.dumps({"object": "list", "data": data, "usage": usage}).encode()
            self._plain(200, body, {"Content-Type": "application/json"})

        def _stream(self, asked: dict[str, Any], fault: str) -> None:
            self.send_response(200)
            media = "text/html" if fault == "html" else "text/event-stream; charset=utf-8"
            self.send_header("Content-Type", media)
            if fault == "gzip":
                self.send_header("Content-Encoding", "gzip")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            server.count("begun")
            try:
                self._events(asked, fault)
            except OSError:
                server.count("broken_off")
                self.close_connection = True
            else:
                server.count("finished")

        def _events(self, asked: dict[str, Any], fault: str) -> None:
            chat = "messages" in asked
            if fault == "stall-first":
                self._wait(60)
            prompts = asked.get("prompt", "")
            texts = (
                ["\n".join(each["content"] for each in asked["messages"])]
                if chat
                else [prompts]
                if isinstance(prompts, str)
                else prompts
            )
            used = [sum(len(tokens_of(each)) for each in texts), 0]
            if chat:
                for index in range(asked.get("n", 1)):
                    self._event([_choice(index, {"delta": {"role": "assistant", "content": ""}})])
            made = [
                _generated(text, asked, number)
                for text in texts
                for number in range(asked.get("n", 1))
            ]
            live = list(enumerate(made))
            while live:
                for each in tuple(live):
                    index, generating = each
                    token = next(generating, None)
                    if token is None or isinstance(token, _End):
                        live.remove(each)
                        reason = token.reason if token is not None else "stop"
                        if fault != "no-reason":
                            more = {"delta": {}} if chat else {"text": ""}
                            self._event([_choice(index, more, reason)])
                        continue
                    used[1] += 1
                    more = {"delta": {"content": token}} if chat else {"text": token}
                    self._event([_choice(index, more)])
                    self._misbehave(fault, used[1])
                    self._wait(server.pause_s)
            wants_usage = asked.get("stream_options", {}).get("include_usage")
            if wants_usage and server.says_usage:
                usage = {"prompt_tokens": used[0], "completion_tokens": used[1]}
                self._event([], usage=usage)
            self._chunk(b"data: [DONE]\n\n")
            self._chunk(b"")

        def _misbehave(self, fault: str, count: int) -> None:  # noqa: C901, PLR0912 - a table
            """What goes wrong after the third token."""
            if count != 3:
                return
            match fault:
                case "cut":
                    self.connection.shutdown(2)
                    raise OSError
                case "cut-clean":
                    self._chunk(b"")
                    raise OSError
                case "json":
                    self._chunk(b'data: {"choices": [}\n\n')
                case "deep":
                    self._chunk(b"data: " + b"[" * 100_000 + b"\n\n")
                case "utf8":
                    self._chunk(b'data: {"choices": [{"delta": {"content": "\xff\xfe"}}]}\n\n')
                case "huge-line":
                    for _ in range(64):
                        self._chunk(b"x" * 65_536)
                case "huge":
                    while True:
                        self._event([_choice(0, {"delta": {"content": "x" * 60_000}})])
                        with server.lock:
                            server.sent_bytes += 60_000
                case "error-event":
                    self._chunk(sse({"error": {"message": SECRET_WORDS}}))
                case "wrong-index":
                    self._event([_choice(7, {"delta": {"content": SECRET_WORDS}})])
                case "negative-index":
                    self._event([_choice(-1, {"delta": {"content": SECRET_WORDS}})])
                case "stall":
                    self._wait(60)
                case _:
                    pass

        def _event(self, choices: list[dict[str, Any]], **more: Any) -> None:
            about = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": NAME}
            self._chunk(sse({**about, "choices": choices, "x_own_field": {"a": [1]}, **more}))

        def _chunk(self, data: bytes) -> None:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

        def _wait(self, seconds: float) -> None:
            """Wait, and notice that the client is gone: it sends nothing while it is answered."""
            if seconds and select.select([self.connection], [], [], seconds)[0]:
                raise ConnectionResetError

    return Handler


@dataclass(frozen=True)
class _End:
    reason: str


def _generated(prompt: str, asked: dict[str, Any], number: int) -> Any:
    """Tokens after a prompt; a text that might become a stop is held back."""
    seed = asked.get("seed")
    draw = random.Random(None if seed is None else f"{seed}/{number}/{prompt}")  # noqa: S311
    context, held = tokens_of(prompt), ""
    stops = asked.get("stop") or ()
    stops = (stops,) if isinstance(stops, str) else stops
    limit = asked.get("max_tokens") or 60
    for _ in range(limit):
        token = model().next_token(
            context,
            temperature=asked.get("temperature", 1.0),
            top_p=asked.get("top_p", 1.0),
            draw=draw,
        )
        context.append(token)
        held += token
        for stop in stops:
            if stop in held:
                if before := held.partition(stop)[0]:
                    yield before
                yield _End("stop")
                return
        if not any(held[-size:] == stop[:size] for stop in stops for size in range(1, len(stop))):
            yield held
            held = ""
    if held:
        yield held
    yield _End("length")


def sse(body: object) -> bytes:
    return b"data: %b\n\n" % json.dumps(body).encode()


def _choice(index: int, more: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"index": index, **more, "finish_reason": reason}


def _b64(vector: list[float]) -> str:
    return b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
