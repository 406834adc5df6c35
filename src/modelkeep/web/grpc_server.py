"""The gRPC listener: TLS, bounds of connections and messages, start and stop.

gRPC's own C core reads HTTP/2; what it offers as bounds is set here, from the same `[gate]` as
HTTP's. Several processes may listen at one port: the kernel shares connections out (SO_REUSEPORT).
Compressed messages are not taken, as on HTTP. There is no reflection and no other service.

A certificate is asked for at every handshake, so a new one serves at once. gRPC's Python knows
client certificates as "none" or "required", nothing between: with `needs_client` every client must
show one, without it none is asked for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

from modelkeep.core.errors import UnavailableError, UsageError
from modelkeep.core.record import Row
from modelkeep.flows.serve import Serving
from modelkeep.gate.settings import GateSettings
from modelkeep.web.v2_records import Tallies

# Read once, when the library is loaded: its own log is for its developers, and we never fork.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc  # after what it reads

from modelkeep.web.grpc_methods import Methods  # loads grpc

# A message holds names and shapes besides the tensors that `body_bytes_max` is about.
MESSAGE_SLACK_BYTES = 64 * 1024
# Of one connection; a client that wants more opens another.
STREAMS_PER_CONNECTION = 128
# A peer that is silent is asked whether it lives; one that asks us more often than this is cut off.
KEEPALIVE_MS = 60_000
KEEPALIVE_TIMEOUT_MS = 20_000
PING_INTERVAL_MS_MIN = 10_000
PING_STRIKES = 3


_KEY = re.compile(
    rb"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----\s*", re.DOTALL
)


class GrpcTls(Row, frozen=True):
    """What a handshake needs.

    Attributes:
        chain: the server's certificates, PEM.
        key: its private key, PEM.
        client_ca: authorities of client certificates, PEM; empty for none.
        needs_client: whether every client must show a certificate.
    """

    chain: bytes
    key: bytes
    client_ca: bytes = b""
    needs_client: bool = False


def tls_of_pem(pem: bytes, *, client_ca: bytes = b"", needs_client: bool = False) -> GrpcTls:
    """A certificate chain and its private key out of one file, as `load_cert_chain` takes it.

    Raises:
        UsageError: `serve.certificate`.
    """
    keys = _KEY.findall(pem)
    chain = _KEY.sub(b"", pem)
    if len(keys) != 1 or b"-----BEGIN CERTIFICATE-----" not in chain:
        raise UsageError("serve.certificate", "the file holds no certificate with its one key")
    return GrpcTls(chain, keys[0], client_ca, needs_client)


class GrpcServer:
    """gRPC's listener for one event loop.

    Args:
        tallies: what a version of a model was asked.
        complain: told of our own faults.
    """

    def __init__(
        self,
        serving: Serving,
        settings: GateSettings,
        *,
        tallies: Tallies,
        complain: Callable[[str], None],
    ) -> None:
        self._serving = serving
        self._settings = settings
        self._tallies = tallies
        self._complain = complain
        self._server: Any = None
        self._methods: Methods | None = None
        self._tls: GrpcTls | None = None
        self._configured: GrpcTls | None = None

    async def start(self, host: str, port: int, tls: GrpcTls | None) -> int:
        """Listen.

        Args:
            port: 0 takes a free one.
            tls: None speaks in the clear, which is for tests only.

        Returns:
            The port.

        Raises:
            UnavailableError: `serve.port`.
        """
        self._methods = Methods(
            self._serving,
            tallies=self._tallies,
            complain=self._complain,
            verifies_clients=tls is not None and tls.needs_client,
        )
        self._server = grpc.aio.server(
            options=server_options(self._settings),
            maximum_concurrent_rpcs=self._settings.calls_in_flight_max,
        )
        self._server.add_generic_rpc_handlers((self._methods,))
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if tls is None:
                bound = self._server.add_insecure_port(address)
            else:
                self._tls = self._configured = tls
                bound = self._server.add_secure_port(address, self._credentials(tls))
        except RuntimeError as error:
            raise UnavailableError(
                "serve.port",
                f"cannot listen on {address} for gRPC",
                hint="another service may hold the port: set `grpc_port` in `[serve]`",
            ) from error
        await self._server.start()
        return int(bound)

    def replace_tls(self, tls: GrpcTls) -> None:
        """Serve another certificate from the next handshake on; `needs_client` stays."""
        self._tls = tls

    async def stop(self, grace_s: float) -> None:
        """Accept no more, finish what is under way within the grace, end; all is recorded then."""
        if self._server is not None:
            await self._server.stop(grace_s)
        if self._methods is not None:
            await self._methods.finish()

    def _credentials(self, tls: GrpcTls) -> Any:
        return grpc.dynamic_ssl_server_credentials(
            _configuration(tls), self._renewed, require_client_authentication=tls.needs_client
        )

    def _renewed(self) -> Any:
        """A new configuration, if there is one; gRPC asks at every handshake, in its own thread."""
        wanted = self._tls
        if wanted is self._configured or wanted is None:
            return None
        self._configured = wanted
        return _configuration(wanted)


def server_options(settings: GateSettings) -> tuple[tuple[str, int], ...]:
    """The bounds, as the C core calls them."""
    return (
        ("grpc.so_reuseport", 1),
        ("grpc.max_receive_message_length", settings.body_bytes_max + MESSAGE_SLACK_BYTES),
        ("grpc.max_send_message_length", -1),  # an answer is bounded by the replica's frames
        ("grpc.compression_enabled_algorithms_bitset", 1),  # identity
        ("grpc.max_concurrent_streams", STREAMS_PER_CONNECTION),
        ("grpc.max_allowed_incoming_connections", settings.connections_max),
        ("grpc.max_metadata_size", settings.header_bytes_max),
        ("grpc.absolute_max_metadata_size", settings.header_bytes_max),
        ("grpc.server_handshake_timeout_ms", int(settings.handshake_timeout_s * 1000)),
        ("grpc.max_connection_idle_ms", int(settings.idle_timeout_s * 1000)),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", PING_INTERVAL_MS_MIN),
        ("grpc.http2.max_ping_strikes", PING_STRIKES),
    )


def _configuration(tls: GrpcTls) -> Any:
    return grpc.ssl_server_certificate_configuration(
        [(tls.key, tls.chain)], root_certificates=tls.client_ca or None
    )
