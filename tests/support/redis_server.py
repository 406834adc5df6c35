"""A real Redis server for one test session: Debian's, on loopback, on a free port, nothing kept."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PASSWORD = "correct horse battery staple"  # noqa: S105


@dataclass
class RedisServer:
    """Where it listens; `stop` and `start` make it go away and come back."""

    folder: Path
    port: int
    with_tls: bool
    popen: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"{'rediss' if self.with_tls else 'redis'}://127.0.0.1:{self.port}/0"

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def password_file(self) -> Path:
        return self.folder / "password"

    def start(self) -> None:
        port = f"tls-port {self.port}\nport 0" if self.with_tls else f"port {self.port}"
        lines = [port, "bind 127.0.0.1", 'save ""', "appendonly no", f'requirepass "{PASSWORD}"']
        if self.with_tls:
            lines += [
                f"tls-cert-file {self.ca}",
                f"tls-key-file {self.folder / 'key.pem'}",
                "tls-auth-clients no",
            ]
        (self.folder / "redis.conf").write_text("\n".join(lines))
        self.popen = subprocess.Popen(
            [program() or "redis-server", str(self.folder / "redis.conf")],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
        )
        ends = time.monotonic() + 10
        while time.monotonic() < ends:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.02)
        raise TimeoutError("redis-server did not start")

    def stop(self) -> None:
        if self.popen is not None:
            self.popen.kill()
            self.popen.wait()


def program() -> str | None:
    """Redis or Valkey, whichever is there."""
    return shutil.which("redis-server") or shutil.which("valkey-server")


@contextmanager
def running_redis(*, with_tls: bool = False) -> Iterator[RedisServer]:
    """Start one that asks for `PASSWORD`."""
    if program() is None:
        pytest.skip("no Redis server is installed (Debian: redis-server)")
    folder = Path(tempfile.mkdtemp(prefix="mk-redis-"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = RedisServer(folder, port, with_tls)
    server.password_file.write_text(PASSWORD)
    server.password_file.chmod(0o600)
    if with_tls:
        _certify(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


def _certify(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "redis")])
    now = datetime.datetime.now(datetime.UTC)
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(here, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
