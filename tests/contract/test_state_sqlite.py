"""State in SQLite: the contract of its port, and what a damaged file does."""

import contextlib
import stat

import pytest

from modelkeep.adapters.state_sqlite import SqliteState
from modelkeep.core.errors import IntegrityError, UnavailableError
from modelkeep.testing.power import CuttingState, Fuse
from modelkeep.testing.state_contract import StateContract, made


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.db"


class TestSqliteState(StateContract):
    @pytest.fixture
    def opened(self, path):
        with contextlib.ExitStack() as stack:
            yield lambda: stack.enter_context(contextlib.closing(SqliteState(path)))


class TestSqliteStateThatIsCut(StateContract):
    """The wrapper of the power cuts is the port itself."""

    @pytest.fixture
    def opened(self, path):
        with contextlib.ExitStack() as stack:
            yield lambda: CuttingState(
                stack.enter_context(contextlib.closing(SqliteState(path))), Fuse()
            )


@pytest.fixture
def filled(path):
    state = SqliteState(path)
    state.apply(0, [made(f"{number:016x}") for number in range(200)])
    state.close()
    return path


def everything(path):
    with contextlib.closing(SqliteState(path)) as state:
        return state.applied(), state.tokens(), state.aliases()


@pytest.mark.parametrize("raw", [b"rubbish" * 1000, b"\xff" * 100])
def test_a_file_that_is_no_database_is_damaged_and_says_what_to_do(path, raw):
    path.write_bytes(raw)
    with pytest.raises(IntegrityError) as damaged:
        everything(path)
    assert damaged.value.code == "state.damaged"
    assert "state rebuild" in damaged.value.hint


def test_a_page_of_zeros_is_damage(filled):
    raw = filled.read_bytes()
    assert len(raw) > 3 * 4096
    for page in range(1, len(raw) // 4096):
        filled.write_bytes(raw[: page * 4096] + bytes(4096) + raw[(page + 1) * 4096 :])
        with contextlib.suppress(IntegrityError):  # an UnavailableError would say: try again
            everything(filled)


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
        assert len(reader.tokens()) == 201
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
        assert len(reader.tokens()) == 1
    assert [each.name for each in tmp_path.iterdir()] == [name]
