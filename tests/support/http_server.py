"""An HTTP application behind our server and TLS, in the test's own loop."""

import asyncio
import contextlib
import socket
import ssl
import tempfile
import time

from modelkeep.crypto.certificates import new_authority, server_certificate
from modelkeep.gate.settings import GateSettings
from modelkeep.web.server import Server


def contexts():
    """A server's and a client's, of one authority."""
    now = {"keep_id": "0123456789abcdef", "now_ns": time.time_ns()}
    authority = new_authority(**now)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(server_certificate(authority, hosts=["localhost"], **now).reveal())
        file.flush()
        context.load_cert_chain(file.name)
    return context, ssl.create_default_context(cadata=authority.certificate.decode())


@contextlib.asynccontextmanager
async def served(application, **settings):
    context, trusting = contexts()
    complaints = []
    server = Server(application, GateSettings(**settings), complain=complaints.append)
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    await server.start(listening, context)

    async def connect():
        return await asyncio.open_connection(
            "127.0.0.1", port, ssl=trusting, server_hostname="localhost"
        )

    try:
        yield connect, complaints
    finally:
        await server.stop()
