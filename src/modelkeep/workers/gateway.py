"""The gateway process: TLS in front, the passage of calls inside, its own fsynced call journal.

Started as `python -m modelkeep.workers.gateway --plan-fd N`. It holds no key-encryption key: a
TLS key, the key of the records' commitments, and hashes of API keys are all its secrets.

SIGTERM and a broken lifeline (the supervisor is gone) both drain: no new connections, calls
under way are answered, summaries are written, the journal is closed. SIGKILL at any moment loses
only the calls under way, none of which was answered.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from modelkeep.adapters.call_journal import CallJournal
from modelkeep.adapters.locks import sole_writer
from modelkeep.adapters.metrics_prometheus import CONTENT_TYPE, GatewayMeters
from modelkeep.adapters.replica_pool import ReplicaPool
from modelkeep.core.errors import IntegrityError, KeepError
from modelkeep.flows.serve import Served, Serving
from modelkeep.gate.schema import SchemaCheck
from modelkeep.web.server import Server
from modelkeep.web.v2 import V2Application
from modelkeep.wiring import (
    open_journal,
    open_state_readonly,
    system_clock,
    system_entropy,
)
from modelkeep.workers.plan import GatewayPlan, gateway_plan, read_fd
from modelkeep.workers.state_watch import Access, StateWatch

SUMMARY_S = 1.0
# A thread that comes back from an fsync waits for the interpreter this long at most; the default
# of 5 ms was the p50 of a call.
SWITCH_INTERVAL_S = 0.00005


class Gateway:
    """Everything of one gateway process, composed from its plan."""

    def __init__(self, plan: GatewayPlan) -> None:
        self._plan = plan
        self._status = 0
        self._loop = asyncio.get_running_loop()
        self._ends = asyncio.Event()
        self._meters = GatewayMeters()
        self._journal = CallJournal(
            open_journal(Path(plan.journal_folder), writable=True, refused_by=Path(plan.full_path)),
            name=plan.journal_name,
            on_batch=self._meters.batch,
            on_foreign=self._end_without_journal,
        )
        self._pool = ReplicaPool(
            Path(plan.run_folder),
            call_timeout_s=plan.settings.call_timeout_s,
            complain=complain,
            on_resent=self._meters.resent,
        )
        self._serving = self._composed_serving()
        self._watch = StateWatch(
            lambda: open_state_readonly(Path(plan.state_path), plan.state, origin=plan.origin),
            every_s=plan.settings.tokens_reload_s,
            changed=self._let_in,
            complain=complain,
        )
        application = V2Application(
            self._serving, exposition=self._meters.exposition, metrics_type=CONTENT_TYPE
        )
        self._server = Server(application, plan.settings, complain=complain)
        self._meters.watch_connections(lambda: self._server.connection_count)
        self._meters.watch_calls(lambda: self._serving.in_flight)

    async def run(self) -> int:
        """Serve until SIGTERM or until the supervisor is gone; the exit status."""
        for each in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(each, self._ends.set)
        self._loop.add_reader(self._plan.lifeline_fd, self._end_with_supervisor)
        for model in self._plan.models:
            self._pool.add(model.name, model.version, model.sockets)
            self._meters.watch_replicas(
                model.name,
                model.version,
                lambda model=model: self._pool.ready_count(model.name, model.version),  # type: ignore[misc]  # a default binds early
            )
        await self._watch.start()
        tasks = [self._loop.create_task(each) for each in (self._watch.guard(), self._summarise())]
        listening = socket.socket(fileno=self._plan.listen_fd)
        await self._server.start(listening, tls_context(self._plan.tls_fd))
        await self._ends.wait()
        self._serving.is_stopping = True  # not ready any more; what still comes is answered
        await self._server.stop()
        for task in tasks:
            task.cancel()
        try:
            await self._serving.summarise()
        except KeepError as error:
            complain(f"refusals cannot be recorded: {error}")
        await self._journal.close()
        self._pool.close()
        return self._status

    def _composed_serving(self) -> Serving:
        models: dict[str, dict[int, Served]] = {}
        defaults = {}
        for model in self._plan.models:
            check = SchemaCheck(model.schema)
            served = Served(
                model.name, model.version, check, domain=model.domain, policy=model.policy
            )
            models.setdefault(model.name, {})[model.version] = served
            if model.is_default:
                defaults[model.name] = model.version
        return Serving(
            models=models,
            defaults=defaults,
            replicas=self._pool,
            log=self._journal,
            meters=self._meters,
            settings=self._plan.settings,
            clock=system_clock(),
            entropy=system_entropy(),
            commitment_key=read_fd(self._plan.commitment_key_fd),
        )

    def _end_with_supervisor(self) -> None:
        self._loop.remove_reader(self._plan.lifeline_fd)
        self._ends.set()

    def _end_without_journal(self) -> None:
        """No call can be answered any more; who starts us again opens the journal anew."""
        complain("somebody else wrote to the call journal: ending")
        self._status = IntegrityError.exit_status
        self._ends.set()

    def _let_in(self, access: Access) -> None:
        """From now on, this is who may call what."""
        self._serving.keyring = access.keyring
        self._serving.domains = access.domains

    async def _summarise(self) -> None:
        while True:
            await asyncio.sleep(SUMMARY_S)
            try:
                await self._serving.summarise()
            except KeepError as error:
                complain(f"refusals cannot be recorded: {error}")


def tls_context(fd: int) -> ssl.SSLContext:
    """TLS 1.2 and 1.3 with the certificate and key of a memory file; no renegotiation."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    # Mozilla's intermediate list (guideline 5.7), for TLS 1.2; 1.3 has good ones only.
    context.set_ciphers(
        "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
        "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
        "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
    )
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(f"/proc/self/fd/{fd}")
    return context


def complain(message: str) -> None:
    """Write one line for developers; may be lost."""
    print(f"modelkeep: gateway: {message}", file=sys.stderr, flush=True)  # noqa: T201  # its log


async def serve(plan: GatewayPlan) -> int:
    """Compose and run; the exit status."""
    return await Gateway(plan).run()


def main(arguments: Sequence[str]) -> int:
    """Read the plan, serve."""
    parser = argparse.ArgumentParser(prog="modelkeep.workers.gateway")
    parser.add_argument("--plan-fd", type=int, required=True)
    plan = gateway_plan(parser.parse_args(arguments).plan_fd)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        with sole_writer(Path(plan.journal_folder)):
            return uvloop.run(serve(plan))
    except KeepError as error:
        complain(f"{error}; {error.hint}" if error.hint else str(error))
        return error.exit_status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
