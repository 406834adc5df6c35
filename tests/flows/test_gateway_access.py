"""Goal: what is taken away is refused by a running gateway within a second, kept connections too.

Method: a real gateway; State is written beside it; one client asks all the time over one
connection, and the time from the entry in State to the first refusal is measured.
"""

import contextlib
import http.client
import sqlite3
import time

import pytest
from gateway_world import digits_model, started, token_entry

from modelkeep.adapters.system import SystemEntropy
from modelkeep.core.entry import Entry
from modelkeep.gate.authn import new_token

pytestmark = pytest.mark.slow
PATH = "/v2/models/digits"
WITHIN_S = 1.0


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    running = started(tmp_path_factory.mktemp("keep") / "keep", model=digits_model())
    running.wait_ready()
    yield running
    running.stop()


def apply(world, kind, **facts):
    entry = Entry(kind=kind, at_ns=1, actor="test", facts=facts)
    world.state.apply(world.state.applied().entries, [entry])


class Caller:
    """One connection that is kept open."""

    def __init__(self, world, key):
        self.key = key
        self.connection = http.client.HTTPSConnection(
            "127.0.0.1", world.port, context=world.context(), timeout=10
        )

    def status(self):
        self.connection.request("GET", PATH, headers={"Authorization": f"Bearer {self.key}"})
        answer = self.connection.getresponse()
        answer.read()
        return answer.status

    def seconds_until(self, wanted):
        started_s = time.monotonic()
        while (found := self.status()) != wanted:
            assert time.monotonic() - started_s < 5 * WITHIN_S, found
            time.sleep(0.005)
        return time.monotonic() - started_s


@contextlib.contextmanager
def calling(world, key):
    caller = Caller(world, key)
    with contextlib.closing(caller.connection):
        yield caller


def key_of(world, name):
    text, token = new_token(SystemEntropy(), principal=name, scopes=("infer:digits",))
    at = world.state.applied().entries
    world.state.apply(at, [token_entry(token, at)])
    return text.reveal().decode()


def test_every_key_of_a_disabled_principal_is_refused_within_a_second(world):
    apply(world, "principal.created", principal="eve", tenant="default", roles=("caller",))
    with calling(world, key_of(world, "eve")) as one, calling(world, key_of(world, "eve")) as two:
        for caller in (one, two):
            caller.seconds_until(200)
        apply(world, "principal.disabled", principal="eve")
        assert one.seconds_until(401) < WITHIN_S
        assert two.status() == 401
        apply(world, "principal.enabled", principal="eve")
        assert one.seconds_until(200) < WITHIN_S


def test_a_role_that_is_taken_away_is_gone_within_a_second(world):
    apply(world, "principal.created", principal="kim", tenant="default", roles=("caller",))
    with calling(world, key_of(world, "kim")) as caller:
        caller.seconds_until(200)
        apply(world, "principal.changed", principal="kim", roles=("scraper",))
        assert caller.seconds_until(403) < WITHIN_S


def test_models_of_a_revoked_domain_are_refused_within_a_second(world):
    with calling(world, world.key) as caller:
        assert caller.status() == 200
        apply(world, "domain.revoked", domain="default")
        assert caller.seconds_until(403) < WITHIN_S
        apply(world, "domain.restored", domain="default")
        assert caller.seconds_until(200) < WITHIN_S


def test_another_tenants_models_are_not_there(world):
    apply(world, "tenant.created", tenant="acme", domain="acme")
    apply(world, "principal.created", principal="zoe", tenant="acme", roles=("caller",))
    with calling(world, key_of(world, "zoe")) as caller:
        assert caller.seconds_until(404) < WITHIN_S


def test_a_state_that_cannot_be_read_lets_nobody_in_and_then_everybody_again(world):
    """The database is locked for good by somebody, or another release has taken its tables."""
    path = world.folder / "state.db"
    with calling(world, world.key) as caller, contextlib.closing(sqlite3.connect(path)) as other:
        assert caller.status() == 200
        other.execute("ALTER TABLE applied RENAME TO gone")
        other.execute("ALTER TABLE state_rows RENAME TO state_gone")
        other.commit()
        assert caller.seconds_until(401) < 2 * WITHIN_S
        other.execute("ALTER TABLE gone RENAME TO applied")
        other.execute("ALTER TABLE state_gone RENAME TO state_rows")
        other.commit()
        assert caller.seconds_until(200) < WITHIN_S
