"""Encrypted columns of models, in SQLite and in a real PostgreSQL: cells outside, values inside."""

from __future__ import annotations

import io
import logging
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st
from postgres_server import running_postgres
from sqlalchemy import (
    LargeBinary,
    bindparam,
    create_engine,
    event,
    func,
    insert,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError as DatabaseIntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import StaticPool

from modelkeep.adapters.columns_sqlalchemy import Encrypted, Rotation, RowBound, rotate
from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.crypto.columns import VALUE_BYTES_MAX, ColumnKeys
from modelkeep.crypto.secret import Secret

CANARY = "canary-7b1f0a52-in-the-mine"
OLD = {"2025": Secret(bytes(range(32)))}
BOTH = OLD | {"2026": Secret(bytes(range(1, 33)))}


class Ring:
    """What a program holds: the present ring of keys."""

    def __init__(self):
        self.now = ColumnKeys(newest="2025", secrets=OLD)


RING = Ring()


def keys() -> ColumnKeys:
    return RING.now


class Base(DeclarativeBase):
    pass


class Person(Base):
    __tablename__ = "people"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    email: Mapped[str | None] = mapped_column(
        Encrypted(str, keys=keys, place="people.email", searchable=True), unique=True
    )
    phone: Mapped[str | None] = mapped_column(Encrypted(str, keys=keys, place="people.phone"))
    photo: Mapped[bytes | None] = mapped_column(Encrypted(bytes, keys=keys, place="people.photo"))
    note_cell: Mapped[bytes | None] = mapped_column(LargeBinary)
    note = RowBound(str, "note_cell", keys=keys, place="people.note")


@pytest.fixture(scope="session")
def postgres():
    pytest.importorskip("psycopg")
    with running_postgres() as folder:
        yield folder


def sqlite_engine():
    return create_engine("sqlite://", poolclass=StaticPool)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def engine(request):
    if request.param == "sqlite":
        made = sqlite_engine()
    else:
        folder = request.getfixturevalue("postgres")
        made = create_engine(f"postgresql+psycopg://me@/postgres?host={folder}")
    RING.now = ColumnKeys(newest="2025", secrets=OLD)
    Base.metadata.create_all(made)
    yield made
    Base.metadata.drop_all(made)
    made.dispose()


@pytest.fixture
def session(engine):
    with Session(engine) as opened:
        yield opened


def someone(number=1, **fields):
    return Person(id=uuid.UUID(int=number), **fields)


def raw(session, column, number=1):
    return session.scalar(
        select(func.substr(column, 1, 10**6, type_=LargeBinary())).where(
            Person.id == uuid.UUID(int=number)
        )
    )


def put_raw(session, column, cell, number=1):
    session.execute(
        update(Person)
        .where(Person.id == uuid.UUID(int=number))
        .values({column: literal(cell, LargeBinary())})
    )
    session.commit()


def test_values_come_back_and_the_database_has_seen_none(session):
    fields = {"email": CANARY, "phone": CANARY + "☎", "photo": CANARY.encode(), "note": CANARY}
    session.add(someone(**fields))
    session.commit()
    found = session.scalars(select(Person)).one()
    assert {name: getattr(found, name) for name in fields} == fields
    for column in (Person.email, Person.phone, Person.photo, Person.note_cell):
        assert CANARY.encode() not in raw(session, column)
        assert len(raw(session, column)) > 50


def test_null_stays_null_and_can_be_asked_for(session):
    session.add_all([someone(1), someone(2, email="", phone="", photo=b"", note="")])
    session.commit()
    nobody, empty = session.scalars(select(Person).order_by(Person.id))
    assert (nobody.email, nobody.phone, nobody.photo, nobody.note) == (None,) * 4
    assert (empty.email, empty.phone, empty.photo, empty.note) == ("", "", b"", "")
    for column in (Person.email, Person.phone):
        assert session.scalars(select(Person.id).where(column.is_(None))).all() == [nobody.id]
        assert session.scalars(select(Person.id).where(column != None)).all() == [empty.id]  # noqa: E711


def ids(session, *criteria):
    found = session.scalars(select(Person.id).where(*criteria).order_by(Person.id))
    return [each.int for each in found]


def fill(session, count=4):
    session.add_all(
        someone(n, email=f"{n}@example.org", phone=f"{n}", note=f"{n}") for n in range(count)
    )
    session.commit()


def test_search_finds_rows_under_every_live_key(session):
    fill(session, 3)
    RING.now = ColumnKeys(newest="2026", secrets=BOTH)
    session.add(someone(3, email="3@example.org"))
    session.commit()
    assert ids(session, Person.email == "1@example.org") == [1]
    assert ids(session, Person.email == "3@example.org") == [3]
    assert ids(session, Person.email.in_(["0@example.org", "3@example.org"])) == [0, 3]
    assert ids(session, Person.email != "3@example.org") == [0, 1, 2]
    assert ids(session, Person.email.not_in(["0@example.org", "3@example.org"])) == [1, 2]
    assert ids(session, Person.email == "nobody") == []
    assert ids(session, Person.email.in_([])) == []
    assert session.query(Person).filter_by(email="2@example.org").one().id.int == 2


def test_a_database_enforces_uniqueness_without_reading(session):
    session.add_all([someone(1, email=CANARY), someone(2, email=CANARY)])
    with pytest.raises(DatabaseIntegrityError) as refused:
        session.commit()
    assert CANARY not in str(refused.value)


@pytest.mark.parametrize(
    "ask",
    [
        lambda: Person.phone == "1",
        lambda: Person.phone.in_(["1"]),
        lambda: Person.email > "a",
        lambda: Person.email.like("a%"),
        lambda: Person.email.startswith("a"),
        lambda: Person.email.between("a", "b"),
        Person.email.desc,
        lambda: Person.email + "x",
        lambda: "x" + Person.email,
        lambda: Person.email.in_("abc"),
        lambda: Person.email == bindparam("later"),
        lambda: Person.email.in_(select(Person.phone)),
        lambda: Person.email.in_(["a", literal("b")]),
        lambda: Person.email.is_distinct_from("a"),
    ],
)
def test_what_ciphertext_cannot_answer_is_refused(ask):
    with pytest.raises(UsageError) as refused:
        ask()
    assert refused.value.code == "columns.operator"


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("email", 7, "columns.type"),
        ("email", b"bytes", "columns.type"),
        ("email", "half a pair \ud800", "columns.type"),
        ("photo", "text", "columns.type"),
        ("photo", bytes(VALUE_BYTES_MAX + 1), "columns.size"),
    ],
)
def test_what_cannot_be_sealed_is_refused_and_the_error_repeats_no_value(
    session, field, value, code
):
    session.add(someone(phone=CANARY, **{field: value}))
    with pytest.raises(UsageError) as refused:
        session.flush()
    assert refused.value.code == code
    assert CANARY not in str(refused.value)


def test_a_value_bound_to_its_row_needs_the_key_first():
    with pytest.raises(UsageError) as refused:
        Person(note="too early", id=uuid.UUID(int=1))
    assert refused.value.code == "columns.row"
    with pytest.raises(UsageError) as refused:
        someone(note=7)
    assert refused.value.code == "columns.type"


def test_a_cell_that_was_changed_or_moved_does_not_open(session):
    session.add_all([someone(1, email=CANARY, phone="1", note="1"), someone(2, note="2")])
    session.commit()
    cell = raw(session, Person.email)
    moves = {
        Person.phone: cell,
        Person.email: cell[:-1] + bytes([cell[-1] ^ 1]),
        Person.photo: b"garbage",
    }
    for column, bad in moves.items():
        good = raw(session, column)
        put_raw(session, column, bad)
        with pytest.raises(IntegrityError) as refused:
            session.scalars(select(Person)).all()
        assert refused.value.code in {"columns.tag", "columns.form"}
        session.rollback()
        put_raw(session, column, good)
    put_raw(session, Person.note_cell, raw(session, Person.note_cell, 2), 1)
    first = session.get_one(Person, uuid.UUID(int=1))
    with pytest.raises(IntegrityError) as refused:
        _ = first.note
    assert refused.value.code == "columns.tag"


def test_text_in_the_place_of_a_cell_is_no_cell():
    """SQLite keeps what it is given, whatever the column's type."""
    engine = sqlite_engine()
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(someone(email="a", note="b"))
        session.commit()
        for column in ("email", "note_cell"):
            session.execute(text(f"UPDATE people SET {column} = '{CANARY}'"))  # noqa: S608
            with pytest.raises(IntegrityError) as refused:
                _ = session.scalars(select(Person)).one().note
            assert refused.value.code == "columns.form"
            session.rollback()
    engine.dispose()


def test_a_place_is_checked_when_it_is_declared():
    with pytest.raises(UsageError):
        Encrypted(str, keys=keys, place="People.Email")


def test_rows_of_one_column_can_be_swapped_unless_they_are_bound(session):
    """What is documented as not prevented; `note` above is the way that prevents it."""
    session.add_all([someone(1, phone="1"), someone(2, phone="2")])
    session.commit()
    put_raw(session, Person.phone, raw(session, Person.phone, 2), 1)
    assert session.get_one(Person, uuid.UUID(int=1)).phone == "2"


def heads(session):
    session.commit()
    columns = (Person.email, Person.phone, Person.note_cell)
    return {raw(session, column, n)[2:6] for column in columns for n in range(4)}


def test_rotation_puts_every_cell_under_the_newest_key_once(session):
    fill(session)
    RING.now = ColumnKeys(newest="2026", secrets=BOTH)
    assert rotate(session, Person, batch_rows=3) == Rotation(rewritten=12, left=0)
    assert heads(session) == {b"2026"}
    assert rotate(session, Person) == Rotation(rewritten=0, left=0)
    RING.now = ColumnKeys(newest="2026", secrets={"2026": BOTH["2026"]})
    session.expire_all()
    found = session.scalars(select(Person).order_by(Person.id)).all()
    assert [(p.email, p.phone, p.note) for p in found] == [
        (f"{n}@example.org", f"{n}", f"{n}") for n in range(4)
    ]
    assert ids(session, Person.email == "2@example.org") == [2]


class Cut(BaseException):
    """The program dies."""


def test_a_rotation_that_is_cut_anywhere_goes_on(session):
    fill(session)
    for cut_at in range(1, 13):
        RING.now = ColumnKeys(newest=RING.now.newest, secrets=BOTH)
        other = "2026" if RING.now.newest == "2025" else "2025"
        RING.now = ColumnKeys(newest=other, secrets=BOTH)
        seen = 0

        def die(*_, at=cut_at):
            nonlocal seen
            seen += 1
            if seen == at:
                raise Cut

        event.listen(session, "do_orm_execute", lambda state: state.is_update and die())
        with pytest.raises(Cut):
            rotate(session, Person, batch_rows=2)
        session.rollback()
        found = session.scalars(select(Person).order_by(Person.id)).all()
        assert [p.note for p in found] == [f"{n}" for n in range(4)]
        session.rollback()
        done = rotate(session, Person, batch_rows=2)
        assert done.left == 0
        assert 12 - cut_at < done.rewritten <= 12
        assert heads(session) == {other.encode()}


def test_a_rotation_leaves_what_another_writer_wrote_meanwhile(session):
    fill(session, 1)
    RING.now = ColumnKeys(newest="2026", secrets=BOTH)
    fresh = Encrypted(str, keys=keys, place="people.phone").process_bind_param("new", None)
    put = False

    def meanwhile(state):
        nonlocal put
        if state.is_update and not put:
            put = True
            put_raw(session, Person.phone, fresh, 0)

    event.listen(session, "do_orm_execute", meanwhile)
    done = rotate(session, Person)
    assert done == Rotation(rewritten=2, left=0)
    assert session.get_one(Person, uuid.UUID(int=0)).phone == "new"


def test_a_rotation_says_which_row_does_not_open_and_keeps_what_is_done(session):
    fill(session)
    put_raw(session, Person.email, b"\x02\x042025" + bytes(48), 3)
    RING.now = ColumnKeys(newest="2026", secrets=BOTH)
    with pytest.raises(IntegrityError) as refused:
        rotate(session, Person, batch_rows=1)
    assert refused.value.context["row"] == (uuid.UUID(int=3),)
    assert refused.value.context["column"] == "people.email"
    session.rollback()
    assert raw(session, Person.email, 0)[2:6] == b"2026"


def test_a_rotation_commits_nothing_of_the_callers(session):
    session.add(someone(1))
    with pytest.raises(UsageError) as refused:
        rotate(session, Person)
    assert refused.value.code == "columns.session"


def test_a_column_becomes_searchable_by_a_rotation(session):
    fill(session, 3)
    kind = Person.__table__.c.phone.type
    kind.searchable = True
    try:
        assert rotate(session, Person) == Rotation(rewritten=3, left=0)
        assert ids(session, Person.phone == "2") == [2]
    finally:
        kind.searchable = False
    assert rotate(session, Person) == Rotation(rewritten=3, left=0)


def test_core_statements_and_echo_see_cells_only(engine):
    heard = io.StringIO()
    listener = logging.StreamHandler(heard)
    logger = logging.getLogger("sqlalchemy.engine")
    logger.addHandler(listener)
    before = logger.level
    logger.setLevel(logging.DEBUG)
    try:
        again = create_engine(engine.url) if engine.dialect.name != "sqlite" else sqlite_engine()
        Base.metadata.create_all(again)
        with again.begin() as connection:
            rows = [
                {"id": uuid.UUID(int=n), "phone": CANARY, "email": CANARY + str(n)} for n in (1, 2)
            ]
            connection.execute(insert(Person), rows)
            assert connection.scalars(
                select(Person.email).where(Person.email == CANARY + "1")
            ).all() == [CANARY + "1"]
        again.dispose()
    finally:
        logger.removeHandler(listener)
        logger.setLevel(before)
    assert "INSERT INTO people" in heard.getvalue()
    written = heard.getvalue().replace(f"Row ('{CANARY}1',)", "")
    assert CANARY not in written


@pytest.mark.slow
def test_no_canary_lies_in_the_files_of_postgres(postgres):
    engine = create_engine(f"postgresql+psycopg://me@/postgres?host={postgres}")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.execute(text("CREATE TABLE plain (open text)"))
        session.execute(text("INSERT INTO plain VALUES ('found-if-in-the-clear')"))
        session.add(someone(email=CANARY, phone=CANARY, photo=CANARY.encode(), note=CANARY))
        session.commit()
        session.execute(text("CHECKPOINT"))
    files = [path.read_bytes() for path in postgres.rglob("*") if path.is_file()]
    assert any(b"found-if-in-the-clear" in each for each in files), "the search finds nothing"
    assert not any(CANARY.encode() in each for each in files)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE plain"))
    Base.metadata.drop_all(engine)
    engine.dispose()


def test_no_canary_lies_in_the_file_of_sqlite(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path / 'people.db'}")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.execute(text("CREATE TABLE plain (open text)"))
        session.execute(text("INSERT INTO plain VALUES ('found-if-in-the-clear')"))
        session.add(someone(email=CANARY, phone=CANARY, photo=CANARY.encode(), note=CANARY))
        session.commit()
    engine.dispose()
    file = (tmp_path / "people.db").read_bytes()
    assert b"found-if-in-the-clear" in file
    assert CANARY.encode() not in file


PROPERTY = sqlite_engine()
Base.metadata.create_all(PROPERTY)
texts = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=100)


@given(st.lists(st.tuples(texts, texts, st.none() | st.binary(max_size=100)), max_size=8))
def test_any_rows_survive_writing_searching_and_rotating(rows):
    RING.now = ColumnKeys(newest="2025", secrets=BOTH)
    known = {email: (phone, photo) for email, phone, photo in rows if email is not None}
    with Session(PROPERTY) as session:
        session.query(Person).delete()
        for number, (email, (phone, photo)) in enumerate(known.items()):
            session.add(someone(number, email=email, phone=phone, photo=photo, note=phone))
        session.commit()
        for newest in ("2025", "2026"):
            RING.now = ColumnKeys(newest=newest, secrets=BOTH)
            rotate(session, Person, batch_rows=2)
            for email, (phone, photo) in known.items():
                found = session.scalars(select(Person).where(Person.email == email)).one()
                assert (found.phone, found.photo, found.note) == (phone, photo, phone)
