"""Encrypted columns of SQLAlchemy models: a type, a descriptor bound to its row, and rotation.

    keys = ColumnKeys(newest="2026", secrets={"2025": …, "2026": …})

    class Person(Base):
        __tablename__ = "people"
        id: Mapped[int] = mapped_column(primary_key=True)
        email: Mapped[str] = mapped_column(
            Encrypted(str, keys=lambda: keys, place="people.email", searchable=True)
        )

- The database sees cells (`crypto.columns`) in a binary column; null stays null.
- `==`, `!=`, `in_` and `not_in` work on searchable columns and find rows under every key of the
  ring. Every other operator with a value is refused: over ciphertext it would answer, and
  wrongly. What no operator sees stays the program's care: `order_by` sorts cells, and two columns
  never have an equal cell.
- A type sees one value and not its row. Whoever can write to the database can therefore copy a
  cell to another row of the same column; `RowBound` is for values where that matters.
- `keys` is a function, so that models are declared before keys are there, and a changed ring
  needs no new declaration. It should return the same object until the ring changes.
- What cannot be sealed is refused before SQLAlchemy can wrap the error, because its
  `StatementError` prints the statement's values.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar, overload

from sqlalchemy import (
    Column,
    ColumnClause,
    ColumnElement,
    CursorResult,
    Dialect,
    LargeBinary,
    Select,
    Table,
    and_,
    func,
    inspect,
    literal,
    select,
    tuple_,
    type_coerce,
    update,
)
from sqlalchemy.exc import DontWrapMixin
from sqlalchemy.orm import Session
from sqlalchemy.sql import operators
from sqlalchemy.types import TypeDecorator

from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.core.record import Record, to_json
from modelkeep.crypto.columns import NONCE_BYTES, CellCipher, ColumnKeys, Kind, checked_place

V = TypeVar("V", str, bytes)


class Rotation(Record, frozen=True):
    """What `rotate` did.

    Attributes:
        rewritten: cells that are now under the newest key.
        left: cells that are not, because someone wrote them meanwhile: rotate again.
    """

    rewritten: int
    left: int


class Encrypted(TypeDecorator[V]):
    """The type of a column whose values only holders of the keys can read.

    Args:
        kind: `str` or `bytes`.
        keys: gives the ring of keys.
        place: the column's name for good; see `CellCipher`.
        searchable: allow equality; the database then sees which rows share a value.

    Raises:
        UsageError: `columns.type`, `columns.size`, `columns.operator`; and whatever `keys` raises.
        IntegrityError: `columns.*`, when a cell that was read is not what it must be.
    """

    impl = LargeBinary
    cache_ok = True

    def __init__(
        self,
        kind: type[V],
        *,
        keys: Callable[[], ColumnKeys],
        place: str,
        searchable: bool = False,
    ) -> None:
        super().__init__()
        self.kind: type[V] = kind
        self.keys = keys
        self.place = place
        self.searchable = searchable
        self._cells = _Cells(keys, place)

    def process_bind_param(self, value: Any, dialect: Dialect) -> bytes | None:  # noqa: ARG002
        if value is None:
            return None
        try:
            raw = _encoded(value, self.kind)
            return self._cells.made(raw, searchable=self.searchable)
        except UsageError as error:
            raise _UnwrappedError(error) from None

    def process_result_value(self, value: Any, dialect: Dialect) -> V | None:  # noqa: ARG002
        return None if value is None else _decoded(self._cells.opened(value), self.kind)

    def searched(self, value: Any) -> tuple[bytes, ...]:
        """The cells that may stand for a value, one per key.

        Raises:
            UsageError: `columns.operator`, `columns.type` or `columns.size`.
        """
        if not self.searchable:
            raise UsageError(
                "columns.operator",
                f"the column {self.place} is not searchable",
                hint="declare it with searchable=True and rotate; read what that shows first",
            )
        return self._cells.cipher().searched(_encoded(value, self.kind))

    class Comparator(TypeDecorator.Comparator[Any]):
        """Equality and null by value; everything else is refused."""

        def operate(
            self, op: operators.OperatorType, *other: Any, **kwargs: Any
        ) -> ColumnElement[Any]:
            value = other[0] if other else ()
            # SQLAlchemy itself compares columns, as keys of its dictionaries.
            if op in _NULL_TESTS and (value is None or isinstance(value, ColumnClause)):
                return super().operate(op, value, **kwargs)
            values = value if op in (operators.in_op, operators.not_in_op) else (value,)
            if op not in _EQUALITIES or not _is_plain(values):
                raise _refused(op)
            column: Encrypted[Any] = self.expr.type  # type: ignore[assignment]  # it is ours
            cells = [cell for each in values for cell in column.searched(each)]
            raw = type_coerce(self.expr, LargeBinary())
            return raw.in_(cells) if _EQUALITIES[op] else raw.not_in(cells)

        def reverse_operate(
            self,
            op: operators.OperatorType,
            other: Any,  # noqa: ARG002
            **kwargs: Any,  # noqa: ARG002
        ) -> ColumnElement[Any]:
            raise _refused(op)

    comparator_factory = Comparator


class RowBound(Generic[V]):
    """A value whose cell opens in its own row only.

        id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
        note_cell: Mapped[bytes | None] = mapped_column(LargeBinary)
        note = RowBound(str, "note_cell", keys=lambda: keys, place="people.note")

    The value is sealed when it is assigned, so the row's primary key must be assigned before it
    and must not change. It cannot be searched.

    Args:
        kind: `str` or `bytes`.
        attribute: the mapped attribute that holds the cell.
        keys: gives the ring of keys.
        place: the column's name for good; see `CellCipher`.

    Raises:
        UsageError: `columns.row`, `columns.type`, `columns.size`.
        IntegrityError: `columns.*`, when the cell is not what it must be.
    """

    def __init__(
        self, kind: type[V], attribute: str, *, keys: Callable[[], ColumnKeys], place: str
    ) -> None:
        self.kind: type[V] = kind
        self.attribute = attribute
        self.cells = _Cells(keys, place)

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> V | None: ...
    def __get__(self, instance: object | None, owner: type) -> Self | V | None:
        if instance is None:
            return self
        cell = getattr(instance, self.attribute)
        if cell is None:
            return None
        return _decoded(self.cells.opened(cell, row=_row_of(instance)), self.kind)

    def __set__(self, instance: object, value: V | None) -> None:
        cell = None
        if value is not None:
            cell = self.cells.made(_encoded(value, self.kind), row=_row_of(instance))
        setattr(instance, self.attribute, cell)


def rotate(session: Session, model: type[Any], *, batch_rows: int = 500) -> Rotation:
    """Put every encrypted cell of a model under its newest key.

    Also turns cells into searchable ones and back, where the declaration changed. Each batch is
    one transaction that this function commits; a cell that someone else wrote meanwhile is left
    to them. Whatever stops it, calling it again goes on: what is done is not done again.

    Args:
        session: one without pending changes; it is committed.

    Raises:
        UsageError: `columns.session`.
        IntegrityError: `columns.*`, with the row's key in its context, when a cell does not open;
            earlier batches stay rotated.
    """
    if session.new or session.dirty or session.deleted:
        raise UsageError(
            "columns.session",
            "the session has changes of its own, which a rotation would commit",
            hint="commit or roll back first, or use a new session",
        )
    rewritten = left = 0
    for each in _encrypted(model):
        for batch in _stale(session, each, batch_rows):
            rewritten += sum(_is_rewritten(session, each, *row) for row in batch)
            session.commit()
        left += session.scalars(each.count_of_stale()).one()
    session.commit()
    return Rotation(rewritten=rewritten, left=left)


class _UnwrappedError(UsageError, DontWrapMixin):
    """A UsageError that SQLAlchemy passes on as it is."""

    def __init__(self, error: UsageError) -> None:
        super().__init__(error.code, error.message, hint=error.hint, **error.context)


class _Cells:
    """The cipher of one place, made anew when the ring of keys is another one."""

    def __init__(self, keys: Callable[[], ColumnKeys], place: str) -> None:
        self.keys = keys
        self.place = checked_place(place)
        self._made: tuple[ColumnKeys, CellCipher] | None = None

    def cipher(self) -> CellCipher:
        keys, made = self.keys(), self._made
        if made is None or made[0] is not keys:
            self._made = made = (keys, CellCipher(keys, self.place))
        return made[1]

    def opened(self, cell: object, *, row: bytes = b"") -> bytes:
        if not isinstance(cell, bytes):  # SQLite lets anything stand in any column
            raise IntegrityError("columns.form", "a cell is not one that modelkeep made")
        return self.cipher().opened(cell, row=row)

    def made(self, raw: bytes, *, searchable: bool = False, row: bytes = b"") -> bytes:
        if searchable:
            return self.cipher().searchable(raw)
        return self.cipher().sealed(raw, nonce=os.urandom(NONCE_BYTES), row=row)


_NULL_TESTS = frozenset({operator.eq, operator.ne, operators.is_, operators.is_not})
_EQUALITIES = {
    operator.eq: True,
    operator.ne: False,
    operators.in_op: True,
    operators.not_in_op: False,
}


def _is_plain(values: object) -> bool:
    """Whether these are values, not SQL that stands for them."""
    if not isinstance(values, Collection) or isinstance(values, str | bytes):
        return False
    return not any(hasattr(each, "__clause_element__") for each in values)


def _refused(op: operators.OperatorType) -> UsageError:
    name = getattr(op, "__name__", str(op))
    return UsageError(
        "columns.operator",
        f"an encrypted column cannot be asked for {name}",
        hint="compare it with values by ==, != or in_, or read the rows and compare in Python",
    )


def _encoded(value: object, kind: type[Any]) -> bytes:
    """The bytes of a value; an error never repeats the value."""
    try:
        if isinstance(value, kind):
            return value.encode() if isinstance(value, str) else bytes(value)
    except UnicodeEncodeError:
        pass
    raise UsageError(
        "columns.type",
        f"an encrypted column of {kind.__name__} was given what it cannot hold",
        hint=f"give it {kind.__name__} (text without surrogates) or None",
    )


def _decoded(raw: bytes, kind: type[V]) -> V:
    if issubclass(kind, bytes):
        return raw
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise IntegrityError("columns.text", "an encrypted text is not UTF-8") from None


def _row_of(instance: object) -> bytes:
    found = inspect(instance).mapper.primary_key_from_instance(instance)
    if None in found:
        raise UsageError(
            "columns.row",
            "a value was bound to a row that has no key yet",
            hint="assign the primary key first (a UUID, for example), then the value",
        )
    return _row_bytes(found)


def _row_bytes(key: Any) -> bytes:
    return to_json([str(part) for part in key])


@dataclass(frozen=True, slots=True)
class _Target:
    """One encrypted column, for its rotation."""

    column: Column[Any]
    cells: _Cells
    searchable: bool = False
    is_row_bound: bool = False

    @property
    def table(self) -> Table:
        return self.column.table

    @property
    def raw(self) -> ColumnElement[bytes]:
        return type_coerce(self.column, LargeBinary())

    @property
    def key(self) -> tuple[Column[Any], ...]:
        return tuple(self.table.primary_key)

    @property
    def is_stale(self) -> ColumnElement[bool]:
        head = self.cells.cipher().head(Kind.SEARCHABLE if self.searchable else Kind.SEALED)
        start = func.substr(self.raw, 1, len(head), type_=LargeBinary())
        return and_(self.raw.is_not(None), start != head)

    def count_of_stale(self) -> Select[int]:
        return select(func.count()).select_from(self.table).where(self.is_stale)


def _encrypted(model: type[Any]) -> Iterator[_Target]:
    mapper = inspect(model)
    for table in mapper.tables:
        for column in table.columns:
            kind = column.type
            if isinstance(kind, Encrypted):
                yield _Target(column, _Cells(kind.keys, kind.place), searchable=kind.searchable)
    for owner in model.__mro__:
        for each in vars(owner).values():
            if isinstance(each, RowBound):
                yield _Target(mapper.columns[each.attribute], each.cells, is_row_bound=True)


def _stale(session: Session, target: _Target, rows: int) -> Iterator[list[tuple[Any, bytes]]]:
    """Cells that are not as new ones would be, in batches of (row's key, cell)."""
    query = select(*target.key, target.raw).where(target.is_stale)
    query = query.order_by(*target.key).limit(rows)
    page = query
    while found := session.execute(page).all():
        yield [(tuple(row[:-1]), row[-1]) for row in found]
        last = [
            literal(value, column.type)
            for column, value in zip(target.key, found[-1], strict=False)
        ]
        page = query.where(tuple_(*target.key) > tuple_(*last))


def _is_rewritten(session: Session, target: _Target, key: tuple[Any, ...], cell: bytes) -> bool:
    row = _row_bytes(key) if target.is_row_bound else b""
    try:
        value = target.cells.opened(cell, row=row)
    except IntegrityError as error:
        error.context["row"] = key
        error.context["column"] = str(target.column)
        raise
    new = target.cells.made(value, searchable=target.searchable, row=row)
    same_row = (column == part for column, part in zip(target.key, key, strict=True))
    done = session.execute(
        update(target.table)
        .where(*same_row, target.raw == cell)
        .values({target.column: literal(new, LargeBinary())})
        .execution_options(synchronize_session=False)
    )
    return isinstance(done, CursorResult) and done.rowcount == 1
