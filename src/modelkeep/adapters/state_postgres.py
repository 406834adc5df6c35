"""State in PostgreSQL: rows of many keeps in one schema, each log under its own origin.

What is promised by whom:
 1. A batch is one transaction; `synchronous_commit` is `on` or stronger, so it is durable when
    `apply` returns, unless the server's administrator has switched `fsync` off.
 2. Every transaction that writes begins by raising the revision in the keep's row of `applied`,
    which locks it: two writers never interleave, and the second sees what the first has applied.
    Tables are made under one advisory lock.
 3. Every statement and every wait for a lock has a bound; so has connecting.

The password comes from a file or a program and never stands in the address; neither `PGPASSWORD`
nor a password file of libpq's (`PGPASSFILE`, `~/.pgpass`) is looked at. TLS is libpq's:
`?sslmode=verify-full&sslrootcert=/…` in the address.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from modelkeep.core.entry import Entry
from modelkeep.core.errors import ConfigError, UnavailableError
from modelkeep.core.projection import Change, projected
from modelkeep.core.record import to_json
from modelkeep.core.rows import TABLES, Applied, R, row_of
from modelkeep.crypto.secret import Secret

LAYOUT = 2  # of a keep's rows: another one counts as absent
CONNECT_S_MAX = 5
_NO_FILE = f"{os.devnull}/none"  # cannot exist, so libpq finds nothing and says nothing
STATEMENT_MS_MAX = 30_000
LOCK_MS_MAX = 10_000
_TABLES_LOCK = 0x6D6F64656C  # any number that others hardly use: "model"
_MESSAGE_CHARS_MAX = 200
_SCHEMA = """
CREATE SCHEMA IF NOT EXISTS modelkeep;
CREATE TABLE IF NOT EXISTS modelkeep.applied (
    origin text PRIMARY KEY, layout integer NOT NULL, revision bigint NOT NULL,
    entries bigint NOT NULL, head bigint NOT NULL, snapshot text NOT NULL
);
CREATE TABLE IF NOT EXISTS modelkeep.state_rows (
    origin text NOT NULL, kind text NOT NULL, key text COLLATE "C" NOT NULL, body bytea NOT NULL,
    PRIMARY KEY (origin, kind, key)
);
"""
_SESSION = f"""
SET statement_timeout = {STATEMENT_MS_MAX};
SET lock_timeout = {LOCK_MS_MAX};
SET client_min_messages = warning;
SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') IN ('off', 'local');
"""


class PostgresState:
    """State behind one connection.

    Args:
        url: `postgresql://user@host:port/database?sslmode=…`, without a password.
        origin: of the log whose projection is meant; a recovered keep goes on in another log.
    """

    def __init__(
        self, url: str, *, origin: str, password: Secret | None = None, readonly: bool = False
    ) -> None:
        self._origin = origin
        with _translating():
            self._connection = psycopg.connect(_address(url, password), autocommit=True)
            try:
                self._connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
                self._connection.read_only = readonly
                self._connection.execute(_SESSION)
                if not readonly:
                    self._lay_out()
            except BaseException:
                self._connection.close()
                raise

    def applied(self) -> Applied:
        with _translating():
            return self._applied()

    def apply(self, first: int, entries: Sequence[Entry]) -> None:
        with _translating(), self._locked():
            applied, changes = projected(self._applied(), first, entries, self._present)
            self._write(changes)
            self._connection.execute(
                "UPDATE modelkeep.applied SET entries = %s, head = %s, snapshot = %s "
                "WHERE origin = %s",
                (applied.entries, applied.head, applied.snapshot, self._origin),
            )

    def rows(self, kind: type[R]) -> tuple[R, ...]:
        with _translating():
            found = self._connection.execute(
                "SELECT key, body FROM modelkeep.state_rows "
                "WHERE origin = %s AND kind = %s ORDER BY key",
                (self._origin, TABLES[kind]),
            ).fetchall()
        return tuple(row_of(kind, body, key=key) for key, body in found)

    def revision(self) -> int:
        with _translating():
            return self._row()[0]

    def close(self) -> None:
        self._connection.close()

    def forget(self) -> None:
        """Remove all rows of this keep; the next replay makes them anew."""
        with _translating(), self._locked():
            self._forget()

    def _applied(self) -> Applied:
        _, entries, head, snapshot = self._row()
        return Applied(entries=entries, head=head, snapshot=snapshot)

    def _row(self) -> tuple[int, int, int, str]:
        """Revision, entries, head and snapshot of this keep."""
        found = self._connection.execute(
            "SELECT revision, entries, head, snapshot FROM modelkeep.applied "
            "WHERE origin = %s AND layout = %s",
            (self._origin, LAYOUT),
        ).fetchone()
        if found is None:
            raise UnavailableError(
                "state.layout",
                "the database holds no State of this keep, or that of another release",
                hint="any verb of this release that opens the keep makes it anew",
            )
        return int(found[0]), int(found[1]), int(found[2]), str(found[3])

    def _present(self, kind: type[R], key: str) -> R | None:
        found = self._connection.execute(
            "SELECT body FROM modelkeep.state_rows WHERE origin = %s AND kind = %s AND key = %s",
            (self._origin, TABLES[kind], key),
        ).fetchone()
        return None if found is None else row_of(kind, found[0], key=key)

    def _write(self, changes: Sequence[Change]) -> None:
        gone = [(self._origin, each.table, each.key) for each in changes if each.row is None]
        put = [
            (self._origin, each.table, each.key, to_json(each.row))
            for each in changes
            if each.row is not None
        ]
        with self._connection.cursor() as cursor:
            if gone:
                cursor.executemany(
                    "DELETE FROM modelkeep.state_rows WHERE origin = %s AND kind = %s AND key = %s",
                    gone,
                )
            if put:
                cursor.executemany(
                    "INSERT INTO modelkeep.state_rows VALUES (%s, %s, %s, %s) "
                    "ON CONFLICT (origin, kind, key) DO UPDATE SET body = excluded.body",
                    put,
                )

    def _lay_out(self) -> None:
        """Make schema and tables where they are missing, and the keep's own row."""
        ready = self._connection.execute(
            "SELECT to_regclass('modelkeep.applied') IS NOT NULL "
            "AND to_regclass('modelkeep.state_rows') IS NOT NULL"
        ).fetchone()
        if ready != (True,):  # asked first: who may not create can still use what is there
            with self._connection.transaction():
                self._connection.execute("SELECT pg_advisory_xact_lock(%s)", (_TABLES_LOCK,))
                self._connection.execute(_SCHEMA)
        self._connection.execute(
            "INSERT INTO modelkeep.applied VALUES (%s, %s, 0, 0, 0, '') ON CONFLICT DO NOTHING",
            (self._origin, LAYOUT),
        )
        if not self._is_laid_out():
            with self._locked():
                if not self._is_laid_out():  # nobody else was faster
                    self._forget()

    def _is_laid_out(self) -> bool:
        found = self._connection.execute(
            "SELECT layout FROM modelkeep.applied WHERE origin = %s", (self._origin,)
        ).fetchone()
        return bool(found == (LAYOUT,))

    def _forget(self) -> None:
        self._connection.execute(
            "DELETE FROM modelkeep.state_rows WHERE origin = %s", (self._origin,)
        )
        self._connection.execute(
            "UPDATE modelkeep.applied SET layout = %s, entries = 0, head = 0, snapshot = '' "
            "WHERE origin = %s",
            (LAYOUT, self._origin),
        )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """A transaction of the keep's only writer."""
        with self._connection.transaction():
            self._connection.execute(
                "UPDATE modelkeep.applied SET revision = revision + 1 WHERE origin = %s",
                (self._origin,),
            )
            yield


def _address(url: str, password: Secret | None) -> str:
    """What libpq is given; an empty password keeps it from looking at the environment."""
    revealed = password.reveal().decode() if password is not None else ""
    try:
        usual: dict[str, Any] = {"connect_timeout": CONNECT_S_MAX, "application_name": "modelkeep"}
        own = {"password": revealed, "passfile": _NO_FILE}
        return make_conninfo(**{**usual, **conninfo_to_dict(url), **own})
    except psycopg.Error as error:
        raise ConfigError(
            "state.url",
            "state.url is no address of a PostgreSQL database",
            hint='url = "postgresql://user@host:5432/database?sslmode=verify-full"',
        ) from error


@contextmanager
def _translating() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        said = " ".join(str(error).split())[:_MESSAGE_CHARS_MAX]
        raise UnavailableError(
            "state.unavailable",
            f"the State database failed: {said or type(error).__name__}",
            hint="look at [state] in modelkeep.toml and at the server's log",
        ) from error
