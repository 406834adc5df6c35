"""Artifacts on their way out of a keep and into one: copies, exports, imports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from modelkeep.adapters.appearing import appearing
from modelkeep.adapters.disk import RealDisk
from modelkeep.adapters.file_streams import file_source
from modelkeep.adapters.memory_file import OwnMemory
from modelkeep.core.artifact import parsed_reference
from modelkeep.core.entry import Fact
from modelkeep.core.errors import UsageError
from modelkeep.crypto.kdf import Argon2Settings
from modelkeep.crypto.keytext import verifier_text
from modelkeep.crypto.locks import Lock, Passphrase
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.stream import Read
from modelkeep.flows.admit import Admitted, admitted
from modelkeep.flows.candidate import Candidate
from modelkeep.flows.copy import CopyReport, copied
from modelkeep.flows.deposit import Also
from modelkeep.flows.export import Exported, exported
from modelkeep.flows.keep import record
from modelkeep.flows.portable_stream import Received, received
from modelkeep.flows.provenance import Claims
from modelkeep.sdk.dependencies import assessor
from modelkeep.sdk.keep import Keep
from modelkeep.sdk.sealing import Data, Public, keys_of, openers_of
from modelkeep.vault.streams import Plain
from modelkeep.wiring import canary_trial, scanner

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
            UsageError: `export.recipient`, `export.age`, `restore.exists`, `key.*`.
            MissingError: `model.unknown`.
            RefusedError: `policy.*`, `portable.paths`, `portable.large`.
            IntegrityError: `model.damaged`.
        """
        locks = _locks(to, passphrase, argon2)
        with appearing(RealDisk(), Path(file), is_folder=False, force=force) as target:
            target.begin(".", 0)

            def settle() -> None:
                target.end(".", mode=0o600, mtime_ns=-1)
                target.frame((), ())

            return exported(
                self._keep.opened,
                parsed_reference(model),
                lambda start, raw: target.write(".", start, memoryview(raw)),
                settle,
                locks=locks,
                progress=progress,
            )

    def take_in(
        self,
        file: str | Data,
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

        Its policy, card and canary come along, signed by this keep from now on; the ids of its
        watermarks do not, for they are registered where it comes from.

        Args:
            file: a path or a stream.
            name: that it gets here.
            identity: identity files.
            signed_by: verifiers (`mkv1…`) of keeps that are trusted, besides this one.

        Raises:
            RefusedError: `sealed.key`, `sealed.signer`, `seal.signer`, `verdict.*`.
            UsageError: `policy.bounds`.
            UnavailableError: `memory.full`.
            IntegrityError: `sealed.*`, `portable.*`, `seal.digest`.
        """
        opened = self._keep.opened
        trusted = (opened.public, *keys_of(signed_by).verifiers)
        keys = openers_of(identity, passphrase)
        with ExitStack() as stack:
            read = stack.enter_context(_reading(file))

            def counted(size_bytes: int) -> bytes:
                got = read(size_bytes)
                progress(len(got))
                return got

            arrived = received(
                counted,
                keys=keys,
                trusted=trusted,
                allocate=lambda size_bytes: stack.enter_context(OwnMemory(size_bytes)).view,
                workers=opened.workers,
            )

            entry = _imported(arrived, name)
            done = admitted(
                self._keep,
                _candidate(arrived, name=name, domain=domain, note=note),
                vault=self._keep.config.vault,
                scan=self._keep.config.scan,
                scanner=scanner(),
                admission=self._keep.config.admission,
                assess=assessor(self._keep.folder, self._keep.config.advisories),
                trial=canary_trial(),
                also=(entry,),
            )
        if not done.is_new:
            record(self._keep.opened, *entry(done.version))
        return done


def _imported(arrived: Received, name: str) -> Also:
    """Who sent it, in the same write to the ledger as that it was let in."""
    facts: dict[str, Fact] = {
        "model": name,
        "manifest": arrived.proof.digest,
        "signer": verifier_text(arrived.proof.signer),
    }
    return lambda version: ("model.imported", {**facts, "version": version})


def _candidate(arrived: Received, *, name: str, domain: str, note: str) -> Candidate:
    """What came in, as it asks to be admitted."""
    manifest = arrived.proof.manifest
    return Candidate(
        name=name,
        files=tuple(_plain(path, raw) for path, raw in arrived.files),
        domain=domain,
        canary=manifest.canary,
        claims=Claims(proven=verifier_text(arrived.proof.signer)),
        note=note or manifest.note,
        policy=manifest.policy,
        card=manifest.card,
        modes=arrived.modes,
        folders=arrived.folders,
        links=arrived.links,
    )


@contextmanager
def _reading(file: str | Data) -> Iterator[Read]:
    if not isinstance(file, str | Path):
        yield file.read
        return
    with file_source(Path(file)) as read:
        yield read


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
