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
import gc
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from modelkeep.adapters.call_journal import CallJournal
from modelkeep.adapters.heap import keep_heap
from modelkeep.adapters.locks import sole_writer
from modelkeep.adapters.metrics_prometheus import GatewayMeters
from modelkeep.adapters.replica_pool import ReplicaPool
from modelkeep.core.errors import IntegrityError, KeepError
from modelkeep.flows.call import Served
from modelkeep.flows.serve import Serving
from modelkeep.gate.schema import SchemaCheck
from modelkeep.gate.traffic import ModelTable
from modelkeep.watch.exposition import joined, labelled
from modelkeep.wiring import (
    open_journal,
    open_state_readonly,
    system_clock,
    system_entropy,
)
from modelkeep.workers.control import SupervisorLine, Table
from modelkeep.workers.identity import GatewayIdentity
from modelkeep.workers.in_force import InForce
from modelkeep.workers.limiting import composed_limits, tended
from modelkeep.workers.plan import TENSOR, GatewayPlan, ServedModel, gateway_plan, read_fd
from modelkeep.workers.shadowing import Shadowing
from modelkeep.workers.state_watch import Access, StateWatch
from modelkeep.workers.surfaces import Surfaces

SUMMARY_S = 1.0
LOAD_S = 1.0
LOAD_S_UNREADY = 0.05
# A thread that comes back from an fsync waits for the interpreter this long at most; the default
# of 5 ms was the p50 of a call.
SWITCH_INTERVAL_S = 0.00005
# Calls make no cycles: the collector is rarely needed, and what was composed need not be looked at.
GC_THRESHOLDS = (50_000, 20, 100)


class Gateway:
    """Everything of one gateway process, composed from its plan."""

    def __init__(self, plan: GatewayPlan) -> None:
        self._plan = plan
        self._status = 0
        self._is_reporting = False
        self._loop = asyncio.get_running_loop()
        self._ends = asyncio.Event()
        self._meters = GatewayMeters()
        self._journal = CallJournal(
            open_journal(Path(plan.journal_folder), writable=True, refused_by=Path(plan.full_path)),
            name=plan.journal_name,
            on_batch=self._meters.batch,
            on_foreign=self._end_without_journal,
            in_flight=lambda: self._serving.in_flight,
        )
        self._pool = ReplicaPool(
            Path(plan.run_folder),
            call_timeout_s=plan.settings.call_timeout_s,
            complain=complain,
            on_resent=self._meters.resent,
            settings=plan.pool,
            on_ejected=self._hangs,
        )
        self._serving = self._composed_serving()
        self._identity = GatewayIdentity(plan, complain=complain)
        self._limits = composed_limits(plan, self._serving, on_refused=self._meters.limited)
        self._serving.limits = self._limits
        self._in_force = InForce(
            self._serving,
            self._pool,
            self._meters,
            served=served_of,
            shadowing=Shadowing(
                self._pool, table=lambda: self._serving.table, count=self._meters.shadow
            ),
        )
        self._line = self._supervisor_line()
        self._watch = StateWatch(
            lambda: open_state_readonly(Path(plan.state_path), plan.state, origin=plan.origin),
            every_s=plan.settings.tokens_reload_s,
            changed=self._let_in,
            complain=complain,
            keyring_of=self._identity.keyring_of,
        )
        self._surfaces = Surfaces(
            plan,
            self._serving,
            self._meters,
            tokens=self._identity.tokens(self._serving),
            exposition=self._exposition,
            complain=complain,
        )
        self._meters.watch_calls(lambda: self._serving.in_flight)
        self._meters.watch_waiting(lambda: self._limits.waiting)

    async def run(self) -> int:
        """Serve until SIGTERM or until the supervisor is gone; the exit status."""
        for each in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(each, self._ends.set)
        self._loop.add_reader(self._plan.lifeline_fd, self._end_with_supervisor)
        if self._line is not None:
            self._line.start(self._loop)
            await self._in_force.first.wait()
        else:
            plan = self._plan
            self._put(Table(number=1, models=plan.models, limits=plan.limits, queue=plan.queue))
        self._identity.start()
        await self._watch.start()
        chores = (self._watch.guard(), self._summarise(), tended(self._limits, complain=complain))
        tasks = [self._loop.create_task(each) for each in chores]
        await self._surfaces.start()
        _spare_collector()
        if self._line is not None:
            tasks.append(self._loop.create_task(self._report(self._line)))
        ending = self._loop.create_task(self._ends.wait())
        ended, _ = await asyncio.wait((ending, *tasks), return_when=asyncio.FIRST_COMPLETED)
        self._serving.is_stopping = True  # not ready any more; what still comes is answered
        await self._surfaces.stop()
        for task in (ending, *tasks):
            task.cancel()
        try:
            await self._serving.summarise()
        except KeepError as error:
            complain(f"refusals cannot be recorded: {error}")
        await self._limits.close()
        await self._journal.close()
        self._pool.close()
        for task in ended:
            task.result()  # a chore does not end by itself: that is a bug, and is said
        return self._status

    def _composed_serving(self) -> Serving:
        return Serving(
            table=ModelTable(),
            replicas=self._pool,
            log=self._journal,
            meters=self._meters,
            settings=self._plan.settings,
            clock=system_clock(),
            entropy=system_entropy(),
            commitment_key=read_fd(self._plan.commitment_key_fd),
        )

    # ---- the control channel -------------------------------------------------------------------

    def _supervisor_line(self) -> SupervisorLine | None:
        if self._plan.control_fd < 0:
            return None
        return SupervisorLine(
            self._plan.control_fd,
            on_table=self._put,
            on_certificate=self._serve_certificate,
            complain=complain,
        )

    def _put(self, table: Table) -> None:
        self._in_force.put(table)
        if (table.limits, table.queue) != (self._limits.rules, self._limits.queue):
            try:
                self._limits.replace(table.limits, queue=table.queue)
            except KeepError as error:
                complain(f"the limits stay as they were: {error}")
        if self._is_reporting and self._line is not None:
            self._line.say(self._in_force.load())

    def _serve_certificate(self, chain: bytes) -> None:
        self._surfaces.serve_certificate(chain)

    def _hangs(self, model: str, version: int, socket_name: str) -> None:
        self._in_force.hangs(model, version, socket_name)

    async def _report(self, line: SupervisorLine) -> None:
        """Say how it goes: often until the supervisor announces us, then each second."""
        self._is_reporting = True
        while True:
            load = self._in_force.load()
            line.say(load)
            if self._plan.gateways > 1:
                line.say_metrics(self._own_exposition())
            await asyncio.sleep(LOAD_S if load.is_ready else LOAD_S_UNREADY)

    def _own_exposition(self) -> bytes:
        return labelled(self._meters.exposition(), label="gateway", value=str(self._plan.number))

    def _exposition(self) -> bytes:
        """The metrics of all gateways, the others' as of a second ago."""
        if self._line is None or self._plan.gateways == 1:
            return self._meters.exposition()
        return joined((self._own_exposition(), *self._line.others))

    # ---- how it ends, who may call -------------------------------------------------------------

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


def served_of(model: ServedModel) -> Served:
    """A model of the supervisor's table, as calls use it."""
    check = SchemaCheck(model.schema, model.inputs) if model.kind == TENSOR else None
    return Served(
        model.name,
        model.version,
        check,
        domain=model.domain,
        policy=model.policy,
        rules=model.outputs,
    )


def complain(message: str) -> None:
    """Write one line for developers; may be lost."""
    print(f"modelkeep: gateway: {message}", file=sys.stderr, flush=True)  # noqa: T201  # its log


def _spare_collector() -> None:
    """Collect what composing left, and never look at the rest of it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


async def serve(plan: GatewayPlan) -> int:
    """Compose and run; the exit status."""
    return await Gateway(plan).run()


def main(arguments: Sequence[str]) -> int:
    """Read the plan, serve."""
    parser = argparse.ArgumentParser(prog="modelkeep.workers.gateway")
    parser.add_argument("--plan-fd", type=int, required=True)
    plan = gateway_plan(parser.parse_args(arguments).plan_fd)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    keep_heap()
    try:
        with sole_writer(Path(plan.journal_folder)):
            return uvloop.run(serve(plan))
    except KeepError as error:
        complain(f"{error}; {error.hint}" if error.hint else str(error))
        return error.exit_status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
