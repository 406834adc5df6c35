"""Replicas on the machines of `[[hosts]]`: which there ought to be, and the processes here for it.

To everything else each is one more replica of its version: a process (`workers.host_bridge`) with a
socket of the run folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modelkeep.adapters.host_settings import HostSettings, parsed_address
from modelkeep.adapters.memory_file import sealed_bytes
from modelkeep.crypto.link_certificates import service_certificate
from modelkeep.flows.keep import OpenKeep
from modelkeep.workers.fleet import Place, Version
from modelkeep.workers.plan import HostBridgePlan, ReplicaPlan, TextReplicaPlan
from modelkeep.workers.process import Child


@dataclass(frozen=True, slots=True)
class HostLink:
    """What a service shows to hosts, and whom it trusts; both in memory files.

    Attributes:
        link_fd: certificate with its private key, made for this service.
        authority_fd: the keep's certificate authority.
    """

    link_fd: int
    authority_fd: int

    @classmethod
    def of(cls, keep: OpenKeep) -> HostLink:
        """A new one."""
        made = service_certificate(keep.authority, now_ns=keep.clock.now_ns())
        return cls(
            sealed_bytes("link", made.reveal()),
            sealed_bytes("authority", keep.authority.certificate),
        )


def places(hosts: Sequence[HostSettings], model: str) -> tuple[Place, ...]:
    """Where replicas of each version of a model ought to run."""
    return tuple(
        (host, number)
        for host in hosts
        if not host.models or model in host.models
        for number in range(host.replicas)
    )


def bridge(
    version: Version,
    place: Place,
    *,
    link: HostLink,
    plan: ReplicaPlan | TextReplicaPlan,
    listen_fd: int,
    lifeline_fd: int,
) -> Child:
    """The process here for a replica there.

    Args:
        plan: of the replica there, without descriptors.
    """
    host, number = place
    model = version.model
    address = parsed_address(host.address)
    assert address is not None  # the configuration was checked
    files = tuple((path, each.sealed()) for path, each in version.memory)
    bridge_plan = HostBridgePlan(
        host=host.name,
        address=address[0],
        port=address[1],
        link_fd=link.link_fd,
        authority_fd=link.authority_fd,
        listen_fd=listen_fd,
        lifeline_fd=lifeline_fd,
        files=files,
        tensor=plan if isinstance(plan, ReplicaPlan) else None,
        text=plan if isinstance(plan, TextReplicaPlan) else None,
        canary=model.canary,
    )
    fds = (link.link_fd, link.authority_fd, listen_fd, lifeline_fd)
    return Child(
        name=f"host-{host.name}-{model.name}-{model.version}-{number}",
        worker="host_bridge",
        plan=bridge_plan,
        fds=(*fds, *(fd for _, fd in files)),
    )
