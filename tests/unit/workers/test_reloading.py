"""What a reload changed is said; what waits for a restart is compared with what runs."""

import pytest

from modelkeep.adapters.store_settings import StoreSettings
from modelkeep.config import Config
from modelkeep.flows.settings import ServeSettings
from modelkeep.gate.settings import GateSettings
from modelkeep.workers.reloading import Reloading


def config(**facts):
    gate = facts.pop("gate", GateSettings())
    stores = (StoreSettings(label="main", path="a"),)
    return Config(keep_id="0" * 16, stores=stores, serve=ServeSettings(**facts), gate=gate)


@pytest.fixture
def said(capsys):
    def lines():
        return [each.removeprefix("modelkeep: ") for each in capsys.readouterr().err.splitlines()]

    return lines


class Runs:
    """A service that was started with two gateways."""

    def __init__(self):
        self.now = config(gateways=2)
        self.reloading = Reloading(self.now)

    def look(self, after, *, is_asked=True, also=(), is_whole=True):
        if is_asked:
            self.reloading.asked()
        self.reloading.begun()
        for each in also:
            self.reloading.also(each)
        self.reloading.ended(self.now, after, is_whole=is_whole)
        self.now = after or self.now


@pytest.fixture
def runs():
    return Runs()


def test_what_is_set_back_waits_for_nothing(runs, said):
    runs.look(config(gateways=3))
    assert said() == [
        "warning: in force after a restart: serve.gateways",
        "reloaded: nothing else changed",
    ]
    runs.look(config(gateways=2))
    assert said() == ["reloaded: nothing changed"]


def test_what_came_in_force_is_named(runs, said):
    gate = GateSettings(call_timeout_s=9.0)
    runs.look(config(gateways=2, replicas=3, gate=gate), also=["the certificate"])
    assert said() == [
        "warning: in force after a restart: gate",
        "reloaded: serve.replicas, the certificate",
    ]


def test_a_look_that_nobody_asked_for_says_what_waits_once(runs, said):
    for _ in range(3):
        runs.look(config(gateways=3, replicas=3), is_asked=False)
    assert said() == ["warning: in force after a restart: serve.gateways"]


def test_what_could_not_be_read_is_not_called_a_reload(runs, said):
    runs.look(None)
    runs.look(runs.now, is_whole=False)
    assert said() == []
    runs.look(runs.now, is_asked=False)
    assert said() == []
