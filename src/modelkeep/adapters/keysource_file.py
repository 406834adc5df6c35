"""A KeySource from a protected file: 64 hex digits that only we and root can read.

Whoever can read the file and a store can read the keep: this protects what leaves the machine (a
store, a backup, a disk that is thrown away), not the machine.

1. The file is opened once, without following a symbolic link in its last part, and never waits
   (a pipe does not block).
2. Everything is checked on the open descriptor, so nothing can be swapped between look and use.
3. It is a regular file of ours or of root.
4. Nobody else may read it. Group bits may stand for an access list (that is how systemd gives a
   credential to a service): then the list is read, and may name us and root only.
5. At most one byte more than allowed is read.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from pathlib import Path

from modelkeep.adapters.disk import RealDisk
from modelkeep.core.errors import MissingError, RefusedError, UnavailableError, UsageError
from modelkeep.crypto.kdf import KEY_BYTES, SALT_BYTES
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.wrapped_key import key_of_hex, opened_key, sealed_key, secret_of_text
from modelkeep.ports.entropy import Entropy

# A private key in PEM or a service account's JSON: 2 to 4 kB.
SECRET_FILE_BYTES_MAX = 16 * 1024

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_ACL = "system.posix_acl_access"
_ACL_VERSION, _ACL_ENTRY = struct.Struct("<I"), struct.Struct("<HHI")
_USER, _GROUP_OBJ, _GROUP, _OTHER = 0x02, 0x04, 0x08, 0x20


class FileSource:
    """Reads the key from its file each time it wraps or unwraps."""

    kind = "file"

    def __init__(self, path: str, *, entropy: Entropy) -> None:
        self._path = path
        self._entropy = entropy

    def wrap(self, key: Secret) -> bytes:
        salt = self._entropy.random_bytes(SALT_BYTES)
        return sealed_key(self._key(), key, kind=self.kind, salt=salt)

    def unwrap(self, wrapped: bytes) -> Secret:
        return opened_key(self._key(), wrapped, kind=self.kind)

    def _key(self) -> Secret:
        return key_of_hex(protected_bytes(self._path), what=self._path)


def new_key_file(path: str, *, entropy: Entropy) -> None:
    """Make a key file with a fresh key, mode 0600, durable; never over another file.

    A cut of power may leave a file that is too short: it is refused later; remove it.

    Raises:
        UsageError: `keysource.exists`.
        UnavailableError: `keysource.unavailable`.
    """
    key = Secret(entropy.random_bytes(KEY_BYTES))
    create_protected(
        Path(path),
        key.reveal().hex().encode() + b"\n",
        hint="a key that is overwritten is lost, and with it whatever it wraps",
    )


def create_protected(path: Path, raw: bytes, *, hint: str) -> None:
    """Make a file of mode 0600, durable; never over another one.

    Args:
        hint: why what is there already is not replaced.

    Raises:
        UsageError: `keysource.exists`.
        UnavailableError: `keysource.unavailable`.
    """
    disk = RealDisk()
    try:
        disk.create(path, raw)
        disk.sync(path)
        disk.sync_folder(path.parent)
    except FileExistsError as error:
        raise UsageError("keysource.exists", f"{path} is there already", hint=hint) from error
    except OSError as error:
        raise UnavailableError("keysource.unavailable", f"{path}: {error.strerror}") from error


def secret_from_file(path: str) -> Secret:
    """A PIN, a token or a password from a protected file.

    Raises:
        KeepError: as `protected_bytes`; IntegrityError `keysource.secret`.
    """
    return secret_of_text(protected_bytes(path), what=path)


def protected_bytes(path: str, *, bytes_max: int = SECRET_FILE_BYTES_MAX) -> bytes:
    """Read a file that nobody but us and root can read; the numbers are those above.

    Raises:
        MissingError: `keysource.missing`.
        RefusedError: `keysource.exposed`, when others may read or own it or it is no plain file.
        UnavailableError: `keysource.unavailable`.
    """
    try:
        fd = os.open(path, _FLAGS)  # 1
    except OSError as error:
        raise _not_opened(path, error) from error
    try:
        _demand_ours(fd, path)  # 2
        raw = os.read(fd, bytes_max + 1)  # 5
    except OSError as error:
        raise UnavailableError("keysource.unavailable", f"{path}: {error.strerror}") from error
    finally:
        os.close(fd)
    if len(raw) > bytes_max:
        raise _exposed(path, f"is longer than {bytes_max} bytes")
    return raw


def acl_admits_only(raw: bytes, users: frozenset[int]) -> bool:
    """Whether an access list (as Linux stores it) lets nobody in but the owner and these users."""
    if len(raw) < _ACL_VERSION.size or (len(raw) - _ACL_VERSION.size) % _ACL_ENTRY.size:
        return False
    if _ACL_VERSION.unpack_from(raw) != (2,):
        return False
    for tag, permissions, number in _ACL_ENTRY.iter_unpack(raw[_ACL_VERSION.size :]):
        if permissions and (
            tag in (_GROUP_OBJ, _GROUP, _OTHER) or (tag == _USER and number not in users)
        ):
            return False
    return True


def _not_opened(path: str, error: OSError) -> MissingError | RefusedError | UnavailableError:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return MissingError(
            "keysource.missing",
            f"there is no file {path}",
            hint="docs/guide/key-sources.md says how to make one",
        )
    if error.errno == errno.ELOOP:
        return _exposed(path, "is a symbolic link")
    if error.errno in (errno.EACCES, errno.EPERM):
        return RefusedError("keysource.forbidden", f"this user may not read {path}")
    return UnavailableError("keysource.unavailable", f"{path}: {error.strerror}")


def _demand_ours(fd: int, path: str) -> None:
    facts = os.fstat(fd)
    us = frozenset({0, os.geteuid()})
    if not stat.S_ISREG(facts.st_mode):  # 3
        raise _exposed(path, "is not a plain file")
    if facts.st_uid not in us:
        raise _exposed(path, "belongs to another user")
    if facts.st_mode & stat.S_IRWXO or not (  # 4
        facts.st_mode & stat.S_IRWXG == 0 or acl_admits_only(_acl(fd), us)
    ):
        raise _exposed(path, "can be read or changed by others")


def _acl(fd: int) -> bytes:
    try:
        return os.getxattr(fd, _ACL)
    except (AttributeError, OSError):  # none, or no Linux: the group bits are the group's
        return b""


def _exposed(path: str, why: str) -> RefusedError:
    return RefusedError(
        "keysource.exposed",
        f"{path} {why}",
        hint="a secret's file is a plain file of the service's user: chown it and chmod 0600",
    )
