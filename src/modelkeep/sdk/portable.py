"""An exported model without a keep: whole, by tensor, by byte range, every part of it proven.

    with PortableModel("fraud-3.model", identity=Path("me.key"), signed_by="mkv1…") as model:
        print(model.manifest.name, model.manifest.version)
        weights = model.tensor("layer.0")

Whoever is not demanded with `signed_by` may have made the file: `sender` says who did. What the
model's policy forbids is refused here too; a recipient's own programs are bound by it only as far
as their owner is (docs/design/portable-model.md).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Self

from modelkeep.adapters.appearing import appearing
from modelkeep.adapters.disk import RealDisk
from modelkeep.adapters.file_streams import file_source
from modelkeep.adapters.placed_file import placed_file
from modelkeep.core.artifact import Manifest
from modelkeep.core.policy import Use
from modelkeep.crypto.keytext import verifier_text
from modelkeep.crypto.sealed_file import unnamed_signer
from modelkeep.crypto.secret import Secret
from modelkeep.flows.portable import (
    OpenModel,
    file_into,
    opened_model,
    range_of,
    tensor_into,
)
from modelkeep.flows.portable_unpack import unpacked, unpacked_tensor
from modelkeep.flows.restore import NPY, RAW, SAFETENSORS, Target
from modelkeep.ports.workers import Workers
from modelkeep.sdk.contents import room
from modelkeep.sdk.sealing import Private, Public, demanded, openers_of
from modelkeep.seal.policy import demand_permitted
from modelkeep.seal.portable import FIRST_LINE
from modelkeep.seal.portable_outside import Outside, outside
from modelkeep.wiring import thread_workers

Progress = Callable[[int], None]


class PortableModel:
    """A file that a keep exported, open for reading where one likes; from several threads too.

    Args:
        identity: identity files, or identities.
        passphrase: opens it instead, where it was sealed under one.
        signed_by: verifiers (`mkv1…`, or a public file), one of whom must have sent it.
        actor: who reads, for a policy that names its loaders.

    Raises:
        RefusedError: `sealed.key`, `sealed.signer`, `portable.paths`.
        IntegrityError: `portable.*`, `sealed.*`.
        MissingError: `file.missing`.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        identity: Private | Iterable[Private] = (),
        passphrase: str | Secret | None = None,
        signed_by: Public | Iterable[Public] | None = None,
        actor: str = "",
    ) -> None:
        keys, signers = openers_of(identity, passphrase), demanded(signed_by)
        self._actor = actor
        with ExitStack() as stack:
            read_at, size_bytes = stack.enter_context(placed_file(Path(path)))
            self._workers: Workers = thread_workers()
            stack.callback(self._workers.close)  # type: ignore[attr-defined]
            self._model: OpenModel = opened_model(
                read_at, size_bytes, keys=keys, signers=signers, workers=self._workers
            )
            self._stack = stack.pop_all()

    @property
    def manifest(self) -> Manifest:
        """What the sender signed: files, tensors, policy, card."""
        return self._model.manifest

    @property
    def digest(self) -> str:
        """The identity of the model: the digest of its signed manifest."""
        return self._model.portable.proof.digest

    @property
    def sender(self) -> str:
        """Verifier (`mkv1…`) of who signed it, proven."""
        return verifier_text(self._model.portable.sender)

    @property
    def links(self) -> tuple[tuple[str, str], ...]:
        """Symbolic links in it: path, and what it says."""
        return self._model.portable.table.links

    def tensor(self, name: str, *, path: str = "") -> memoryview:
        """One tensor's bytes, proven; the path only where several files have one of that name.

        Raises:
            MissingError: `tensor.unknown`, `restore.path`.
            UsageError: `tensor.ambiguous`.
            IntegrityError: `portable.segment`, `tensor.digest`.
            RefusedError: `policy.*`.
        """
        self._demand(Use.LOAD)
        return tensor_into(self._model, room, path=path, name=name)

    def read(self, path: str, start: int, length: int) -> memoryview:
        """Some bytes of a file, each of its segments proven.

        Raises:
            MissingError: `restore.path`.
            UsageError: `restore.range`.
            IntegrityError: `portable.segment`.
            RefusedError: `policy.*`.
        """
        self._demand(Use.LOAD)
        file = self._model.file(path)
        return range_of(self._model, file, room, start=start, length=length)

    def load_into(
        self, target: memoryview, *, path: str = "", progress: Progress = lambda _: None
    ) -> None:
        """Decrypt a file in place, into memory of just its size; compare it with the manifest.

        Raises:
            MissingError: `restore.path`.
            UsageError: `restore.range`.
            IntegrityError: `portable.segment`, `seal.digest`.
            RefusedError: `policy.*`.
        """
        self._demand(Use.LOAD)
        file_into(self._model, self._model.file(path), target, progress=progress)

    def load(self, path: str = "", *, progress: Progress = lambda _: None) -> memoryview:
        """A file in fresh memory; its path may be left out where there is only one.

        Raises:
            KeepError: as `load_into`.
        """
        target = room(self.manifest.files[self._model.file(path)].size_bytes)
        self.load_into(target, path=path, progress=progress)
        return target

    def unpack(
        self,
        to: str | Path,
        *,
        path: str = "",
        tensor: str = "",
        force: bool = False,
        progress: Progress = lambda _: None,
    ) -> int:
        """Write all of it, what is below a path, or one tensor to a file or folder; how many bytes.

        It appears when all of it is proven. A tensor goes to a file `.npy` or `.safetensors` in
        that format, to others as its bytes.

        Raises:
            UsageError: `restore.exists`, `tensor.*`.
            MissingError: `restore.path`, `tensor.unknown`.
            IntegrityError: `portable.segment`, `seal.digest`, `tensor.digest`.
            RefusedError: `policy.*`.
        """
        self._demand(Use.RESTORE)
        target = Path(to)

        def opened(is_folder: bool) -> AbstractContextManager[Target]:  # noqa: FBT001 - one fact
            return appearing(RealDisk(), target, is_folder=is_folder, force=force)

        if tensor:
            form = next((each for each in (NPY, SAFETENSORS) if target.suffix == each), RAW)
            return unpacked_tensor(self._model, opened, room, path=path, name=tensor, form=form)
        return unpacked(self._model, opened, path=path, progress=progress).size_bytes

    def close(self) -> None:
        """Close the file; idempotent."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _demand(self, use: Use) -> None:
        demand_permitted(self.manifest, use, actor=self._actor, now_ns=time.time_ns())


def is_portable(path: Path) -> bool:
    """Whether a file begins as an exported model does.

    Raises:
        MissingError: `file.missing`.
        UsageError: `file.read`.
    """
    with file_source(path) as read:
        return read(len(FIRST_LINE)) == FIRST_LINE


def outside_of(path: Path) -> Outside:
    """What anybody can tell of an exported model without a key.

    Raises:
        MissingError: `file.missing`.
        IntegrityError: `portable.*`, `sealed.*`.
    """
    with file_source(path) as read:
        return outside(read)


def demand_sender(seen: Outside, signed_by: Public | Iterable[Public]) -> None:
    """Check that one of those whom you name sent a file that was not opened.

    Raises:
        RefusedError: `sealed.signer`.
        UsageError: `files.verifier`.
    """
    if seen.sender not in (demanded(signed_by) or ()):
        raise unnamed_signer(seen.sender)
