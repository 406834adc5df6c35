"""The real gateway process, and beside it a gRPC listener that asks for client certificates.

Started as `python -m identity_gateway --plan-fd N`, as the supervisor starts `workers.gateway`. The
gateway's own gRPC listener asks for none; what is behind both is the same passage.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import uvloop

from modelkeep.adapters.locks import sole_writer
from modelkeep.web.grpc_server import GrpcServer, GrpcTls
from modelkeep.workers.gateway import Gateway, complain
from modelkeep.workers.plan import GatewayPlan, gateway_plan, read_fd


class IdentityGateway(Gateway):
    """The gateway with one listener more."""

    async def run(self) -> int:
        plan = self._plan
        pem = read_fd(plan.tls_fd)
        at = pem.index(b"-----BEGIN PRIVATE")
        tls = GrpcTls(
            chain=pem[:at],
            key=pem[at:],
            client_ca=read_fd(plan.client_ca_fd),
            needs_client=True,
        )
        server = GrpcServer(
            self._serving, plan.settings, tallies=self._meters.tally, complain=complain
        )
        port = await server.start("127.0.0.1", 0, tls)
        place = Path(plan.journal_folder).parent / "grpc-port"
        place.with_suffix(".new").write_text(str(port))
        place.with_suffix(".new").rename(place)
        try:
            return await super().run()
        finally:
            await server.stop(1.0)


async def serve(plan: GatewayPlan) -> int:
    """Compose and run; the exit status."""
    return await IdentityGateway(plan).run()


def main() -> int:
    """Read the plan, serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--plan-fd", type=int, required=True)
    plan = gateway_plan(parser.parse_args().plan_fd)
    with sole_writer(Path(plan.journal_folder)):
        return uvloop.run(serve(plan))


if __name__ == "__main__":
    sys.exit(main())
