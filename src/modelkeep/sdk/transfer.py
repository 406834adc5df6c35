"""Artifacts on their way out of a keep and into one: copies, exports, imports."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from modelkeep.core.artifact import parsed_reference
from modelkeep.core.errors import UsageError
from modelkeep.crypto.kdf import Argon2Settings
from modelkeep.crypto.key_files import IDENTITY_FILE_BYTES_MAX, private_keys
from modelkeep.crypto.keytext import verifier_text
from modelkeep.crypto.locks import Key, Lock, Passphrase
from modelkeep.crypto.secret import Secret
from modelkeep.flows.admit import Admitted, Candidate, admitted
from modelkeep.flows.copy import CopyReport, copied
from modelkeep.flows.export import Exported, exported, received
from modelkeep.flows.keep import record
from modelkeep.sdk.keep import Keep
from modelkeep.sdk.sealing import Public, keys_of
from modelkeep.vault.streams import Plain

Progress = Callable[[int], None]


class Transfer:
    """What goes from an open keep to other places, and what comes from other keeps."""

    def __init__(self, keep: Keep) -> None:
        self._keep = keep

    def copy(
        self,
        *models: str,
        to: str,
        source: str = "",
        may_be_empty: bool = False,
        progress: Progress = lambda _: None,
    ) -> CopyReport:
        """Bring models to one store now, ahead of the next backup; without a name, all of them.

        Args:
            to: label of the store.
            source: label of the store that is read first; empty for the first one.
            may_be_empty: the store is new.

        Raises:
            UsageError: `copy.target`, `copy.store`.
            MissingError: `model.unknown`.
            UnavailableError: `backup.empty`, or from a store; the same call goes on.
            RefusedError: `backup.foreign`.
        """
        return copied(
            self._keep.opened,
            [parsed_reference(each) for each in models],
            target=to,
            source=source,
            vault=self._keep.config.vault,
            may_be_empty=may_be_empty,
            progress=progress,
        )

    def export(
        self,
        model: str,
        file: str | Path,
        *,
        to: Public | Iterable[Public] = (),
        passphrase: Secret | None = None,
        argon2: Argon2Settings | None = None,
        force: bool = False,
        progress: Progress = lambda _: None,
    ) -> Exported:
        """Write one version into one file that its recipients can open without this keep.

        The file is under a key of its own, and signed by the keep. It appears when it is whole.

        Args:
            to: `mkr1…`, the PEM text of an RSA key, or the path of a public file; one or several.
            passphrase: opens the file too.

        Raises:
            UsageError: `export.recipient`, `export.age`, `file.exists`, `key.*`.
            MissingError: `model.unknown`.
            IntegrityError: `model.damaged`.
        """
        from modelkeep.adapters.file_streams import file_target  # noqa: PLC0415

        locks = _locks(to, passphrase, argon2)
        reference = parsed_reference(model)
        disk = self._keep.folder.world.disk
        with file_target(disk, Path(file), force=force) as write:
            return exported(self._keep.opened, reference, write, locks=locks, progress=progress)

    def take_in(
        self,
        file: str | Path,
        *,
        name: str,
        identity: Sequence[Path] = (),
        passphrase: Secret | None = None,
        signed_by: Public | Iterable[Public] = (),
        domain: str = "",
        note: str = "",
        progress: Progress = lambda _: None,
    ) -> Admitted:
        """Admit a model from a file that another keep exported: proven, then scanned as any other.

        Args:
            name: that it gets here.
            identity: identity files.
            signed_by: verifiers (`mkv1…`) of keeps that are trusted, besides this one.

        Raises:
            RefusedError: `sealed.key`, `sealed.signer`, `seal.signer`, `verdict.*`.
            IntegrityError: `sealed.*`, `portable.*`, `seal.digest`.
        """
        from modelkeep.adapters.file_streams import file_source  # noqa: PLC0415

        opened = self._keep.opened
        trusted = (opened.public, *keys_of(signed_by).verifiers)
        keys = _keys(identity, passphrase)
        with ExitStack() as stack:
            read = stack.enter_context(file_source(Path(file)))

            def counted(size_bytes: int) -> bytes:
                got = read(size_bytes)
                progress(len(got))
                return got

            arrived = received(
                counted,
                keys=keys,
                trusted=trusted,
                allocate=lambda size_bytes: stack.enter_context(_memory(size_bytes)),
            )
            manifest = arrived.proof.manifest
            done = admitted(
                self._keep,
                Candidate(
                    name=name,
                    files=tuple(_plain(path, raw) for path, raw in arrived.files),
                    domain=domain,
                    canary=manifest.canary,
                    note=note or manifest.note,
                ),
                vault=self._keep.config.vault,
                scan=self._keep.config.scan,
            )
        record(
            self._keep.opened,
            "model.imported",
            {
                "model": done.name,
                "version": done.version,
                "manifest": arrived.proof.digest,
                "signer": verifier_text(arrived.proof.signer),
            },
        )
        return done


@contextmanager
def _memory(size_bytes: int) -> Iterator[memoryview]:
    """Memory of our own that goes back when the block ends."""
    whole = mmap.mmap(-1, max(size_bytes, 1))
    view = memoryview(whole)[:size_bytes]
    try:
        yield view
    finally:
        # The traceback of what went wrong may hold slices: the last one of them unmaps.
        with suppress(BufferError):
            view.release()
            whole.close()


def _plain(path: str, raw: memoryview) -> Plain:
    """A file that lies in our memory."""

    def read_into(start: int, target: memoryview) -> None:
        target[:] = raw[start : start + len(target)]

    return Plain(path=path, size_bytes=len(raw), read_into=read_into, raw=raw)


def _locks(
    to: Public | Iterable[Public], passphrase: Secret | None, argon2: Argon2Settings | None
) -> list[Lock]:
    """Who will be able to open it.

    Raises:
        UsageError: `export.recipient`, `export.age`.
    """
    keys = keys_of(to)
    if keys.age:
        raise UsageError(
            "export.age",
            "an exported model carries a signature over its recipients, which age has no place for",
            hint="name a recipient mkr1…: `modelkeep identity new` makes one",
        )
    locks: list[Lock] = list(keys.recipients)
    if passphrase is not None:
        locks.append(Passphrase(passphrase, argon2 or Argon2Settings()))
    if not locks:
        raise UsageError(
            "export.recipient",
            "nobody is named who could open it",
            hint="name a recipient (mkr1…, a public file) or a passphrase",
        )
    return locks


def _keys(identities: Sequence[Path], passphrase: Secret | None) -> list[Key]:
    """What may open it."""
    from modelkeep.adapters.file_streams import private_bytes  # noqa: PLC0415

    keys: list[Key] = []
    for each in identities:
        found = private_keys(private_bytes(each, size_max=IDENTITY_FILE_BYTES_MAX))
        keys += [*found.identities, *found.rsa]
    if passphrase is not None:
        keys.append(Passphrase(passphrase))
    return keys
