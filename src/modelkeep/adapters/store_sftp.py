"""A Store in a folder of another machine, over SFTP.

Write order of `put`: temporary file -> bytes durable (`fsync@openssh.com`) -> hard link under the
final name (`hardlink@openssh.com`, which fails if the name is taken) -> synced once more ->
temporary name removed. A crash leaves at most files in `.tmp`, which no name can reach. SFTP has
no way to sync a folder: the second sync carries the new name with the file on ext4, XFS and btrfs,
which write both in one transaction; POSIX does not promise it. A server without the two
extensions is refused (`store.extension`): OpenSSH has them since 6.3.

The host key is pinned, by a known_hosts file or its fingerprint; an unknown one is never accepted.
Nothing of the user's own SSH configuration, agent or keys is used. The library is asynchronous:
its loop runs in one thread, and calls from several threads share one connection, made at the first
call and again after it broke.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

import asyncssh

from modelkeep.adapters.store_guard import demand_bounded
from modelkeep.adapters.store_settings import StorePlace, StoreSettings
from modelkeep.core.errors import (
    IntegrityError,
    KeepError,
    MissingError,
    RefusedError,
    UnavailableError,
)
from modelkeep.core.limits import OBJECT_NAME_BYTES_MAX
from modelkeep.core.names import checked_object_name, is_object_name
from modelkeep.crypto.secret import Secret
from modelkeep.ports.store import ObjectStat

_TEMPORARY = ".tmp"
FOLDER_ENTRIES_MAX = 1_000_000  # packs lie in 256 folders: room for 256 million
KEEPALIVE_S = 15.0
CLOSE_S = 2.0  # how long the end of a process waits for a connection to close
_FOLDER = asyncssh.SFTPAttrs(permissions=0o700)
_FILE = asyncssh.SFTPAttrs(permissions=0o600)
_UNTAKEN = (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath, asyncssh.SFTPNotADirectory)
_Some = list[ObjectStat]
T = TypeVar("T")


class SftpStore:
    """Objects as files below a folder of another machine.

    Args:
        private_key: reads the key that we log in with, in OpenSSH's or PEM form.
    """

    def __init__(
        self, settings: StoreSettings, place: StorePlace, *, private_key: Callable[[], Secret]
    ) -> None:
        self.label = settings.label
        self._folder = place.folder.removeprefix("~/")
        self._settings = settings
        self._session = _Session(settings, place, private_key)
        self._loop = _LoopThread()
        weakref.finalize(self, self._loop.stop, self._session)

    def put(self, name: str, raw: bytes | memoryview) -> None:
        self._asked(name, self._put(self._path(name), bytes(raw), name), is_write=True)

    def get(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        return self._asked(name, self._read(self._path(name), name, start, length))

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        found = self._found(prefix.rpartition("/")[0], prefix)
        while True:
            some = self._asked(prefix, _next_of(found))
            if some is None:
                return
            yield from some

    def stat(self, name: str) -> ObjectStat | None:
        try:
            size_bytes = self._asked(name, self._size(self._path(name)))
        except MissingError:
            return None
        return ObjectStat(name=name, size_bytes=size_bytes)

    def delete(self, name: str) -> None:
        try:
            self._asked(name, self._remove(self._path(name)), is_write=True)
        except MissingError:
            return

    def _path(self, name: str) -> str:
        return f"{self._folder}/{checked_object_name(name)}"

    async def _put(self, path: str, raw: bytes, name: str) -> None:
        sftp = await self._session.client()
        temporary = f"{self._folder}/{_TEMPORARY}/{os.urandom(12).hex()}"
        if await _is_taken(sftp, path):
            await self._demand_same(sftp, path, raw, name)
            return
        await sftp.makedirs(f"{self._folder}/{_TEMPORARY}", _FOLDER, exist_ok=True)
        await sftp.makedirs(path.rpartition("/")[0], _FOLDER, exist_ok=True)
        try:
            async with sftp.open(temporary, "xb", _FILE) as file:
                await file.write(raw)
                await file.fsync()
                try:
                    await sftp.link(temporary, path)
                except asyncssh.SFTPError:
                    if not await _is_taken(sftp, path):
                        raise
                    await self._demand_same(sftp, path, raw, name)
                else:
                    await file.fsync()
        finally:
            await _removed(sftp, temporary)

    async def _demand_same(
        self, sftp: asyncssh.SFTPClient, path: str, raw: bytes, name: str
    ) -> None:
        """Check that an object has these bytes; whoever wrote it may not have synced it.

        Raises:
            IntegrityError: `store.exists`.
        """
        async with sftp.open(path, "rb") as file:
            found: object = await file.read(len(raw) + 1, 0)  # bytes: the mode is binary
            if found != raw:
                raise IntegrityError(
                    "store.exists",
                    f"{self.label}: {name} exists with other bytes",
                    hint="run `modelkeep check --repair`",
                    store=self.label,
                    object=name,
                )
            await file.fsync()

    async def _read(self, path: str, name: str, start: int, length: int | None) -> bytes:
        sftp = await self._session.client()
        async with sftp.open(path, "rb") as file:
            size_bytes = (await file.stat()).size or 0
            if length is None:
                demand_bounded(self.label, name, size_bytes)
            left = max(size_bytes - start, 0)
            count = left if length is None else min(length, left)
            raw = await file.read(count, start) if count else b""
        if not isinstance(raw, bytes) or len(raw) != count:
            raise self._unavailable(name, "it sent less than it announced")
        return raw

    async def _size(self, path: str) -> int:
        sftp = await self._session.client()
        return (await sftp.stat(path)).size or 0

    async def _remove(self, path: str) -> None:
        sftp = await self._session.client()
        await sftp.remove(path)

    async def _found(self, folder: str, prefix: str) -> AsyncIterator[_Some]:
        """What lies below a folder, a folder's worth at a time, in the order of the names."""
        sftp = await self._session.client()
        entries: list[tuple[str, int]] = []  # a folder's name ends with a slash: so they sort
        try:
            async for each in sftp.scandir(f"{self._folder}/{folder}"):
                name = str(each.filename)
                inside = f"{folder}/{name}" if folder else name
                is_folder = each.attrs.type == asyncssh.FILEXFER_TYPE_DIRECTORY
                if is_object_name(name) and len(inside) <= OBJECT_NAME_BYTES_MAX:
                    entries.append((inside + "/" * is_folder, each.attrs.size or 0))
                if len(entries) > FOLDER_ENTRIES_MAX:
                    raise UnavailableError(
                        "store.listing",
                        f"{self.label}: {folder} lists without end",
                        hint="this server cannot hold a store",
                    )
        except _UNTAKEN:
            return
        entries.sort()
        files: _Some = []
        for inside, size_bytes in entries:
            if not inside.endswith("/"):
                if inside.startswith(prefix):
                    files.append(ObjectStat(name=inside, size_bytes=size_bytes))
                continue
            if inside.startswith(prefix) or prefix.startswith(inside):
                yield files
                files = []
                async for some in self._found(inside[:-1], prefix):
                    yield some
        yield files

    def _asked(self, name: str, call: Coroutine[Any, Any, T], *, is_write: bool = False) -> T:
        """Run a call in the loop's thread; every error of the library becomes one of ours."""
        timeout_s = self._settings.timeout_s
        try:
            return self._loop.run(asyncio.wait_for(call, timeout_s))
        except KeepError:
            raise
        except _UNTAKEN:
            raise MissingError(
                "store.missing", f"{self.label}: no object {name}", store=self.label, object=name
            ) from None
        except asyncssh.HostKeyNotVerifiable as error:
            raise RefusedError(
                "store.host_key",
                f"{self.label}: the host's key is not the one in known_hosts",
                hint="somebody may be in between; compare it with the host's own before you pin it",
                store=self.label,
            ) from error
        except (asyncssh.PermissionDenied, asyncssh.SFTPPermissionDenied) as error:
            raise RefusedError(
                "store.denied",
                f"{self.label}: {name}: not permitted",
                hint="check the store's credentials and what they are allowed to do there",
                store=self.label,
            ) from error
        except asyncssh.SFTPOpUnsupported as error:
            raise RefusedError(
                "store.extension",
                f"{self.label}: the server lacks what durable writing needs",
                hint="OpenSSH's sftp-server has fsync@openssh.com and hardlink@openssh.com",
                store=self.label,
            ) from error
        except TimeoutError as error:
            self._session.forget()
            told = f"no answer in {timeout_s:.0f} s"
            raise self._unavailable(name, told, is_write=is_write) from error
        except (OSError, asyncssh.Error, asyncssh.SFTPError) as error:
            if not isinstance(error, asyncssh.SFTPFailure):
                self._session.forget()
            told = getattr(error, "reason", "") or str(error) or type(error).__name__
            raise self._unavailable(name, told, is_write=is_write) from error

    def _unavailable(self, name: str, told: str, *, is_write: bool = False) -> UnavailableError:
        return UnavailableError(
            "store.write" if is_write else "store.read",
            f"{self.label}: {name}: {told[:200]}",
            hint=f"check that {self._settings.url} can be reached and has room, then try again",
            store=self.label,
        )


class _Session:
    """One connection with one SFTP channel, made when it is needed."""

    def __init__(
        self, settings: StoreSettings, place: StorePlace, private_key: Callable[[], Secret]
    ) -> None:
        self._settings = settings
        self._place = place
        self._private_key = private_key
        self._connection: asyncssh.SSHClientConnection | None = None
        self._sftp: asyncssh.SFTPClient | None = None
        self._making = asyncio.Lock()

    async def client(self) -> asyncssh.SFTPClient:
        async with self._making:
            if self._sftp is None or self._connection is None or self._connection.is_closed():
                self._connection = await self._connected()
                self._sftp = await self._connection.start_sftp_client()
            return self._sftp

    def forget(self) -> None:
        """Let the next call connect anew."""
        self._sftp = None

    async def close(self) -> None:
        connection, self._connection, self._sftp = self._connection, None, None
        if connection is not None:
            connection.abort()
            await connection.wait_closed()

    async def _connected(self) -> asyncssh.SSHClientConnection:
        await self.close()
        pin = self._settings.known_hosts
        fingerprint = pin if pin.startswith("SHA256:") else ""
        raw = self._private_key().reveal()
        return await asyncssh.connect(
            self._place.host.strip("[]"),
            self._place.port,
            username=self._place.user,
            client_keys=[_key_of(raw)],
            client_factory=lambda: _PinnedClient(fingerprint),
            known_hosts=([], [], []) if fingerprint else pin,
            config=None,
            agent_path=None,
            preferred_auth="publickey",
            connect_timeout=self._settings.timeout_s,
            login_timeout=self._settings.timeout_s,
            keepalive_interval=KEEPALIVE_S,
        )


class _PinnedClient(asyncssh.SSHClient):
    """Trusts the host key of one fingerprint beside those of known_hosts; none if it is empty."""

    def __init__(self, fingerprint: str) -> None:
        self._fingerprint = fingerprint

    def validate_host_public_key(
        self, host: str, addr: str, port: int, key: asyncssh.SSHKey
    ) -> bool:
        """Whether to trust a key that known_hosts does not have."""
        del host, addr, port
        return bool(self._fingerprint) and key.get_fingerprint("sha256") == self._fingerprint


class _LoopThread:
    """An event loop in a thread of its own, started at the first call."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._serve, args=(self._loop,), daemon=True, name="sftp"
                )
                self._thread.start()
        pending: Future[T] = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            return pending.result()
        except BaseException:
            pending.cancel()
            raise

    def stop(self, session: _Session) -> None:
        """Close the connection and end the loop; wait for that, but not for ever."""
        loop, self._loop = self._loop, None
        if loop is None or self._thread is None:
            return
        asyncio.run_coroutine_threadsafe(session.close(), loop).add_done_callback(
            lambda _: loop.call_soon_threadsafe(loop.stop)
        )
        self._thread.join(CLOSE_S)

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.run_forever()
        loop.close()


def _key_of(raw: bytes) -> asyncssh.SSHKey:
    try:
        return asyncssh.import_private_key(raw)
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError, ValueError):
        raise IntegrityError(
            "store.credentials",
            "the private key of an SFTP store cannot be read",
            hint="an OpenSSH or PEM key without a passphrase; exec: can decrypt one",
        ) from None


async def _is_taken(sftp: asyncssh.SFTPClient, path: str) -> bool:
    try:
        await sftp.lstat(path)
    except _UNTAKEN:
        return False
    return True


async def _removed(sftp: asyncssh.SFTPClient, path: str) -> None:
    """Remove a temporary name; who may not remove leaves a second name of the object behind."""
    try:
        await sftp.remove(path)
    except (*_UNTAKEN, asyncssh.SFTPPermissionDenied):
        return


async def _next_of(found: AsyncIterator[_Some]) -> _Some | None:
    return await anext(found, None)
