"""A real issuer of tokens: an HTTPS server with discovery, made on the spot; its keys rotate."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import token_forge as forge
from cryptography.hazmat.primitives.asymmetric import ec
from gateway_world import certificate

from modelkeep.adapters.memory_file import sealed_bytes
from modelkeep.gate.identity_settings import IssuerSettings

AUDIENCE = "modelkeep-gate"


@dataclass
class OidcIssuer:
    """An issuer; what it answers can be changed while it runs.

    Attributes:
        behaviour: `good`, `down`, `redirect`, `huge`, `drip`, `garbage` or `other-host`.
        asked: paths of the requests so far.
    """

    port: int
    ca_path: Path
    keys: dict[str, Any] = field(default_factory=dict)
    behaviour: str = "good"
    asked: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What its tokens call it."""
        return f"https://localhost:{self.port}"

    def rotate(self, kid: str) -> None:
        """Sign with a new key from now on, and show no other."""
        self.keys = {kid: ec.generate_private_key(ec.SECP256R1())}

    def token(self, **claims: Any) -> bytes:
        """A token by the newest key."""
        kid, key = list(self.keys.items())[-1]
        usual = {"iss": self.name, "aud": AUDIENCE, "sub": "u-1", "exp": int(time.time()) + 600}
        return forge.compact({"alg": "ES256", "kid": kid}, {**usual, **claims}, forge.es(key))

    def settings(self, **more: Any) -> IssuerSettings:
        """What modelkeep.toml says of it."""
        usual = {
            "label": "oidc",
            "issuer": self.name,
            "audience": AUDIENCE,
            "scopes": ("infer:*",),
            "hosts": ("localhost",),
            "ca": str(self.ca_path),
            "algorithms": ("ES256",),
        }
        return IssuerSettings(**{**usual, **more})

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """What is answered to a path."""
        self.asked.append(path)
        wrong = {
            "down": (503, {}, b""),
            "redirect": (302, {"Location": f"{self.name}/keys"}, b""),
            "huge": (200, {}, b'{"keys":[' + b" " * 2_000_000 + b"]}"),
            "garbage": (200, {}, b"<html>"),
        }
        if self.behaviour in wrong:
            return wrong[self.behaviour]
        if path == "/.well-known/openid-configuration":
            host = (
                "attacker.example" if self.behaviour == "other-host" else f"localhost:{self.port}"
            )
            facts = {"issuer": self.name, "jwks_uri": f"https://{host}/keys"}
            return 200, {}, json.dumps(facts).encode()
        if path == "/keys":
            listed = [forge.jwk(key, kid=kid) for kid, key in self.keys.items()]
            return 200, {}, forge.jwks(*listed)
        return 404, {}, b""


@contextlib.contextmanager
def issuing(folder: Path) -> Iterator[OidcIssuer]:
    """An issuer that runs."""
    ca, chain = certificate()
    ca_path = folder / "issuer-ca.pem"
    ca_path.write_bytes(ca)

    class Answering(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = issuer.answer(self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):
                if issuer.behaviour == "drip":
                    for byte in body:
                        self.wfile.write(bytes([byte]))
                        time.sleep(0.1)
                else:
                    self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    class Quiet(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """A client that hangs up is no fault of the server."""

    server = Quiet(("127.0.0.1", 0), Answering)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    fd = sealed_bytes("issuer", chain)
    context.load_cert_chain(f"/proc/self/fd/{fd}")
    os.close(fd)
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    issuer = OidcIssuer(port=server.server_port, ca_path=ca_path)
    issuer.rotate("first")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
