"""A real PostgreSQL server for one test session: Debian's, in a folder of its own, no network."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def programs() -> Path | None:
    """The folder with initdb and postgres of the newest version, as Debian installs it."""
    found = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = max(found, key=lambda path: int(path.parts[-3]), default=None)
    return newest.parent if newest else None


@contextmanager
def running_postgres() -> Iterator[Path]:
    """Start one; gives its folder, which is also its socket's. Anyone here may log in as `me`.

    PostgreSQL does not run as root: there, the user `postgres` of Debian's package runs it.
    """
    binaries = programs()
    if binaries is None:
        pytest.skip("PostgreSQL's server is not installed (Debian: postgresql)")
    prefix: list[str] = []
    # A socket's address has at most 107 characters, so the usual long folder of a test is no use.
    folder = Path(tempfile.mkdtemp(prefix="mk-pg-"))
    if os.geteuid() == 0:
        try:
            owner = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL refuses to run as root, and there is no user postgres")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        prefix = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]

    def run(*words: str | Path) -> None:
        command = [*prefix, *map(str, words)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    data = folder / "data"
    options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
    try:
        run(binaries / "initdb", "-D", data, "-U", "me", "-A", "trust", "-E", "UTF8", "--no-sync")
        run(binaries / "pg_ctl", "start", "-w", "-D", data, "-l", folder / "log", "-o", options)
        try:
            yield folder
        finally:
            run(binaries / "pg_ctl", "stop", "-w", "-m", "fast", "-D", data)
    finally:
        shutil.rmtree(folder)
