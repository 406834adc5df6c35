"""Goal: nothing of the table of attacks is let in, by any protocol; its benign twins are.

Method: in process, where the reason is seen, so that each attack fails for what it is about; then
over TLS against a real gateway, by callers that are parameters.
"""

import time

import pytest
from identity_attacks import ATTACKS, HONEST
from identity_scene import Scene
from identity_world import GrpcCaller, HttpCaller, started

from modelkeep.core.errors import UsageError

KNOWN = [each for each in ATTACKS if each.status in (401, 431) and each.reason]


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return Scene(tmp_path_factory.mktemp("identity"))


def test_there_are_enough_attacks_and_each_has_its_own_name():
    assert len(ATTACKS) >= 60
    assert len({each.name for each in ATTACKS}) == len(ATTACKS)


@pytest.fixture(scope="module")
def keyring(scene):
    return scene.keyring()


def asked(keyring, shown):
    certificate = shown.client.der if shown.client is not None else b""
    return keyring.principal_of(shown.authorization, certificate=certificate, now_ns=time.time_ns())


@pytest.mark.parametrize("attack", KNOWN, ids=lambda each: each.name)
def test_an_attack_fails_for_what_it_is_about(attack, scene, keyring):
    with pytest.raises(UsageError) as raised:
        asked(keyring, attack.make(scene))
    error = raised.value
    assert (error.code, error.context["reason"]) == ("auth.invalid", attack.reason)
    assert error.http_status == 401


def test_all_refusals_say_the_same(scene, keyring):
    said = set()
    for attack in KNOWN:
        with pytest.raises(UsageError) as raised:
            asked(keyring, attack.make(scene))
        said.add((raised.value.code, raised.value.message, raised.value.hint))
    assert len(said) == 1


@pytest.mark.parametrize(("name", "make"), HONEST, ids=[name for name, _ in HONEST])
def test_who_is_honest_is_let_in(name, make, scene, keyring):
    principal = asked(keyring, make(scene))
    assert "infer:digits" in principal.scopes or "infer:*" in principal.scopes, name
    assert "approve" not in principal.scopes


@pytest.fixture(scope="module")
def world(scene, tmp_path_factory):
    running = started(scene, tmp_path_factory.mktemp("gateway") / "keep")
    yield running
    running.stop()


@pytest.fixture(scope="module", params=[HttpCaller, GrpcCaller], ids=["http", "grpc"])
def caller(request, world):
    return request.param(world)


@pytest.mark.slow
def test_no_attack_is_let_in_by_any_protocol(caller, scene):
    found = {attack.name: (caller(attack.make(scene)), wanted(attack)) for attack in ATTACKS}
    assert not {name: each for name, each in found.items() if each[0] not in each[1]}


@pytest.mark.slow
def test_who_is_honest_is_let_in_by_every_protocol(caller, scene):
    found = {name: caller(make(scene)) for name, make in HONEST}
    assert set(found.values()) == {200}, found


def wanted(attack):
    """How it may be refused; what is too large for a header, gRPC refuses in its own words."""
    if attack.is_tls:
        return ("tls",)
    return (
        (attack.status, 431) if "KB" in attack.name or "huge" in attack.name else (attack.status,)
    )
