"""The listeners of one gateway: HTTP with its applications, and gRPC, before one passage."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from modelkeep.adapters.metrics_prometheus import CONTENT_TYPE, GatewayMeters
from modelkeep.adapters.tls import server_context, with_chain
from modelkeep.core.errors import KeepError
from modelkeep.flows.serve import Serving
from modelkeep.web.messages import Application
from modelkeep.web.openai import OpenaiApplication
from modelkeep.web.openapi import PATH as OPENAPI_PATH
from modelkeep.web.openapi import OpenApiApplication
from modelkeep.web.openapi_text import text_operations, token_operations
from modelkeep.web.router import Router
from modelkeep.web.server import Server
from modelkeep.web.tokens import TOKEN_PATH, TokenApplication
from modelkeep.web.v2 import V2Application
from modelkeep.workers.plan import GatewayPlan, read_fd

if TYPE_CHECKING:
    from modelkeep.web.grpc_server import GrpcServer


class Surfaces:
    """What clients reach of one gateway.

    Args:
        tokens: the endpoint for tokens; None where none are given.
        exposition: the metrics.
        complain: writes one line for developers.
    """

    def __init__(
        self,
        plan: GatewayPlan,
        serving: Serving,
        meters: GatewayMeters,
        *,
        tokens: TokenApplication | None,
        exposition: Callable[[], bytes],
        complain: Callable[[str], None],
    ) -> None:
        self._plan = plan
        self._complain = complain
        self._chain = read_fd(plan.tls_fd)
        self._client_ca = read_fd(plan.client_ca_fd) if plan.client_ca_fd >= 0 else b""
        self._context: ssl.SSLContext = server_context(self._chain, client_ca=self._client_ca)
        v2 = V2Application(
            serving, tallies=meters.tally, exposition=exposition, metrics_type=CONTENT_TYPE
        )
        router = Router(_applications(serving, tokens), v2)
        self._http = Server(router, plan.settings, complain=complain)
        self._grpc: GrpcServer | None = None
        if plan.grpc_port:
            from modelkeep.web import grpc_server  # noqa: PLC0415  # loads grpc

            self._tls_of_pem = grpc_server.tls_of_pem
            self._grpc = grpc_server.GrpcServer(
                serving, plan.settings, tallies=meters.tally, complain=complain
            )
        meters.watch_connections(lambda: self._http.connection_count)

    async def start(self) -> None:
        """Accept clients.

        Raises:
            UnavailableError: `serve.port`.
        """
        await self._http.start(socket.socket(fileno=self._plan.listen_fd), self._context)
        if self._grpc is not None:
            tls = self._tls_of_pem(self._chain, client_ca=self._client_ca)
            await self._grpc.start(self._plan.grpc_host, self._plan.grpc_port, tls)

    async def stop(self) -> None:
        """Accept no more; what is under way is answered within the drain timeout."""
        await self._http.stop()
        if self._grpc is not None:
            await self._grpc.stop(self._plan.settings.drain_timeout_s)

    def serve_certificate(self, chain: bytes) -> None:
        """Serve another certificate from the next handshake on; the old one stays on error."""
        try:
            with_chain(self._context, chain)
            if self._grpc is not None:
                self._grpc.replace_tls(self._tls_of_pem(chain, client_ca=self._client_ca))
        except KeepError as error:
            self._complain(str(error))


def _applications(serving: Serving, tokens: TokenApplication | None) -> Mapping[bytes, Application]:
    operations = token_operations() if tokens is not None else []
    found: dict[bytes, Application] = {
        b"/v1/": OpenaiApplication(serving),
        OPENAPI_PATH: OpenApiApplication(serving, text_operations(), operations),
    }
    if tokens is not None:
        found[TOKEN_PATH] = tokens
    return found
