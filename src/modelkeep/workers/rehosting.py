"""Bringing the replicas on other hosts to what `[[hosts]]` says, while the service runs."""

from __future__ import annotations

from modelkeep.core.errors import KeepError
from modelkeep.workers.fleet import Fleet, Replica
from modelkeep.workers.layout import Layout
from modelkeep.workers.telling import Untold, warn


def rehosted(layout: Layout, fleet: Fleet, untold: Untold, *, now_s: float) -> bool:
    """Start what is missing, retire what is too much; whether the table is another."""
    is_other = False
    for version in fleet.versions.values():
        if version.is_shredded:
            continue
        leaving = sum(each.version is version for each in fleet.retired)
        wanted = layout.places(version, len(version.replicas) + leaving)
        for replica in tuple(version.elsewhere):
            if replica.place not in wanted:
                fleet.retire(version, replica, now_s=now_s)
                is_other = True
        there = {each.place for each in version.elsewhere}
        for place in wanted:
            if place not in there:
                version.elsewhere.append(layout.remote(version, place))
                _start(version.elsewhere[-1], untold)
                is_other = True
        if not version.everywhere:  # nobody else would answer for it
            version.replicas.append(layout.replica(version))
            _start(version.replicas[-1], untold)
            is_other = True
        if version.elsewhere and not layout.config.serve.replicas:
            for replica in tuple(version.replicas):
                fleet.retire(version, replica, now_s=now_s)
                is_other = True
    return is_other


def _start(replica: Replica, untold: Untold) -> None:
    try:
        replica.child.start()
    except KeepError as error:
        warn(str(error))  # its start is tried again
    else:
        untold.add("process.started", process=replica.child.name, pid=replica.child.pid)
