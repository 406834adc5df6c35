"""What runs: versions of models with their memory and replicas, as the supervisor holds them.

A version's plaintext lies in sealed memory files for as long as one of its replicas may map them.
A replica that is not wanted any more is retired: it leaves the table of models at once, and its
process ends when no gateway holds a connection to it any more, so its calls are answered.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from modelkeep.adapters.host_settings import HostSettings
from modelkeep.adapters.memory_file import MemoryFile
from modelkeep.adapters.upstream_settings import UpstreamSettings
from modelkeep.core.policy import Policy
from modelkeep.core.rows import Traffic
from modelkeep.flows.publish import Published
from modelkeep.gate.limit_settings import LimitSettings, QueueSettings
from modelkeep.gate.rule_settings import EVERY_MODEL, InputRule, OutputRule
from modelkeep.gate.scaling import Pace
from modelkeep.workers.control import Table
from modelkeep.workers.plan import ServedModel
from modelkeep.workers.process import Child

Key = tuple[str, int]
# One of a version's replicas on another host.
Place = tuple[HostSettings, int]


@dataclass(slots=True)
class Replica:
    """One process of one version.

    Attributes:
        name: of its listening socket, which the supervisor holds, in the run folder.
        place: where it runs, if it is not here.
    """

    child: Child
    name: str
    listener: socket.socket
    place: Place | None = None

    def close(self, run_folder: Path) -> None:
        """Give its socket up; the process has ended."""
        self.listener.close()
        with contextlib.suppress(OSError):
            (run_folder / self.name).unlink()


@dataclass(slots=True)
class Version:
    """One version that is served.

    Attributes:
        memory: path in the model's folder, and the bytes, of each file; none of an upstream's.
        upstream: the server that answers instead of a model of this keep.
        fds: descriptors of an upstream's secret and authorities.
        replicas: those on this machine.
        elsewhere: those on other hosts.
        pace: how its calls go.
        made: replicas here so far; the next one's number.
        is_shredded: whether its domain was destroyed, and its plaintext with it.
    """

    model: Published
    memory: tuple[tuple[str, MemoryFile], ...] = ()
    upstream: UpstreamSettings | None = None
    fds: tuple[int, int] = (-1, -1)
    replicas: list[Replica] = field(default_factory=list)
    elsewhere: list[Replica] = field(default_factory=list)
    pace: Pace = field(default_factory=Pace)
    made: int = 0
    is_shredded: bool = False

    @property
    def key(self) -> Key:
        """Name and version."""
        return self.model.name, self.model.version

    @property
    def everywhere(self) -> tuple[Replica, ...]:
        """All its replicas, here and on other hosts."""
        return (*self.replicas, *self.elsewhere)

    def served(
        self,
        *,
        is_default: bool,
        inputs: tuple[InputRule, ...] = (),
        outputs: tuple[OutputRule, ...] = (),
    ) -> ServedModel:
        """What a gateway must know of it."""
        model = self.model
        return ServedModel(
            name=model.name,
            version=model.version,
            schema=model.schema,
            sockets=tuple(each.name for each in self.everywhere),
            is_default=is_default,
            domain=model.domain,
            policy=model.policy,
            kind=model.kind,
            inputs=inputs,
            outputs=outputs,
        )

    def policy_said(self, policy: Policy) -> None:
        """Take over what its manifest says now."""
        if policy != self.model.policy:
            self.model = replace(self.model, policy=policy)

    def wiped(self) -> None:
        """Wipe its plaintext and what it holds beside; idempotent."""
        for _, each in self.memory:
            each.wiped()
        for fd in self.fds:
            if fd >= 0:
                os.close(fd)
        self.fds = (-1, -1)


@dataclass(slots=True)
class Retired:
    """A replica that nothing new is sent to.

    Attributes:
        table: number of the first table without it.
        version: whose memory is wiped with the last of its replicas.
    """

    replica: Replica
    version: Version
    table: int
    since_s: float


@dataclass(slots=True)
class Fleet:
    """All versions that are served, and the replicas on their way out.

    Attributes:
        defaults: of each model the version that answers calls which name none.
        number: of the table that says so.
    """

    run_folder: Path
    versions: dict[Key, Version] = field(default_factory=dict)
    defaults: dict[str, int] = field(default_factory=dict)
    traffic: tuple[Traffic, ...] = ()
    inputs: tuple[InputRule, ...] = ()
    outputs: tuple[OutputRule, ...] = ()
    limits: tuple[LimitSettings, ...] = ()
    queue: QueueSettings = field(default_factory=QueueSettings)
    retired: list[Retired] = field(default_factory=list)
    number: int = 1

    def add(self, version: Version) -> None:
        """Serve one more version, or one of these anew; its elder is for the caller to retire."""
        self.versions[version.key] = version
        if version.upstream is not None:
            self.defaults[version.model.name] = version.model.version

    def replicas(self) -> Iterator[Replica]:
        """All that ought to run."""
        for version in self.versions.values():
            yield from version.everywhere

    def children(self) -> tuple[Child, ...]:
        """All their processes, those on their way out too."""
        leaving = (each.replica for each in self.retired)
        return tuple(each.child for each in (*self.replicas(), *leaving))

    def table(self) -> Table:
        """What the gateways are to answer for."""
        models = tuple(
            version.served(
                is_default=self.defaults.get(name) == number,
                inputs=tuple(rule for rule in self.inputs if rule.model in (name, EVERY_MODEL)),
                outputs=tuple(rule for rule in self.outputs if rule.model in (name, EVERY_MODEL)),
            )
            for (name, number), version in self.versions.items()
        )
        return Table(
            number=self.number,
            models=models,
            traffic=self.traffic,
            limits=self.limits,
            queue=self.queue,
        )

    def names(self) -> tuple[str, ...]:
        """What is served, as `name:version`."""
        return tuple(f"{name}:{number}" for name, number in self.versions)

    def retire(self, version: Version, replica: Replica, *, now_s: float) -> None:
        """Take a replica out of the next table."""
        (version.elsewhere if replica.place else version.replicas).remove(replica)
        self.retired.append(Retired(replica, version, self.number + 1, now_s))

    def gone(self, each: Retired) -> None:
        """A retired replica's process has ended: give up its socket, and the last one's memory."""
        self.retired.remove(each)
        each.replica.close(self.run_folder)
        is_last = not any(other.version is each.version for other in self.retired)
        if is_last and each.version is not self.versions.get(each.version.key):
            each.version.wiped()
