"""Proofs of loads as empty files, named by what only this host can make with the keep's key.

A name is a keyed digest over the boot id of the running kernel and what was proven. So a copy of
the folder on another host, or the same host after it started anew, proves nothing, and nobody
without the key can make a name. A file that is missing only costs a hash.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from modelkeep.crypto.secret import Secret
from modelkeep.kernels.digest import keyed_id
from modelkeep.ports.load_proofs import NO_LOAD_PROOFS, LoadProofs

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# A keep has hundreds of versions; past this the folder is emptied, and everything hashed again.
_FILES_MAX = 10_000


class FolderLoadProofs:
    """Files below one folder."""

    def __init__(self, folder: Path, key: Secret, *, host: bytes) -> None:
        self._folder = folder
        self._key = key
        self._host = host

    def knows(self, what: bytes) -> bool:
        try:
            return self._path(what).is_file()
        except OSError:
            return False

    def note(self, what: bytes) -> None:
        with suppress(OSError):  # then the next load hashes again
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            files = list(self._folder.iterdir())
            for each in files if len(files) >= _FILES_MAX else ():
                each.unlink(missing_ok=True)
            self._path(what).touch(mode=0o600)

    def _path(self, what: bytes) -> Path:
        return self._folder / keyed_id(self._key.reveal(), self._host + b"\0" + what).hex()


def load_proofs_of(folder: Path, key: Secret) -> LoadProofs:
    """The proofs of this host, as it runs now; none where it cannot be told from others."""
    try:
        host = _BOOT_ID.read_bytes().strip()
    except OSError:
        host = b""
    return FolderLoadProofs(folder, key, host=host) if host else NO_LOAD_PROOFS
