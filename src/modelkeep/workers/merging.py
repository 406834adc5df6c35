"""What the loader brought, and what runs, made one: the next table of models."""

from __future__ import annotations

import time

from modelkeep.adapters.upstream_settings import UpstreamSettings
from modelkeep.workers.fleet import Fleet, Key, Version
from modelkeep.workers.loading import Outcome


def merged(
    fleet: Fleet,
    upstreams: dict[str, UpstreamSettings],
    outcome: Outcome,
    *,
    shut: frozenset[str],
) -> bool:
    """Bring the fleet to what is wanted, as far as that came up; whether its table is another.

    A model of which something that is wanted failed keeps all that it had, and its default. So
    does one whose domain is revoked: its calls are refused by that name.
    """
    if outcome.wish is None:
        return False
    before = fleet.table()
    now_s = time.monotonic()
    for version in outcome.added:
        old = fleet.versions.get(version.key)
        fleet.add(version)
        if old is not None:
            _all_retired(fleet, old, now_s)
    failed = {each.key[0] for each in outcome.failed}
    wanted = _wanted(outcome)
    for key, version in tuple(fleet.versions.items()):
        if key in wanted or key[0] in failed or version.model.domain in shut:
            continue
        del fleet.versions[key]
        _all_retired(fleet, version, now_s)
    for key, policy in outcome.wish.policies.items():
        if key in fleet.versions:
            fleet.versions[key].policy_said(policy)
    _settle(fleet, outcome)
    upstreams.clear()
    upstreams.update({each.name: each for each in outcome.upstreams if each.name not in failed})
    return fleet.table() != before


def _wanted(outcome: Outcome) -> set[Key]:
    assert outcome.wish is not None
    wanted = {(each.name, int(each.selector)) for each in outcome.wish.references}
    return wanted | {(each.name, 1) for each in outcome.upstreams}


def _all_retired(fleet: Fleet, version: Version, now_s: float) -> None:
    """Nothing new is sent to any of its replicas; its memory goes with the last of them."""
    if not version.everywhere:
        version.wiped()
    for replica in version.everywhere:
        fleet.retire(version, replica, now_s=now_s)


def _settle(fleet: Fleet, outcome: Outcome) -> None:
    """Say who answers calls that name no version, and who answers beside."""
    assert outcome.wish is not None
    defaults = {name: at for name, at in fleet.defaults.items() if (name, at) in fleet.versions}
    wished = outcome.wish.defaults.items()
    defaults |= {name: at for name, at in wished if (name, at) in fleet.versions}
    for name, _ in fleet.versions:
        if name not in defaults:
            defaults[name] = max(number for each, number in fleet.versions if each == name)
    fleet.defaults = defaults
    fleet.traffic = outcome.wish.traffic
    if outcome.config is not None:
        fleet.inputs, fleet.outputs = outcome.config.inputs, outcome.config.outputs
        fleet.limits, fleet.queue = outcome.config.limits, outcome.config.queue
