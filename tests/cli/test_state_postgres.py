"""State in PostgreSQL as an operator uses it: every verb, a rebuild, and a service that refuses."""

import contextlib
import json
import time
import urllib.error
import urllib.request
from ssl import create_default_context

import psycopg
import pytest
from command import Desk, Process
from postgres_server import running_postgres

pytestmark = pytest.mark.slow
PASSWORD = "canary-of-the-database"  # noqa: S105 - of a server that lives for one test


@pytest.fixture(scope="module")
def url():
    """A server whose role `keeper` needs its password."""
    with running_postgres() as folder:
        address = f"postgresql://me@/postgres?host={folder}"
        with contextlib.closing(psycopg.connect(address, autocommit=True)) as connection:
            connection.execute(f"CREATE ROLE keeper LOGIN PASSWORD '{PASSWORD}'")
            connection.execute("CREATE DATABASE keeps OWNER keeper")
            rules = folder / "data" / "pg_hba.conf"
            rules.write_text("local all keeper scram-sha-256\n" + rules.read_text())
            connection.execute("SELECT pg_reload_conf()")
        time.sleep(0.2)
        yield f"postgresql://keeper@/keeps?host={folder}"


@pytest.fixture
def stated(tmp_path, url):
    desk = Desk.made(tmp_path)
    secret = tmp_path / "database.password"
    secret.write_text(PASSWORD + "\n")
    secret.chmod(0o600)
    table = f'\n[state]\nurl = "{url}"\npassword = "file:{secret}"\n'
    desk.config.write_text(desk.config.read_text() + table)
    for path in desk.keep.glob("state.db*"):
        path.unlink()
    return desk


def status(desk, facts, key):
    """What one call is answered with."""
    context = create_default_context(cafile=str(desk.keep / "ca.pem"))
    request = urllib.request.Request(  # noqa: S310 - our own gateway
        f"{facts['url']}/v2/models/digits", headers={"authorization": f"Bearer {key}"}
    )
    try:
        with urllib.request.urlopen(request, context=context, timeout=10) as answer:  # noqa: S310
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_a_keep_whose_state_is_in_postgresql(stated, running):
    desk = stated
    desk.admit()
    tokens = [desk.json("tokens", "new", name) for name in ("alice", "bob")]
    desk.run("principals", "new", "bob", "--role", "caller")
    listed = desk.json("tokens", "list"), desk.json("principals", "list")
    assert desk.json("state", "rebuild")["tokens"] == 2
    assert (desk.json("tokens", "list"), desk.json("principals", "list")) == listed
    assert not list(desk.keep.glob("state.db*"))

    process = running(Process(*desk.words("serve", "--json")))
    facts = process.event("ready")
    keys = [each["api_key"] for each in tokens]
    assert [status(desk, facts, key) for key in keys] == [200, 200]
    desk.run("tokens", "revoke", tokens[0]["token_id"])
    desk.run("principals", "disable", "bob")
    assert [status(desk, facts, key) for key in keys] == [401, 401]
    desk.run("principals", "enable", "bob")
    assert [status(desk, facts, key) for key in keys] == [401, 200]
    process.interrupt()
    said = process.ended()
    assert PASSWORD not in said.out + said.err
    held = b"".join(desk.files().values())
    assert PASSWORD.encode() not in held
    assert json.dumps(facts)


def test_a_password_in_the_address_is_refused_and_not_repeated(desk):
    table = f'\n[state]\nurl = "postgresql://me:{PASSWORD}@localhost/keeps"\n'
    desk.config.write_text(desk.config.read_text() + table)
    said = desk.run("tokens", "list", wanted=2)
    assert "config.value" in said.err
    assert PASSWORD not in said.out + said.err


def test_a_database_that_is_away_is_said_plainly(desk, tmp_path):
    table = f'\n[state]\nurl = "postgresql://me@/keeps?host={tmp_path}"\n'
    desk.config.write_text(desk.config.read_text() + table)
    assert desk.refusal("tokens", "list", wanted=6) == "state.unavailable"
