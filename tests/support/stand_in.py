"""A small HTTPS server that stands in for a service: it keeps what it was asked, and can fail."""

from __future__ import annotations

import json
import ssl
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from modelkeep.crypto.certificates import new_authority, server_certificate

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body or b"null")


class Refusal(Exception):  # noqa: N818 - an answer, no error of ours
    """An answer that is not 200."""

    def __init__(self, status: int, facts: Any = None, **headers: str) -> None:
        super().__init__(status)
        self.status = status
        self.facts = facts
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@dataclass
class StandIn:
    """A server over TLS with an authority of its own; `down` makes it answer that status.

    Attributes:
        twin: whose certificate it has, so that a client would believe it.
        asked: every request, in order.
        garble: changes an answer on its way.
    """

    folder: Path
    twin: StandIn | None = None
    asked: list[Asked] = field(default_factory=list)
    down: int = 0
    redirect: str = ""
    garble: Any = None

    content_type: ClassVar[str] = "application/json"

    def __post_init__(self) -> None:
        if self.twin is None:
            now_ns, keep_id = time.time_ns(), "0" * 16
            authority = new_authority(keep_id=keep_id, now_ns=now_ns)
            both = server_certificate(authority, keep_id=keep_id, hosts=[HOST], now_ns=now_ns)
            (self.folder / "ca.pem").write_bytes(authority.certificate)
            (self.folder / "server.pem").write_bytes(both.reveal())
        held = self.twin.folder if self.twin else self.folder
        self.ca = held / "ca.pem"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(held / "server.pem")
        self._server = _QuietServer((HOST, 0), _handler(self))
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.port = self._server.server_port
        self.address = f"https://{HOST}:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.start()

    def start(self) -> None:
        """What a kind of stand-in holds."""

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def secret(self, name: str, text: str) -> str:
        """A protected file with a secret; its reference."""
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)
        return f"file:{path}"

    def reply(self, asked: Asked) -> tuple[int, Any, dict[str, str]]:
        self.asked.append(asked)
        if self.redirect:
            return 307, None, {"Location": self.redirect + asked.path}
        if self.down:
            return self.down, {"errors": [asked.body.decode("latin-1")]}, {}
        try:
            facts = self.answer(asked)
        except Refusal as refusal:
            return refusal.status, refusal.facts, refusal.headers
        return 200, self.garble(facts) if self.garble else facts, {}

    def answer(self, asked: Asked) -> Any:
        raise NotImplementedError


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A client that does not trust us hangs up."""


def _handler(stand_in: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        timeout = 30

        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.command, self.path, headers, self.rfile.read(length))
            status, facts, more = stand_in.reply(asked)
            body = b"" if facts is None else json.dumps(facts).encode()
            self.send_response(status)
            for name, value in more.items():
                self.send_header(name, value)
            self.send_header("Content-Type", stand_in.content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = _serve  # noqa: N815 - names of the standard library

        def log_message(self, *_: object) -> None:
            pass

    return Handler
