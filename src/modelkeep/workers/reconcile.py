"""What is wanted against what runs: one loop that acts on the difference while the service runs.

Wanted is what modelkeep.toml and State say: models by name or alias, canaries and shadows, domains.
One turn, whenever something happens and four times a second at least:

    reap and start again     what ended
    hear                     gateways: loads, replicas that hang
    look                     State: domains that were destroyed lose their plaintext at once
    take                     what the loader brought: new versions, proven; the table changes
    scale                    replicas between their bounds
    retire                   end what no gateway holds any more, wipe what nobody needs

Gateways get a table as a whole and put it in force between two calls, so a swap has no moment in
which a model is not served. Whatever fails to come up is told to the ledger, and what was there
before goes on.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from modelkeep.adapters.keyholder_process import ProcessKeyholder
from modelkeep.adapters.upstream_settings import UpstreamSettings
from modelkeep.core.errors import KeepError, UnavailableError
from modelkeep.gate.scaling import Bounds, paced, scaled
from modelkeep.wiring import KeepFolder, system_clock
from modelkeep.workers.fleet import Fleet, Retired, Version
from modelkeep.workers.gateways import Gateways
from modelkeep.workers.layout import Layout
from modelkeep.workers.loading import Loader, Outcome
from modelkeep.workers.merging import merged
from modelkeep.workers.notify import READY, notify, notify_reloading
from modelkeep.workers.process import Child, stopped
from modelkeep.workers.rehosting import rehosted
from modelkeep.workers.reloading import Reloading
from modelkeep.workers.server_key import ServerKey
from modelkeep.workers.telling import Facts, Notice, Untold, ending, warn
from modelkeep.workers.wakes import Wakes
from modelkeep.workers.watching import StateEye

TURN_S = 0.25
TURN_S_DOWN = 0.02
READY_TIMEOUT_S = 300.0
SCALE_S = 1.0
# A gateway puts a table in force at once; one that hangs does not hold a replica for ever.
RETIRE_S_MAX = 600.0
RETIRED_GRACE_S = 0.5
SHRED_GRACE_S = 0.5
# A replica that was just started cannot have been found to hang.
HUNG_AGE_S = 5.0
RETRY_S_MIN = 5.0
RETRY_S_MAX = 300.0


@dataclass(slots=True)
class Service:
    """Everything that the supervisor keeps up.

    Attributes:
        grpc: where gRPC listens; empty for no gRPC.
        lifeline: the writing end, which lives as long as the supervisor.
        upstreams: tables that are in force, by name.
    """

    url: str
    folder: KeepFolder
    layout: Layout
    fleet: Fleet
    gateways: Gateways
    recorder: Child
    keyholder: ProcessKeyholder
    server_key: ServerKey
    eye: StateEye
    loader: Loader
    wakes: Wakes
    lifeline: int
    upstreams: dict[str, UpstreamSettings]
    grpc: str = ""
    untold: Untold = field(init=False)
    has_keyholder: bool = True

    def __post_init__(self) -> None:
        self.untold = Untold(self.folder)

    def children(self) -> tuple[Child, ...]:
        """In the order in which they start; they stop in the reverse order."""
        return (self.recorder, *self.fleet.children(), *self.gateways.children())

    def start(self) -> None:
        """Start everything.

        Raises:
            UnavailableError: `serve.process`.
        """
        self.gateways.sends_table(self.fleet.table())
        for child in self.children():
            self.gateways.greet(child)
            child.start()

    def facts(self) -> Facts:
        """What is told of the service."""
        return {
            "pid": os.getpid(),
            "url": self.url,
            "grpc": self.grpc,
            "certificate": self.server_key.fingerprint,
            "models": list(self.fleet.names()),
            "processes": {  # those that run: a script may kill what stands here
                **({"keyholder": self.keyholder.pid} if self.has_keyholder else {}),
                **{each.name: each.pid for each in self.children() if each.pid > 0},
            },
            "silent": list(self.silent()),
        }

    def silent(self) -> tuple[str, ...]:
        """The processes for replicas that do not answer: they start, or their host is away."""
        names = self.gateways.silent()
        return tuple(each.child.name for each in self.fleet.replicas() if each.name in names)

    def fds(self) -> Iterator[int]:
        """Whatever may have news: gateways, and processes that end."""
        for each in self.gateways.all:
            yield each.end.socket.fileno()
        for child in self.children():
            if child.pidfd >= 0:
                yield child.pidfd


def ready(service: Service) -> None:
    """Wait until every gateway answers for every model.

    Raises:
        UnavailableError: `serve.start`, when a process ends before that, it takes too long, or we
            are told to end.
    """
    until_s = time.monotonic() + READY_TIMEOUT_S
    while True:
        for _ in service.gateways.listen():
            continue
        if service.gateways.are_ready(service.fleet.number):
            notify(READY)
            return
        for child in service.children():
            status = child.reaped()
            if status is not None:
                raise UnavailableError(
                    "serve.start",
                    f"{child.name} ended with status {status} while the service started",
                    hint="what it wrote stands above",
                )
        came = service.wakes.wait(service.fds(), TURN_S_DOWN)
        if came & {signal.SIGTERM, signal.SIGINT}:
            raise UnavailableError("serve.start", "it was told to end while it started")
        if time.monotonic() > until_s:
            missing = service.gateways.missing(service.fleet.number)
            text = f"the service did not become ready in {READY_TIMEOUT_S:g} s: {missing}"
            raise UnavailableError("serve.start", text)


def keep_up(service: Service, notice: Notice) -> None:
    """Turn by turn, until somebody asks to stop."""
    loop = _Loop(service, notice)
    while True:
        down = any(child.process is None for child in service.children())
        came = service.wakes.wait(service.fds(), TURN_S_DOWN if down else TURN_S)
        if came & {signal.SIGTERM, signal.SIGINT}:
            return
        loop.turn(is_asked=signal.SIGHUP in came)


class _Loop:
    """What is remembered between two turns."""

    def __init__(self, service: Service, notice: Notice) -> None:
        self._service = service
        self._notice = notice
        self._wanted: tuple[object, ...] | None = None
        self._shut: frozenset[str] = frozenset()
        self._is_asked = False
        self._makes_chain = False
        self._scale_s = 0.0
        self._retry_s = 0.0
        self._retry_after_s = RETRY_S_MIN
        self._said: set[str] = set()
        self._hung: set[str] = set()
        self._silent: tuple[str, ...] = ()
        self._reloading = Reloading(service.layout.config)

    def turn(self, *, is_asked: bool) -> None:
        """Act on every difference there is."""
        if is_asked:
            notify_reloading()
            self._said.clear()
            self._reloading.asked()
            self._is_asked = self._makes_chain = True
            self._read_chain()
        self._mend()
        self._hear()
        self._look()
        self._take()
        self._scale()
        self._retire()
        if self._service.server_key.is_changed():
            self._read_chain()
        self._begin()
        self._notice.written_if_due()
        if self._service.recorder.process is not None:
            self._service.untold.tell()

    # ---- processes -----------------------------------------------------------------------------

    def _mend(self) -> None:
        """Start again what ended."""
        service = self._service
        if service.has_keyholder and service.keyholder.poll() is not None:
            # It cannot be started again: what opens the root was forgotten on purpose.
            service.has_keyholder = self._notice.is_current = False
            warn("the keyholder ended: calls go on and are recorded; checkpoints wait, restart")
            pid, status = service.keyholder.pid, service.keyholder.poll()
            service.untold.add("process.ended", process="keyholder", pid=pid, status=status or 0)
        for child in service.children():
            pid = child.pid
            status = child.reaped()
            if status is not None:
                why = {"reason": "it did not answer"} if child.name in self._hung else {}
                self._hung.discard(child.name)
                warn(f"{child.name} ended ({ending(status)}), started again")
                service.untold.add(
                    "process.ended", process=child.name, pid=pid, status=status, **why
                )
        for child in service.children():
            if not child.is_due():
                continue
            service.gateways.greet(child)
            try:
                child.start()
            except KeepError as error:
                warn(str(error))
                continue
            self._notice.is_current = False
            service.untold.add("process.started", process=child.name, pid=child.pid)

    def _hear(self) -> None:
        """Take what gateways say; a replica that hangs is killed, then started as any other."""
        service = self._service
        hung = {name for load in service.gateways.listen() for name in load.hung}
        silent = service.silent()
        if silent != self._silent:
            self._silent, self._notice.is_current = silent, False
        if not hung:
            return
        young_s = time.monotonic() - HUNG_AGE_S
        for replica in service.fleet.replicas():
            child = replica.child
            if replica.name in hung and child.process is not None and child.started_s < young_s:
                warn(f"{child.name} does not answer: it is started again")
                self._hung.add(child.name)
                child.killed()

    # ---- what is wanted ------------------------------------------------------------------------

    def _look(self) -> None:
        """See what State says: a destroyed domain is acted on now, other changes by the loader."""
        seen = self._service.eye.look()
        if seen is None:
            return
        self._shut = seen.shut
        self._shred(seen.dead)
        if self._wanted is not None and seen.wanted != self._wanted:
            self._is_asked = True
            self._retry_after_s = RETRY_S_MIN
        self._wanted = seen.wanted

    def _shred(self, dead: frozenset[str]) -> None:
        """End the replicas of destroyed domains and wipe their models; gateways refuse by then."""
        fleet = self._service.fleet
        hit = [
            version
            for version in fleet.versions.values()
            if version.model.domain in dead and not version.is_shredded and version.memory
        ]
        for version in hit:
            version.is_shredded = True
            children = [each.child for each in version.everywhere]
            stopped(children, grace_s=SHRED_GRACE_S)
            for each in version.everywhere:
                each.close(fleet.run_folder)
            version.replicas, version.elsewhere = [], []
            version.wiped()
            for child in children:
                self._service.untold.add(
                    "process.ended", process=child.name, reason="its domain was destroyed"
                )
        for leaving in [each for each in fleet.retired if each.version.model.domain in dead]:
            stopped([leaving.replica.child], grace_s=SHRED_GRACE_S)
            fleet.gone(leaving)
        if hit:
            self._tabled()

    def _begin(self) -> None:
        """Have the loader look, if there is a reason to and it is free."""
        service = self._service
        now_s = time.monotonic()
        is_due = service.server_key.is_due(system_clock().now_ns()) and now_s >= self._retry_s
        is_retry = 0 < self._retry_s <= now_s
        if service.loader.is_busy or not (self._is_asked or is_due or is_retry):
            return
        self._is_asked, self._retry_s = False, 0.0
        if not service.has_keyholder:
            error = UnavailableError("keyholder.lost", "the keyholder ended: restart the service")
            self._unchanged("", 0, error)
            return
        makes_chain = self._makes_chain or is_due
        self._makes_chain = False
        self._reloading.begun()
        service.loader.begin(
            service.fleet.versions.keys(),
            service.upstreams,
            service.server_key if makes_chain else None,
        )

    def _take(self) -> None:
        """Put in force what the loader brought."""
        service = self._service
        outcome = service.loader.taken()
        if outcome is None:
            return
        before_config, before = service.layout.config, service.fleet.names()
        if outcome.error is not None:
            self._unchanged("", 0, outcome.error)
        for failure in outcome.failed:
            self._unchanged(*failure.key, failure.error)
        self._put_off(outcome)
        if outcome.config is not None:
            service.layout.config = outcome.config
            if service.server_key.serve != outcome.config.serve:
                service.server_key.serve = outcome.config.serve
                self._read_chain()
        if outcome.chain:
            service.gateways.sends_chain(outcome.chain)
        if merged(service.fleet, service.upstreams, outcome, shut=self._shut):
            self._tabled()
        if service.fleet.names() != before:
            self._reloading.also(f"serving {', '.join(service.fleet.names())}")
            service.untold.add(
                "service.changed",
                models=service.fleet.names(),
                added=tuple(f"{name}:{at}" for name, at in (each.key for each in outcome.added)),
            )
        is_whole = not (outcome.failed or outcome.error)
        self._reloading.ended(before_config, outcome.config, is_whole=is_whole)
        notify(READY)

    def _put_off(self, outcome: Outcome) -> None:
        """What may work later is tried again, at growing intervals."""
        errors = [outcome.error, *(each.error for each in outcome.failed)]
        if any(isinstance(error, UnavailableError) for error in errors):
            self._retry_s = time.monotonic() + self._retry_after_s
            self._retry_after_s = min(self._retry_after_s * 2, RETRY_S_MAX)
        elif not any(errors):
            self._retry_after_s = RETRY_S_MIN
            self._said.clear()

    def _unchanged(self, model: str, version: int, error: KeepError) -> None:
        """Say that something that is wanted is not served, once."""
        what = f"{model}:{version}" if model else "what is wanted"
        text = f"{what} cannot be served, what was there goes on: {error}"
        if text in self._said:
            return
        self._said.add(text)
        warn(text, hint=error.hint)
        self._service.untold.add(
            "service.unchanged",
            model=model,
            version=version,
            code=error.code,
            message=error.message[:1000],
        )

    def _read_chain(self) -> None:
        """Read a given certificate; what cannot be served leaves the one that is there."""
        service = self._service
        if service.server_key.is_own:
            return
        before = service.server_key.fingerprint
        try:
            chain = service.server_key.given(system_clock().now_ns())
        except KeepError as error:
            self._unchanged("", 0, error)
            return
        if service.server_key.fingerprint != before:
            self._reloading.also("the certificate")
        service.gateways.sends_chain(chain)
        self._notice.is_current = False
        service.untold.add("service.certificate", source=service.server_key.serve.certificate)

    # ---- how many ------------------------------------------------------------------------------

    def _tabled(self) -> None:
        """Put another table in force."""
        fleet = self._service.fleet
        fleet.number += 1
        self._service.gateways.sends_table(fleet.table())
        self._notice.is_current = False

    def _scale(self) -> None:
        """Once a second, bring each model's replicas nearer to what its calls need."""
        now_s = time.monotonic()
        if now_s - self._scale_s < SCALE_S:
            return
        self._scale_s = now_s
        service, fleet = self._service, self._service.fleet
        is_other = rehosted(service.layout, fleet, service.untold, now_s=now_s)
        for version in tuple(fleet.versions.values()):
            if version.is_shredded or not service.layout.is_scaled(version):
                continue
            in_flight = service.gateways.in_flight(*version.key)
            running = len(version.replicas)
            wanted, version.pace = scaled(
                paced(version.pace, in_flight), running, self._bounds(version), now_s=now_s
            )
            is_other |= self._resized(version, wanted, now_s)
        if is_other:
            self._tabled()

    def _bounds(self, version: Version) -> Bounds:
        serve, permitted = self._service.layout.config.serve, version.model.policy.replicas_max
        most = max(serve.replicas_max, serve.replicas)
        if permitted:  # those on other hosts count, and those that still drain
            others = sum(each.version is version for each in self._service.fleet.retired)
            most = max(min(most, permitted - others - len(version.elsewhere)), 1)
        return Bounds(
            least=serve.replicas,
            most=most,
            calls=serve.calls_per_replica,
        )

    def _resized(self, version: Version, wanted: int, now_s: float) -> bool:
        """Start or retire replicas; whether the table is another."""
        before = len(version.replicas)
        while len(version.replicas) < wanted:
            replica = self._service.layout.replica(version)
            version.replicas.append(replica)
            try:
                replica.child.start()
            except KeepError as error:
                warn(str(error))
                break
            self._service.untold.add(
                "process.started", process=replica.child.name, pid=replica.child.pid
            )
        while len(version.replicas) > wanted:
            self._service.fleet.retire(version, version.replicas[-1], now_s=now_s)
        return len(version.replicas) != before

    def _retire(self) -> None:
        """End the replicas that no gateway holds any more."""
        fleet = self._service.fleet
        over = [each for each in fleet.retired if self._is_over(each)]
        if not over:
            return
        stopped([each.replica.child for each in over], grace_s=RETIRED_GRACE_S)
        for each in over:
            fleet.gone(each)
        self._notice.is_current = False

    def _is_over(self, each: Retired) -> bool:
        gateways = self._service.gateways
        is_late = time.monotonic() - each.since_s > RETIRE_S_MAX
        return is_late or (gateways.have(each.table) and not gateways.hold(each.replica.name))
