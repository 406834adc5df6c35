"""A program with encrypted columns, as a user would write it; it is type-checked and never run."""

import uuid
from typing import assert_type

from sqlalchemy import LargeBinary, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from modelkeep.adapters.columns_sqlalchemy import Encrypted, RowBound, rotate
from modelkeep.crypto.columns import ColumnKeys
from modelkeep.crypto.secret import Secret

KEYS = ColumnKeys(newest="2026", secrets={"2026": Secret(bytes(32))})


def keys() -> ColumnKeys:
    return KEYS


class Base(DeclarativeBase):
    pass


class Person(Base):
    __tablename__ = "people"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(
        Encrypted(str, keys=keys, place="people.email", searchable=True)
    )
    photo: Mapped[bytes | None] = mapped_column(Encrypted(bytes, keys=keys, place="people.photo"))
    note_cell: Mapped[bytes | None] = mapped_column(LargeBinary)
    note = RowBound(str, "note_cell", keys=keys, place="people.note")


def found(session: Session, email: str) -> str | None:
    person = session.scalars(select(Person).where(Person.email == email)).one()
    assert_type(person.email, str)
    assert_type(person.photo, bytes | None)
    note = assert_type(person.note, str | None)
    person.note = "seen"
    return note


def rotated(session: Session) -> int:
    done = rotate(session, Person, batch_rows=100)
    assert_type(done.left, int)
    return done.rewritten


def misused(person: Person) -> None:
    Encrypted(int, keys=keys, place="a.b")  # type: ignore[type-var]
    Encrypted(str, keys=KEYS, place="a.b")  # type: ignore[arg-type]
    Encrypted(str, keys=keys)  # type: ignore[call-arg]
    person.note = b"bytes"  # type: ignore[assignment]
    ColumnKeys(newest="2026", secrets={"2026": bytes(32)})  # type: ignore[dict-item]
