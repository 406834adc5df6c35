"""State in one SQLite file: write-ahead log, synchronous=FULL, a transaction per batch.

The file's `user_version` names the layout. A file of another layout counts as absent: its tables
are dropped in one transaction, and the next replay fills it from the ledger. Not the file is
replaced but what is in it, so a gateway that still reads it finds no keys rather than old ones.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from modelkeep.core.entry import Entry
from modelkeep.core.errors import IntegrityError, UnavailableError
from modelkeep.core.projection import Change, projected
from modelkeep.core.record import to_json
from modelkeep.core.rows import TABLES, Applied, R, row_of

# `PRAGMA user_version`. 1 had a table for each kind and said 0; 2 knew no way back of an alias.
LAYOUT = 3
_SCHEMA = (
    """CREATE TABLE applied (
        one INTEGER PRIMARY KEY CHECK (one = 1), entries INTEGER NOT NULL, head INTEGER NOT NULL,
        snapshot TEXT NOT NULL
    ) STRICT""",
    """CREATE TABLE state_rows (
        kind TEXT NOT NULL, key TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (kind, key)
    ) STRICT, WITHOUT ROWID""",
    "INSERT INTO applied VALUES (1, 0, 0, '')",
    f"PRAGMA user_version={LAYOUT}",
)


class SqliteState:
    """State behind one connection; use it from one thread."""

    def __init__(self, path: Path, *, readonly: bool = False) -> None:
        self._path = path
        with self._translating():
            if readonly:
                address = f"file:{quote(path.as_posix())}?mode=ro"
                self._database = sqlite3.connect(address, uri=True, isolation_level=None)
            else:
                self._database = sqlite3.connect(path, isolation_level=None)
                path.chmod(0o600)
                self._database.execute("PRAGMA journal_mode=WAL")
                self._database.execute("PRAGMA synchronous=FULL")
            self._database.execute("PRAGMA busy_timeout=5000")
            if not readonly:
                self._lay_out()
            elif self._layout() != LAYOUT:
                raise UnavailableError(
                    "state.layout",
                    f"the State database {path.name} is of another release of modelkeep",
                    hint="any verb of this release that opens the keep makes it anew",
                )

    def applied(self) -> Applied:
        with self._translating():
            row = self._database.execute("SELECT entries, head, snapshot FROM applied").fetchone()
        return Applied(entries=row[0], head=row[1], snapshot=row[2])

    def apply(self, first: int, entries: Sequence[Entry]) -> None:
        with self._translating(), self._transaction():
            applied, changes = projected(self.applied(), first, entries, self._present)
            for change in changes:
                self._write(change)
            self._database.execute(
                "UPDATE applied SET entries=?, head=?, snapshot=?",
                (applied.entries, applied.head, applied.snapshot),
            )

    def rows(self, kind: type[R]) -> tuple[R, ...]:
        with self._translating():
            found = self._database.execute(
                "SELECT key, body FROM state_rows WHERE kind=? ORDER BY key", (TABLES[kind],)
            ).fetchall()
        return tuple(row_of(kind, body, key=key) for key, body in found)

    def revision(self) -> int:
        with self._translating():
            return int(self._database.execute("PRAGMA data_version").fetchone()[0])

    def close(self) -> None:
        self._database.close()

    def _present(self, kind: type[R], key: str) -> R | None:
        found = self._database.execute(
            "SELECT body FROM state_rows WHERE kind=? AND key=?", (TABLES[kind], key)
        ).fetchone()
        return None if found is None else row_of(kind, found[0], key=key)

    def _write(self, change: Change) -> None:
        if change.row is None:
            self._database.execute(
                "DELETE FROM state_rows WHERE kind=? AND key=?", (change.table, change.key)
            )
        else:
            self._database.execute(
                "INSERT OR REPLACE INTO state_rows VALUES (?, ?, ?)",
                (change.table, change.key, to_json(change.row)),
            )

    def _layout(self) -> int:
        return int(self._database.execute("PRAGMA user_version").fetchone()[0])

    def _lay_out(self) -> None:
        """Make the tables, in place of those of another layout."""
        if self._layout() == LAYOUT:
            return
        with self._transaction():
            if self._layout() == LAYOUT:  # somebody else was faster
                return
            old = self._database.execute("SELECT name FROM sqlite_schema WHERE type='table'")
            for (name,) in old.fetchall():
                self._database.execute('DROP TABLE "{}"'.format(name.replace('"', '""')))
            for statement in _SCHEMA:
                self._database.execute(statement)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _translated(error, self._path) from error


def _translated(error: sqlite3.Error, path: Path) -> IntegrityError | UnavailableError:
    if isinstance(error, sqlite3.OperationalError):
        return UnavailableError(
            "state.unavailable", f"the State database {path.name} failed: {error}"
        )
    return IntegrityError(
        "state.damaged",
        f"the State database {path.name} is damaged: {error}",
        hint="`modelkeep state rebuild` makes it anew from the ledger",
    )
