"""State in PostgreSQL, on a real server: the contract of its port, and what befalls a server."""

import contextlib
import uuid

import psycopg
import pytest
from postgres_server import running_postgres

from modelkeep.adapters.state_postgres import PostgresState
from modelkeep.core.errors import ConfigError, UnavailableError
from modelkeep.core.rows import Applied, Token
from modelkeep.crypto.secret import Secret
from modelkeep.testing.power import CuttingState, Fuse
from modelkeep.testing.state_contract import STORY, StateContract, everything, made


@pytest.fixture(scope="module")
def server():
    with running_postgres() as folder:
        yield folder


@pytest.fixture
def url(server):
    """A database of its own for each test."""
    name = f"t{uuid.uuid4().hex}"
    with contextlib.closing(psycopg.connect(address(server, "postgres"), autocommit=True)) as it:
        it.execute(f'CREATE DATABASE "{name}" TEMPLATE template0')
    return address(server, name)


def address(folder, database, user="me"):
    return f"postgresql://{user}@/{database}?host={folder}"


@contextlib.contextmanager
def asking(url):
    with contextlib.closing(psycopg.connect(url, autocommit=True)) as connection:
        yield connection


def state_of(url, origin="k1", **more):
    return contextlib.closing(PostgresState(url, origin=origin, **more))


class TestPostgresState(StateContract):
    @pytest.fixture
    def opened(self, url):
        with contextlib.ExitStack() as stack:
            yield lambda: stack.enter_context(state_of(url))


class TestPostgresStateThatIsCut(StateContract):
    @pytest.fixture
    def opened(self, url):
        with contextlib.ExitStack() as stack:
            yield lambda: CuttingState(stack.enter_context(state_of(url)), Fuse())


def test_keeps_share_a_database_and_not_their_rows(url):
    with state_of(url, "k1") as one, state_of(url, "k2") as two:
        one.apply(0, STORY)
        assert everything(two)[0] == Applied(entries=0, head=0, snapshot="")
        two.apply(0, [made("z")])
        assert [each.token_id for each in one.rows(Token)] == ["a"]
        two.forget()
        assert two.rows(Token) == ()
        assert one.applied().entries == len(STORY)


def test_a_reader_follows_a_writer_and_cannot_write(url):
    with state_of(url) as writer, state_of(url, readonly=True) as reader:
        before = reader.revision()
        writer.apply(0, [made("a")])
        assert reader.revision() != before
        assert len(reader.rows(Token)) == 1
        with pytest.raises(UnavailableError) as refused:
            reader.apply(1, [made("b")])
        assert refused.value.code == "state.unavailable"


def test_a_reader_of_nothing_makes_nothing(url):
    with state_of(url, readonly=True) as reader, pytest.raises(UnavailableError):
        reader.revision()
    with asking(url) as connection:
        assert connection.execute("SELECT to_regnamespace('modelkeep')").fetchone() == (None,)


def test_opening_alone_changes_no_revision(url):
    with state_of(url) as first:
        before = first.revision()
        state_of(url).thing.close()
        assert first.revision() == before


def test_rows_of_another_layout_count_as_absent(url):
    with state_of(url) as state:
        state.apply(0, STORY)
    with asking(url) as connection:
        connection.execute("UPDATE modelkeep.applied SET layout = 99")
    with state_of(url, readonly=True) as reader, pytest.raises(UnavailableError) as refused:
        reader.applied()
    assert refused.value.code == "state.layout"
    with state_of(url) as state:
        assert state.applied() == Applied(entries=0, head=0, snapshot="")
        assert state.rows(Token) == ()


def test_a_commit_is_synchronous_whatever_the_role_says(url):
    with asking(url) as connection:
        connection.execute("ALTER ROLE me SET synchronous_commit = off")
    try:
        with state_of(url) as state:
            found = state._connection.execute("SHOW synchronous_commit").fetchone()
        assert found == ("on",)
    finally:
        with asking(url) as connection:
            connection.execute("ALTER ROLE me RESET synchronous_commit")


def test_a_connection_that_is_lost_in_a_batch_leaves_nothing_of_it(url):
    with state_of(url) as state:
        state.apply(0, [made("a")])
        write = state._write

        def cut(changes):
            write(changes)
            with asking(url) as connection:
                pid = state._connection.info.backend_pid
                connection.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))

        state._write = cut
        with pytest.raises(UnavailableError):
            state.apply(1, [made("b")])
        with pytest.raises(UnavailableError):
            state.applied()
    with state_of(url) as again:
        assert [each.token_id for each in again.rows(Token)] == ["a"]
        assert again.applied().entries == 1


def test_a_role_that_may_not_create_uses_the_tables_that_are_there(url):
    state_of(url).thing.close()
    role = f"r{uuid.uuid4().hex}"
    with asking(url) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN")
        connection.execute(f"GRANT USAGE ON SCHEMA modelkeep TO {role}")
        tables = "ALL TABLES IN SCHEMA modelkeep"
        connection.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {role}")
    with state_of(url.replace("//me@", f"//{role}@"), "k9") as state:
        state.apply(0, [made("a")])
        assert state.applied().entries == 1


def test_the_password_is_the_given_one_and_never_the_environments(
    url, server, monkeypatch, tmp_path, capfd
):
    role = f"r{uuid.uuid4().hex}"
    with asking(url) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'canary-right'")
        rules = server / "data" / "pg_hba.conf"
        rules.write_text(f"local all {role} scram-sha-256\n" + rules.read_text())
        connection.execute("SELECT pg_reload_conf()")
        connection.execute("SELECT pg_sleep(0.2)")
    own = url.replace("//me@", f"//{role}@")
    monkeypatch.setenv("PGPASSWORD", "canary-right")
    remembered = tmp_path / "pgpass"  # what libpq would read where no password is given
    remembered.write_text("*:*:*:*:canary-right\n")
    remembered.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(remembered))
    with asking(own):
        pass  # it would help
    for password in (None, Secret(b"canary-wrong")):
        with pytest.raises(UnavailableError) as refused:
            PostgresState(own, origin="k1", password=password)
        assert "canary" not in str(refused.value) + refused.value.hint
    with state_of(own, password=Secret(b"canary-right")) as state:
        assert state.applied().entries == 0
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("url", ["postgresql://[", "nothing=1", "postgresql://h/d?nothing=1"])
def test_an_address_that_libpq_does_not_understand_is_a_configuration_error(url):
    with pytest.raises(ConfigError) as refused:
        PostgresState(url, origin="k")
    assert refused.value.code == "state.url"


def test_a_server_that_is_not_there_is_unavailable(tmp_path):
    with pytest.raises(UnavailableError) as refused:
        PostgresState(address(tmp_path, "none"), origin="k")
    assert refused.value.code == "state.unavailable"
    assert refused.value.hint
