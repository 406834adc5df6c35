"""A password for a token: bounded, of the same cost for everybody, looked at again at the end."""

import asyncio
import time

import pytest
from identity_scene import PASSWORD, Scene

from modelkeep.adapters.system import SystemEntropy
from modelkeep.core.errors import UnavailableError, UsageError
from modelkeep.core.record import replaced
from modelkeep.crypto.secret import Secret
from modelkeep.flows.accounts import password_key
from modelkeep.flows.login import Login

HERE = "192.0.2.7"


class Now:
    """The wall clock."""

    def now_ns(self):
        return time.time_ns()


class Desk:
    """A login whose checks begin when they are let go."""

    def __init__(self, folder):
        self.scene = Scene(folder)
        self.keyring = self.scene.keyring()
        self.waiting = []
        self.login = Login(
            lambda: self.keyring,
            key=password_key(Secret(self.scene.commitments)),
            signs=self.scene.own(),
            settings=replaced(self.scene.identity(), password_checks_max=2, password_queue_max=3),
            aside=self.aside,
            clock=Now(),
            entropy=SystemEntropy(),
        )

    async def aside(self, work):
        goes = asyncio.get_running_loop().create_future()
        self.waiting.append((goes, work))
        await goes
        return work()

    def let_go(self):
        for goes, _ in self.waiting:
            goes.set_result(None)
        self.waiting.clear()

    def asked(self, name="robot", password=PASSWORD):
        return asyncio.ensure_future(
            self.login.granted(name, Secret(password.encode()), address=HERE)
        )


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def test_more_than_can_wait_are_turned_away_before_any_work(desk):
    async def scenario():
        asked = [desk.asked() for _ in range(8)]
        await asyncio.sleep(0)
        assert len(desk.waiting) == 5
        desk.let_go()
        return await asyncio.gather(*asked, return_exceptions=True)

    found = asyncio.run(scenario())
    refused = [each for each in found if isinstance(each, UnavailableError)]
    assert {each.code for each in refused} == {"gate.busy"}
    assert len(refused) == 3
    assert all(each.principal.name == "robot" for each in found if each not in refused)


@pytest.mark.parametrize("change", ["another-password", "disabled"])
def test_what_changes_during_the_check_counts(desk, change):
    async def scenario():
        asked = desk.asked()
        await asyncio.sleep(0)
        if change == "disabled":
            desk.scene.record("principal.disabled", principal="robot")
        else:
            desk.scene.set_password("robot", "another password", password_id="f" * 16)
        desk.keyring = desk.scene.keyring()
        desk.let_go()
        await asked

    with pytest.raises(UsageError) as raised:
        asyncio.run(scenario())
    assert raised.value.code == "auth.invalid"


@pytest.mark.parametrize("name", ["robot", "carol", "alice", "nobody-at-all"])
def test_everybody_costs_one_check(desk, name):
    async def scenario():
        asked = desk.asked(name, "wrong password")
        await asyncio.sleep(0)
        assert len(desk.waiting) == 1
        desk.let_go()
        await asked

    with pytest.raises(UsageError) as raised:
        asyncio.run(scenario())
    assert (raised.value.code, raised.value.message) == (
        "auth.invalid",
        "the credentials are not valid",
    )


def test_what_is_out_of_bounds_costs_nothing(desk):
    async def scenario(name, password):
        await desk.asked(name, password)

    for name, password in (("", PASSWORD), ("n" * 201, PASSWORD), ("robot", "x" * 1025)):
        with pytest.raises(UsageError):
            asyncio.run(scenario(name, password))
    assert not desk.waiting


def test_a_token_is_taken_at_once(desk):
    async def scenario():
        asked = desk.asked()
        await asyncio.sleep(0)
        desk.let_go()
        return await asked

    granted = asyncio.run(scenario())
    header = b"Bearer " + granted.token
    found = desk.keyring.principal_of(header, now_ns=time.time_ns())
    assert found == granted.principal
    assert PASSWORD.encode() not in granted.token
