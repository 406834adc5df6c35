"""State in one SQLite file: write-ahead log, synchronous=FULL, a transaction per batch."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from modelkeep.core.entry import Entry
from modelkeep.core.errors import IntegrityError, UnavailableError
from modelkeep.ports.state import Applied, Token

_SCHEMA = """
CREATE TABLE IF NOT EXISTS applied (
    one INTEGER PRIMARY KEY CHECK (one = 1), entries INTEGER NOT NULL, head INTEGER NOT NULL,
    snapshot TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS tokens (
    token_id TEXT PRIMARY KEY, secret_sha256 TEXT NOT NULL, principal TEXT NOT NULL,
    tenant TEXT NOT NULL, scopes TEXT NOT NULL, expires_ns INTEGER NOT NULL,
    revoked INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS aliases (
    model TEXT NOT NULL, alias TEXT NOT NULL, version INTEGER NOT NULL,
    PRIMARY KEY (model, alias)
) STRICT;
INSERT OR IGNORE INTO applied VALUES (1, 0, 0, '');
"""


class SqliteState:
    """State behind one connection; use it from one thread."""

    def __init__(self, path: Path, *, readonly: bool = False) -> None:
        try:
            if readonly:
                address = f"file:{quote(path.as_posix())}?mode=ro"
                self._database = sqlite3.connect(address, uri=True, isolation_level=None)
            else:
                self._database = sqlite3.connect(path, isolation_level=None)
                path.chmod(0o600)
                self._database.execute("PRAGMA journal_mode=WAL")
                self._database.execute("PRAGMA synchronous=FULL")
                self._database.executescript(_SCHEMA)
            self._database.execute("PRAGMA busy_timeout=5000")
        except sqlite3.Error as error:
            raise _translated(error, path) from error
        self._path = path

    def applied(self) -> Applied:
        with self._translating():
            row = self._database.execute("SELECT entries, head, snapshot FROM applied").fetchone()
        return Applied(entries=row[0], head=row[1], snapshot=row[2])

    def apply(self, first: int, entries: Sequence[Entry]) -> None:
        with self._translating():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                applied = self.applied().entries
                if first > applied:
                    raise AssertionError(f"state has {applied} entries, got {first} next")
                for entry in entries[applied - first :]:
                    self._apply(entry)
                reached = max(applied, first + len(entries))
                self._database.execute("UPDATE applied SET entries=?", (reached,))
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    def tokens(self) -> tuple[Token, ...]:
        with self._translating():
            rows = self._database.execute("SELECT * FROM tokens ORDER BY token_id").fetchall()
        return tuple(
            Token(
                token_id=row[0],
                secret_sha256=row[1],
                principal=row[2],
                tenant=row[3],
                scopes=tuple(json.loads(row[4])),
                expires_ns=row[5],
                revoked=bool(row[6]),
            )
            for row in rows
        )

    def aliases(self) -> tuple[tuple[str, str, int], ...]:
        with self._translating():
            rows = self._database.execute("SELECT * FROM aliases ORDER BY model, alias").fetchall()
        return tuple((row[0], row[1], row[2]) for row in rows)

    def revision(self) -> int:
        with self._translating():
            return int(self._database.execute("PRAGMA data_version").fetchone()[0])

    def close(self) -> None:
        self._database.close()

    def _apply(self, entry: Entry) -> None:
        facts = entry.facts
        if entry.kind == "token.created":
            scopes = facts["scopes"]
            self._database.execute(
                "INSERT OR REPLACE INTO tokens VALUES (?, ?, ?, ?, ?, ?, 0)",
                (
                    facts["token_id"],
                    facts["secret_sha256"],
                    facts["principal"],
                    entry.tenant,
                    json.dumps(scopes),
                    facts["expires_ns"],
                ),
            )
        elif entry.kind == "token.revoked":
            self._database.execute(
                "UPDATE tokens SET revoked=1 WHERE token_id=?", (facts["token_id"],)
            )
        elif entry.kind == "vault.committed":
            self._database.execute(
                "UPDATE applied SET head=?1, snapshot=?2 WHERE head < ?1",
                (facts["head"], facts["snapshot"]),
            )
        elif entry.kind == "alias.set":
            self._database.execute(
                "INSERT OR REPLACE INTO aliases VALUES (?, ?, ?)",
                (facts["model"], facts["alias"], facts["version"]),
            )

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
