"""A keep's models in the forms of others: OMS signatures, CycloneDX, plain safetensors."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from modelkeep.adapters.appearing import appearing
from modelkeep.adapters.file_streams import file_target, small_bytes
from modelkeep.core.artifact import parsed_reference
from modelkeep.core.errors import MissingError, UsageError
from modelkeep.core.limits import CONFIG_BYTES_MAX
from modelkeep.crypto.ec_signatures import EcPublic, ec_public
from modelkeep.crypto.signing_chains import chained_key
from modelkeep.crypto.trusted import trusted_certificates
from modelkeep.flows.bom import bom
from modelkeep.flows.oms import (
    OmsSigned,
    OmsVerified,
    Subject,
    compared,
    oms_signed,
    oms_signer,
    oms_verified,
    version_subject,
)
from modelkeep.flows.plain_export import PlainTensors, plain_tensors
from modelkeep.flows.restore import Target
from modelkeep.sdk.files import steady, walked
from modelkeep.sdk.keep import Keep
from modelkeep.seal.bom import SPECS
from modelkeep.seal.oms import BUNDLE_BYTES_MAX, SHA256, WHOLE, Statement, verified_bundle
from modelkeep.seal.oms_files import checked_ignored

Progress = Callable[[int], None]
_BLOCK_BYTES = 1024 * 1024
# `mmap` of Python 3.11 does not name it: no swap is kept for pages that nobody writes to.
_MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)


class Interop:
    """What an open keep says to the tools of others, and what it takes from them."""

    def __init__(self, keep: Keep) -> None:
        self._keep = keep

    def oms_key(self) -> EcPublic:
        """The public key that verifies what this keep signs in the form of OMS."""
        return oms_signer(self._keep.opened).public

    def oms_sign(
        self,
        what: str | Path,
        output: str | Path,
        *,
        algorithm: str = SHA256,
        ignore: Iterable[str] = (),
        force: bool = False,
        progress: Progress = lambda _: None,
    ) -> OmsSigned:
        """Sign a version of the keep, or files that lie on a disk, for any tool that knows OMS.

        Args:
            what: a reference; or a path, which has a `/` in it where it is text.
            algorithm: `sha256`, which every tool knows, or `blake3`, for which a version is not
                even read.
            ignore: paths below the folder; those of git, and the output, are ignored anyway.

        Raises:
            UsageError: `oms.count`, `oms.other`, `oms.ignore`, `oms.subject` or `file.exists`.
            MissingError: `model.unknown` or `file.missing`.
            IntegrityError: `model.damaged`.
        """
        ignored = [*checked_ignored(ignore), *_inside(what, output)]
        disk = self._keep.folder.world.disk
        with (
            self._subject(what) as subject,  # before the output has a file, maybe in that folder
            file_target(disk, Path(output), force=force) as write,
        ):
            raw, done = oms_signed(
                self._keep.opened, subject, algorithm=algorithm, ignored=ignored, progress=progress
            )
            write(raw)
        return done

    def oms_verify(
        self,
        what: str | Path,
        signature: str | Path,
        *,
        key: str | Path | EcPublic | None = None,
        root: str | Path | None = None,
        ignore: Iterable[str] = (),
        progress: Progress = lambda _: None,
    ) -> OmsVerified:
        """Check files against a signature: nothing is missing, changed, or there and not listed.

        Args:
            what: as for `oms_sign`.
            key: PEM file of the signer's key; without it and a root, the keep's own key.
            root: PEM file of certificates, one of which must have vouched for the signer.
            ignore: paths that need not be signed, besides those that the signer ignored.

        Raises:
            RefusedError: `oms.signer`, `chain.untrusted` or `chain.usage`.
            IntegrityError: `oms.bundle`, `oms.statement`, `oms.files`, `oms.digest` or
                `ec.signature`.
            UsageError: `ec.key`, `oms.ignore`, `oms.other` or `oms.subject`.
            MissingError: `model.unknown` or `file.missing`.
        """
        if key is None and root is None:
            key = self.oms_key()
        statement = _statement(signature, key=key, root=root)
        ignored = [*checked_ignored(ignore), *_inside(what, signature)]
        with self._subject(what) as subject:
            return oms_verified(
                self._keep.opened, subject, statement, ignored=ignored, progress=progress
            )

    def bom(self, model: str, *, spec: str = SPECS[0]) -> bytes:
        """The CycloneDX document of a version, with its model card; the same bytes each time.

        Raises:
            MissingError: `model.unknown`.
        """
        return bom(self._keep.opened, parsed_reference(model), spec=spec)

    def safetensors(
        self,
        model: str,
        to: str | Path,
        *,
        path: str = "",
        force: bool = False,
        progress: Progress = lambda _: None,
    ) -> PlainTensors:
        """Write a version's tensors as safetensors; a version that is so already, as it went in.

        Args:
            to: a file; or a folder, for a version of several safetensors files.
            path: of the one file in it that is meant.

        Raises:
            RefusedError: `policy.*`.
            MissingError: `model.unknown` or `restore.path`.
            UsageError: `tensors.none`, `tensors.form`, `tensors.twice` or `restore.exists`.
            IntegrityError: `model.damaged` or `tensor.digest`; the target is then not there.
        """
        disk = self._keep.folder.world.disk

        def opened(is_folder: bool) -> AbstractContextManager[Target]:  # noqa: FBT001 - one fact
            return appearing(disk, Path(to), is_folder=is_folder, force=force)

        return plain_tensors(
            self._keep.opened,
            parsed_reference(model),
            opened,
            _sparse,
            path=path,
            progress=progress,
        )

    @contextmanager
    def _subject(self, what: str | Path) -> Iterator[Subject]:
        """Files on a disk, or a version.

        Raises:
            UsageError: `oms.subject`, for a word that could be either.
        """
        if _is_path(what):
            yield _folder_subject(Path(what))
            return
        with ExitStack() as stack:
            try:
                subject = stack.enter_context(
                    version_subject(self._keep.opened, parsed_reference(str(what)))
                )
            except (MissingError, UsageError) as error:
                if not Path(what).exists():
                    raise
                raise UsageError(
                    "oms.subject",
                    f"{what} is no model of this keep, and a path has a / in it",
                    hint=f"write ./{what}",
                ) from error
            yield subject


def verify_files(
    path: str | Path,
    signature: str | Path,
    *,
    key: str | Path | EcPublic | None = None,
    root: str | Path | None = None,
    ignore: Iterable[str] = (),
    progress: Progress = lambda _: None,
) -> OmsVerified:
    """Check files on a disk as `Interop.oms_verify` does, without a keep; nothing records it.

    Raises:
        KeepError: as `Interop.oms_verify`; without a key and a root nobody is believed.
    """
    statement = _statement(signature, key=key, root=root)
    ignored = [*checked_ignored(ignore), *_inside(Path(path), signature)]
    return compared(_folder_subject(Path(path)), statement, ignored=ignored, progress=progress)


def _statement(
    signature: str | Path, *, key: str | Path | EcPublic | None, root: str | Path | None
) -> Statement:
    """What a signature says, once it is known that the key, or who vouches for it, signed it."""
    raw = small_bytes(Path(signature), size_max=BUNDLE_BYTES_MAX)
    if isinstance(key, str | Path):
        key = ec_public(small_bytes(Path(key), size_max=CONFIG_BYTES_MAX))
    of_chain = None
    if root is not None:
        pem = small_bytes(Path(root), size_max=CONFIG_BYTES_MAX)
        roots = trusted_certificates(pem, what=str(root))

        def of_chain(chain: Sequence[bytes]) -> EcPublic:
            return chained_key(chain, roots=roots)

    return verified_bundle(raw, public=key, of_chain=of_chain)


def _is_path(what: str | Path) -> bool:
    return isinstance(what, Path) or "/" in what


def _inside(what: str | Path, file: str | Path) -> list[str]:
    """The path of a signature that lies in the folder that it is about."""
    if not _is_path(what):
        return []
    folder, place = Path(what).resolve(), Path(file).resolve()
    return [place.relative_to(folder).as_posix()] if folder in place.parents else []


def _folder_subject(root: Path) -> Subject:
    """What lies below a folder, or one file; each is read as it is when its turn comes.

    Raises:
        MissingError: `file.missing`.
        UsageError: `file.read`, `tree.*`; later `file.changed`.
    """
    found = walked(root)
    is_folder = bool(found.folders)
    places = {each.path if is_folder else WHOLE: found.place_of(each.path) for each in found.files}

    def blocks(paths: Sequence[str]) -> Iterator[tuple[str, memoryview]]:
        buffer = memoryview(bytearray(_BLOCK_BYTES))
        for path in paths:
            with steady(places[path], may_stream=True, follow=not is_folder) as file:
                for start in range(0, file.size_bytes, _BLOCK_BYTES):
                    block = buffer[: min(_BLOCK_BYTES, file.size_bytes - start)]
                    file.read_into(start, block)
                    yield path, block

    return Subject(
        name=root.resolve().name,
        sizes={each.path if is_folder else WHOLE: each.size_bytes for each in found.files},
        blocks=blocks,
        others=(*(path for path, _ in found.links), *found.skipped),
    )


def _sparse(size_bytes: int) -> memoryview:
    """Zeroed memory that takes what is written to it."""
    if not size_bytes:
        return memoryview(b"")
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
    return memoryview(mmap.mmap(-1, size_bytes, flags=flags))
