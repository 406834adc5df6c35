"""The inbox: hand things in as a client, without a keep; as the owner let clients, accept, reject.

submit("runs/7", client=Path("trainer.client"), name="run-7")     # on the training machine
Inbox(keep).accept("0123456789abcdef")                            # on the owner's
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from modelkeep.adapters.file_streams import file_source, file_target, private_bytes
from modelkeep.adapters.store_settings import given_store
from modelkeep.adapters.stores import opened_store
from modelkeep.core.errors import PATH_HINT, MissingError, UsageError
from modelkeep.core.rows import InboxClient
from modelkeep.flows.clients import SIZE_BYTES_MAX, added_client, clients_of, revoked_client
from modelkeep.flows.inbox import Accepted, Rejected, accepted, rejected, rejected_all
from modelkeep.flows.inbox_view import InboxView, waiting
from modelkeep.flows.incoming import IncomingFile, Storing
from modelkeep.flows.incoming_store import stored_incoming
from modelkeep.flows.submit import Outgoing, Submitted, submitted
from modelkeep.kernels.formats import identify
from modelkeep.ports.store import Store
from modelkeep.vault.client_file import CLIENT_FILE_BYTES_MAX, Client, parsed_client_file
from modelkeep.vault.inbox import FILES_MAX
from modelkeep.wiring import system_clock, system_entropy

if TYPE_CHECKING:
    from modelkeep.sdk.keep import Keep

# What is looked at for the layout of these formats, which begin with it.
_HEAD_BYTES = 32 * 1024 * 1024
_HEAD_KINDS = ("safetensors", "gguf", "npy")
_MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # Python 3.11 does not name it


class Inbox:
    """Who may hand things in, and what they handed in."""

    def __init__(self, keep: Keep) -> None:
        self._keep = keep

    def add_client(
        self,
        name: str,
        to: Path,
        *,
        expires_ns: int,
        store: str = "",
        size_bytes_max: int = SIZE_BYTES_MAX,
    ) -> InboxClient:
        """Register a client and write its client file, which exists nowhere else.

        Args:
            to: the file; it must not exist.
            expires_ns: 0 for never.
            store: label of the store whose inbox it writes into; the first one unless given.
            size_bytes_max: of one submission's files.

        Raises:
            UsageError: `client.*`, `file.exists`.
            MissingError: `store.label`.
        """
        place = self._place_of(store)
        with file_target(self._keep.folder.world.disk, to) as write:
            row, text = added_client(
                self._keep.opened,
                name,
                store=place,
                expires_ns=expires_ns,
                size_bytes_max=size_bytes_max,
            )
            write(text.reveal())
        return row

    def clients(self) -> tuple[InboxClient, ...]:
        """All clients, by name."""
        return clients_of(self._keep.opened)

    def revoke_client(self, name: str) -> InboxClient:
        """Accept nothing more of a client, for good.

        Raises:
            MissingError: `client.unknown`.
        """
        return revoked_client(self._keep.opened, name)

    def waiting(self) -> InboxView:
        """What was handed in and is not settled; nothing is changed."""
        return waiting(self._keep.opened)

    def accept(
        self,
        reference: str,
        *,
        name: str = "",
        store: Storing | None = None,
        progress: Callable[[int], None] = lambda _: None,
    ) -> Accepted:
        """Prove a submission, have it stored, remove it from the inbox.

        Args:
            reference: its id, or `CLIENT/ID`.
            name: what to call it; what the client wanted unless given.
            store: stores it in another way than as files that are no model.

        Raises:
            MissingError, UsageError, RefusedError, IntegrityError: `inbox.*`.
        """
        keep = self._keep.opened
        vault = self._keep.config.vault
        storing = store or partial(stored_incoming, keep, look=_looked_at, vault=vault)
        return accepted(keep, reference, store=storing, name=name, progress=progress)

    def reject(self, reference: str) -> Rejected:
        """Remove a submission unread, or what is left of one.

        Raises:
            MissingError: `inbox.none`.
        """
        return rejected(self._keep.opened, reference)

    def reject_all(self, client: str) -> Rejected:
        """Remove all that a client has put into the inboxes.

        Raises:
            MissingError: `client.unknown`.
        """
        return rejected_all(self._keep.opened, client)

    def _place_of(self, label: str) -> str:
        """The folder or the address of a store; of who we are there, nothing."""
        stores = self._keep.config.stores
        for each in stores:
            if label in ("", each.label):
                return each.url or str(self._keep.folder.store_path(each).resolve())
        labels = ", ".join(each.label for each in stores)
        raise MissingError("store.label", f"there is no store {label[:80]!r}", hint=f"say {labels}")


def submit(
    path: str | Path,
    *,
    client: Path,
    name: str,
    store: str = "",
    progress: Callable[[int], None] = lambda _: None,
) -> Submitted:
    """Hand in a file, or all files below a folder. Needs no keep and no passphrase.

    Args:
        client: the client file.
        name: what the owner is asked to call it.
        store: folder of the store, where it is not mounted as it was for the owner; or its
            address with options, such as who we are there: `sftp://…?credentials=file:/…`.

    Raises:
        MissingError: `file.missing`.
        RefusedError: `file.readable`, `client.expired`.
        UsageError: `client.file`, `inbox.kind`, `inbox.path`, `model.name`.
        ConfigError: `store.*`, `reference.*`, `config.value`.
        UnavailableError: from the store; nothing was handed in then.
    """
    known = parsed_client_file(private_bytes(client, size_max=CLIENT_FILE_BYTES_MAX))
    target = _target(known, store)
    return submitted(
        tuple(_outgoing(Path(path))),
        client=known,
        name=name,
        put=target.put,
        clock=system_clock(),
        entropy=system_entropy(),
        progress=progress,
    )


def _target(client: Client, store: str) -> Store:
    """The store that a client puts into.

    A folder is asked whether it is a store of this keep: it may not be mounted. A store elsewhere
    is not: the client's rights there need not include reading.

    Raises:
        ConfigError: `store.*`, `reference.*`, `config.value`.
    """
    settings = given_store("inbox", store or client.store)
    return opened_store(settings, keep_id="" if settings.url else client.certificate.keep_id)


def total_bytes(path: str | Path) -> int:
    """How much `submit` would read, for a progress bar."""
    return sum(size_bytes for _, _, size_bytes in _found(Path(path)))


@contextmanager
def _looked_at(file: IncomingFile) -> Iterator[memoryview]:
    """The beginning of a file in memory of its size, whose other pages are never there.

    Nothing of a larger file whose format says only at its end where its tensors lie.
    """
    if not file.size_bytes:
        yield memoryview(b"")
        return
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
    private = mmap.mmap(-1, file.size_bytes, flags=flags)
    view = memoryview(private)
    try:
        file.read_into(0, view[:_HEAD_BYTES])
        is_told = file.size_bytes <= _HEAD_BYTES or identify(view) in _HEAD_KINDS
        yield view if is_told else view[:0]
    finally:
        # The traceback of what went wrong may hold slices: the last one of them unmaps.
        with suppress(BufferError), closing(private):
            view.release()


def _outgoing(path: Path) -> Iterator[Outgoing]:
    for each, below, _ in _found(path):
        yield Outgoing(path=below, open=partial(file_source, each))


def _found(path: Path) -> Iterator[tuple[Path, str, int]]:
    """Regular files with their paths below the folder, in one order; folders are what they make.

    Raises:
        MissingError: `file.missing`.
        UsageError: `inbox.kind`: a link might lead to what nobody meant to hand in.
    """
    for count, (each, below) in enumerate(_below(path)):
        try:
            found = each.stat() if each == path else each.lstat()
        except FileNotFoundError as error:
            raise MissingError(
                "file.missing", f"there is no file {each}", hint=PATH_HINT
            ) from error
        if not stat.S_ISREG(found.st_mode) or count >= FILES_MAX:
            raise UsageError(
                "inbox.kind",
                f"{each} is no regular file, or one too many",
                hint="links are not followed: copy what they lead to, or archive the folder",
            )
        yield each, below, found.st_size


def _below(path: Path) -> Iterator[tuple[Path, str]]:
    if not path.is_dir():
        yield path, path.name
        return
    for folder, folders, files in os.walk(path):
        folders.sort()
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        for name in sorted([*files, *links]):
            each = Path(folder) / name
            yield each, each.relative_to(path).as_posix()
