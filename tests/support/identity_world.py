"""A real gateway process with the callers of a scene, and clients that present what they like."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
import subprocess
import sys
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway_world import DIGITS_SCHEMA, certificate
from identity_attacks import Presented
from identity_scene import Scene

from modelkeep.adapters.memory_file import sealed_bytes
from modelkeep.adapters.state_sqlite import SqliteState
from modelkeep.core.record import to_json
from modelkeep.gate.settings import GateSettings
from modelkeep.workers.plan import GatewayPlan, ServedModel

ROOT = Path(__file__).resolve().parents[2]
MODULE = "identity_gateway"
MODELS = (("digits", "default"), ("other", "default"), ("secret", "acme"))


@dataclass
class World:
    """A running gateway."""

    scene: Scene
    port: int
    ca: bytes
    state: SqliteState
    popen: subprocess.Popen[bytes]
    lifeline: int
    folder: Path
    grpc: socket.socket  # holds the port of gRPC, as the supervisor does

    def apply(self, kind: str, **facts: Any) -> None:
        """One more entry, as a verb would record it."""
        self.scene.record(kind, **facts)
        self.state.apply(self.state.applied().entries, [self.scene.entries[-1]])

    def context(self, pem: bytes = b"") -> ssl.SSLContext:
        """A client's context, with a certificate or without."""
        context = ssl.create_default_context(cadata=self.ca.decode())
        if pem:
            fd = sealed_bytes("client", pem)
            try:
                context.load_cert_chain(f"/proc/self/fd/{fd}")
            finally:
                os.close(fd)
        return context

    def connected(self, pem: bytes = b"") -> http.client.HTTPSConnection:
        """A connection; closed by whoever asked for it."""
        return http.client.HTTPSConnection(
            "127.0.0.1", self.port, context=self.context(pem), timeout=10
        )

    def token(self, name: str, password: str, **more: str) -> tuple[int, dict[str, str], Any]:
        """Ask for a token as a form."""
        fields = {"grant_type": "password", "username": name, "password": password, **more}
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return self.posted(urllib.parse.urlencode(fields).encode(), headers)

    def posted(self, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, str], Any]:
        """Post to the endpoint for tokens: status, headers, body."""
        import json  # noqa: PLC0415

        with contextlib.closing(self.connected()) as connection:
            connection.request("POST", "/v1/token", body, headers)
            answer = connection.getresponse()
            told = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, told, json.loads(answer.read())

    def stop(self) -> None:
        """End the process."""
        os.close(self.lifeline)
        try:
            self.popen.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        self.state.close()
        self.grpc.close()


def started(scene: Scene, folder: Path, **more: Any) -> World:
    """Start a gateway; returns when it answers."""
    (folder / "run").mkdir(parents=True)
    (folder / "calls").mkdir()
    state = SqliteState(folder / "state.db")
    state.apply(0, scene.entries)
    ca, chain = certificate()
    public = socket.create_server(("127.0.0.1", 0), backlog=128)
    port = public.getsockname()[1]
    grpc = socket.socket()
    grpc.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    grpc.bind(("127.0.0.1", 0))
    reading, writing = os.pipe2(os.O_CLOEXEC)
    plan = GatewayPlan(
        listen_fd=public.detach(),
        lifeline_fd=reading,
        tls_fd=sealed_bytes("tls", chain),
        commitment_key_fd=sealed_bytes("commitments", scene.commitments),
        client_ca_fd=sealed_bytes("client-ca", scene.authority.certificate),
        token_key_fd=sealed_bytes("tokens", scene.token_seed),
        run_folder=str(folder / "run"),
        state_path=str(folder / "state.db"),
        journal_folder=str(folder / "calls"),
        journal_name="gateway-0",
        full_path=str(folder / "full"),
        settings=GateSettings(),
        grpc_host="127.0.0.1",
        grpc_port=grpc.getsockname()[1],
        identity=more.pop("identity", None) or scene.identity(),
        models=tuple(
            ServedModel(
                name=name,
                version=1,
                schema=DIGITS_SCHEMA,
                sockets=(),
                is_default=True,
                domain=domain,
            )
            for name, domain in MODELS
        ),
        **more,
    )
    plan_fd = sealed_bytes("plan", to_json(plan))
    names = ("listen", "lifeline", "tls", "commitment_key", "client_ca", "token_key")
    fds = tuple(getattr(plan, f"{name}_fd") for name in names)
    popen = subprocess.Popen(
        [sys.executable, "-m", MODULE, "--plan-fd", str(plan_fd)],
        env={"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests' / 'support'}"},
        pass_fds=(*fds, plan_fd),
    )
    for fd in (*fds, plan_fd):
        os.close(fd)
    world = World(scene, port, ca, state, popen, writing, folder, grpc)
    _await_answers(world)
    return world


def _await_answers(world: World) -> None:
    """Wait until the gateway listens and has fetched the keys of its issuers."""
    ends_s = time.monotonic() + 30
    while time.monotonic() < ends_s:
        assert world.popen.poll() is None, "the gateway ended"
        with contextlib.suppress(OSError):
            shown = Presented(b"Bearer " + world.scene.corp())
            if HttpCaller(world)(shown) == 200:
                return
        time.sleep(0.05)
    raise TimeoutError("the gateway does not answer")


class HttpCaller:
    """Presents over HTTP; says the status, or `tls` where the handshake fails."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __call__(self, shown: Presented) -> int | str:
        """Ask for a model's metadata."""
        headers = {}
        if shown.authorization is not None:
            headers["Authorization"] = shown.authorization.decode("latin-1")
        pem = shown.client.pem if shown.client is not None else b""
        with contextlib.closing(self._world.connected(pem)) as connection:
            try:
                connection.request("GET", f"/v2/models/{shown.model}", headers=headers)
                answer = connection.getresponse()
                answer.read()
            except (ssl.SSLError, ConnectionError, http.client.RemoteDisconnected):
                return "tls"
            return answer.status


class GrpcCaller:
    """Presents over gRPC; says what HTTP's status would be, or `tls`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._plain = world.grpc.getsockname()[1]
        self._mutual = int((world.folder / "grpc-port").read_text())

    def __call__(self, shown: Presented) -> int | str:
        """Ask for a model's metadata."""
        import grpc  # noqa: PLC0415

        from modelkeep.web import open_inference_pb2 as pb  # noqa: PLC0415

        key = chain = None
        port = self._plain
        if shown.client is not None:
            at = shown.client.pem.index(b"-----BEGIN PRIVATE")
            chain, key, port = shown.client.pem[:at], shown.client.pem[at:], self._mutual
        credentials = grpc.ssl_channel_credentials(self._world.ca, key, chain)
        options = (("grpc.ssl_target_name_override", "localhost"),)
        metadata = []
        if shown.authorization is not None:
            metadata.append(("authorization", shown.authorization.decode("latin-1")))
        with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
            ask = channel.unary_unary(
                "/inference.GRPCInferenceService/ModelMetadata",
                request_serializer=pb.ModelQuestion.SerializeToString,
                response_deserializer=pb.ModelMetadataResponse.FromString,
            )
            try:
                ask(pb.ModelQuestion(name=shown.model), metadata=metadata, timeout=10)
            except grpc.RpcError as error:
                return _STATUS.get(error.code().name, error.code().name)
        return 200


_STATUS = {
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 431,
    "UNAVAILABLE": "tls",
}
