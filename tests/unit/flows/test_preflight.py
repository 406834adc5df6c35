"""What is looked at before a model is served, and what stops it."""

import pytest

from modelkeep.assess.machine import ModelNeed
from modelkeep.assess.settings import Demands, PreflightSettings
from modelkeep.core.errors import RefusedError
from modelkeep.core.verdict import Decision, Severity
from modelkeep.flows.preflight import demand_ready, preflight, what_to_ask
from modelkeep.ports.host import Asked, Host, Memory

SMALL = Host(system="linux", memory=Memory(available_bytes=1000, bound_by="/a/memory.max"))


class Machine:
    """A machine that says what a test says."""

    def __init__(self, host):
        self.host = host

    def gathered(self, asked):
        self.asked = asked
        return self.host


def judged(settings, models=(), host=SMALL):
    return preflight(Machine(host), Asked(), settings, models, replicas=2)[0]


def test_what_is_demanded_stops_and_what_is_advised_warns():
    wanted = Demands(os=("plan9",))
    assert judged(PreflightSettings(demand=wanted)).decision is Decision.DENY
    advised = judged(PreflightSettings(advise=wanted))
    assert advised.decision is Decision.HOLD
    demand_ready(advised)


def test_what_stops_names_everything_that_does():
    verdict = judged(
        PreflightSettings(demand=Demands(os=("plan9",))), [ModelNeed(name="m", size_bytes=2000)]
    )
    with pytest.raises(RefusedError) as refused:
        demand_ready(verdict)
    assert refused.value.code == "preflight.refused"
    assert refused.value.context["rules"] == ["preflight.memory", "preflight.os"]
    assert "/a/memory.max" in refused.value.message


def test_a_demand_and_the_same_advice_are_said_once():
    both = Demands(min_ram="2 GiB", python=">=9")
    verdict = judged(PreflightSettings(demand=both, advise=both))
    said = [each.rule for each in verdict.findings if each.severity is not Severity.NOTE]
    assert said == ["preflight.memory", "preflight.python"]


def test_everything_that_is_demanded_or_advised_is_asked_for_once():
    settings = PreflightSettings(
        demand=Demands(packages=("numpy>=2",), reachable=("db:1",), min_disk="1"),
        advise=Demands(packages=("numpy", "torch"), accelerators=("cuda:2",)),
        reach_timeout_s=0.5,
    )
    asked = what_to_ask(settings, Asked(folders=("/keep",), isolation=True), folder="/keep")
    assert asked.folders == ("/keep",)
    assert asked.packages == ("numpy", "torch")
    assert asked.accelerators == ("cuda",)
    assert asked.reachable == ("db:1",)
    assert asked.reach_timeout_s == 0.5
    assert asked.isolation
