"""State in SQLite: the contract of its port, and what a damaged file does."""

import contextlib
import sqlite3
import stat

import pytest

from modelkeep.adapters.state_sqlite import SqliteState
from modelkeep.core.errors import IntegrityError, UnavailableError
from modelkeep.core.rows import Alias, Applied, Token
from modelkeep.testing.power import CuttingState, Fuse
from modelkeep.testing.state_contract import StateContract, everything, made


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.db"


@contextlib.contextmanager
def opening(path):
    """Opens; closes what this thread opened (a test's own threads close theirs)."""
    states = []

    def opened():
        states.append(SqliteState(path))
        return states[-1]

    yield opened
    for state in states:
        with contextlib.suppress(sqlite3.ProgrammingError):
            state.close()


class TestSqliteState(StateContract):
    @pytest.fixture
    def opened(self, path):
        with opening(path) as opened:
            yield opened


class TestSqliteStateThatIsCut(StateContract):
    """The wrapper of the power cuts is the port itself."""

    @pytest.fixture
    def opened(self, path):
        with opening(path) as opened:
            yield lambda: CuttingState(opened(), Fuse())


@pytest.fixture
def filled(path):
    state = SqliteState(path)
    state.apply(0, [made(f"{number:016x}") for number in range(200)])
    state.close()
    return path


def held(path):
    with contextlib.closing(SqliteState(path)) as state:
        return everything(state)


@pytest.mark.parametrize("raw", [b"rubbish" * 1000, b"\xff" * 100])
def test_a_file_that_is_no_database_is_damaged_and_says_what_to_do(path, raw):
    path.write_bytes(raw)
    with pytest.raises(IntegrityError) as damaged:
        held(path)
    assert damaged.value.code == "state.damaged"
    assert "state rebuild" in damaged.value.hint


def test_a_page_of_zeros_is_damage(filled):
    raw = filled.read_bytes()
    assert len(raw) > 3 * 4096
    for page in range(1, len(raw) // 4096):
        filled.write_bytes(raw[: page * 4096] + bytes(4096) + raw[(page + 1) * 4096 :])
        with contextlib.suppress(IntegrityError):  # an UnavailableError would say: try again
            held(filled)


def test_the_file_is_its_owners_only(filled):
    assert stat.S_IMODE(filled.stat().st_mode) == 0o600


def test_a_reader_follows_a_writer_and_cannot_write(filled):
    with (
        contextlib.closing(SqliteState(filled, readonly=True)) as reader,
        contextlib.closing(SqliteState(filled)) as writer,
    ):
        before = reader.revision()
        writer.apply(200, [made("f" * 16)])
        assert reader.revision() != before
        assert len(reader.rows(Token)) == 201
        with pytest.raises(UnavailableError) as refused:
            reader.apply(201, [made("e" * 16)])
        assert refused.value.code == "state.unavailable"


def test_a_reader_of_nothing_makes_nothing(path):
    with pytest.raises(UnavailableError):
        SqliteState(path, readonly=True)
    assert not path.exists()


@pytest.mark.parametrize("name", ["with space", "a?mode=rw", "a#b", "100%25"])
def test_a_reader_finds_a_file_whatever_its_folder_is_called(tmp_path, name):
    (tmp_path / name).mkdir()
    path = tmp_path / name / "state.db"
    with contextlib.closing(SqliteState(path)) as state:
        state.apply(0, [made("a")])
    with contextlib.closing(SqliteState(path, readonly=True)) as reader:
        assert len(reader.rows(Token)) == 1
    assert [each.name for each in tmp_path.iterdir()] == [name]


OLD = """
CREATE TABLE applied (one INTEGER PRIMARY KEY, entries INTEGER, head INTEGER, snapshot TEXT);
CREATE TABLE tokens (token_id TEXT PRIMARY KEY, secret_sha256 TEXT);
CREATE TABLE "a""b" (x TEXT);
INSERT INTO applied VALUES (1, 7, 3, 's');
INSERT INTO tokens VALUES ('a', '0');
"""


@pytest.fixture
def old(path):
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executescript(OLD)
    return path


def test_a_file_of_another_layout_counts_as_absent(old):
    with contextlib.closing(SqliteState(old)) as state:
        assert state.applied() == Applied(entries=0, head=0, snapshot="")
        assert state.rows(Token) == state.rows(Alias) == ()
        state.apply(0, [made("a")])
    assert len(held(old)[1]["tokens"]) == 1


def test_a_gateway_of_an_earlier_release_finds_no_keys_rather_than_old_ones(old):
    with contextlib.closing(sqlite3.connect(f"file:{old}?mode=ro", uri=True)) as gateway:
        assert gateway.execute("SELECT * FROM tokens").fetchall()
        SqliteState(old).close()
        with pytest.raises(sqlite3.OperationalError):
            gateway.execute("SELECT * FROM tokens")


def test_a_reader_refuses_another_layout_and_leaves_it(old):
    before = old.read_bytes()
    with pytest.raises(UnavailableError) as refused:
        SqliteState(old, readonly=True)
    assert refused.value.code == "state.layout"
    assert old.read_bytes() == before


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"token_id": 1}', b"\xff", b"[" * 10_000])
def test_a_row_that_somebody_wrote_by_hand_is_damage_and_says_what_to_do(filled, body):
    with contextlib.closing(sqlite3.connect(filled)) as database, database:
        database.execute("UPDATE state_rows SET body = ? WHERE key = ?", (body, "0" * 16))
    with pytest.raises(IntegrityError) as damaged:
        held(filled)
    assert damaged.value.code == "state.row"
    assert "state rebuild" in damaged.value.hint
