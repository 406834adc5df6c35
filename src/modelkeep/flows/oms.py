"""Signing models in the form of OMS, and verifying such signatures, of a keep or of a folder.

A subject is what stands to be signed: files with sizes, and a way to read them in order. A version
of the keep is read straight out of the store, each chunk proven and each file compared with the
signed manifest, and nothing of it is written anywhere. By BLAKE3 it need not be read at all: its
digests are in the manifest, which is signed already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from modelkeep.core.artifact import FileEntry, ModelReference
from modelkeep.core.entry import Fact
from modelkeep.core.errors import UsageError
from modelkeep.core.record import Record
from modelkeep.crypto.ec_signatures import EcSigner
from modelkeep.flows.keep import OpenKeep, current_snapshot, record, record_damages
from modelkeep.flows.registry import HeldVersion, held_version, naming_tensors
from modelkeep.kernels.digest import Digester
from modelkeep.seal.oms import BLAKE3, GIT_PATHS, WHOLE, Statement, signed_bundle
from modelkeep.seal.oms_files import FileDigest, demand_digests, demand_listed, looked_at
from modelkeep.seal.trust import demand_entry
from modelkeep.vault.load import Reader

# The bytes of files, in order: each valid until the next is asked for.
Blocks = Callable[[Sequence[str]], Iterator[tuple[str, memoryview]]]


@dataclass(frozen=True, slots=True)
class Subject:
    """What is signed or verified.

    Attributes:
        sizes: of its files in bytes, by path below it; the path of a single file is `.`.
        blocks: gives the bytes of some of the files.
        others: paths of what is neither file nor folder.
        known: digests by BLAKE3, in hex, that are proven already.
        facts: what the ledger says of it.
    """

    name: str
    sizes: Mapping[str, int]
    blocks: Blocks
    others: tuple[str, ...] = ()
    known: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Fact] = field(default_factory=dict)


class OmsSigned(Record, frozen=True):
    """What was signed.

    Attributes:
        root: digest over the digests of all files, SHA-256 in hex.
        key: fingerprint of the key, SHA-256 of its PEM text.
        ignored: files that nothing is said of.
    """

    subject: str
    root: str
    algorithm: str
    files: int
    key: str
    ignored: tuple[str, ...]


class OmsVerified(Record, frozen=True):
    """What was found to be as it was signed; the fields are those of `OmsSigned`.

    Attributes:
        signed_name: what the signer called it.
    """

    subject: str
    root: str
    algorithm: str
    files: int
    key: str
    ignored: tuple[str, ...]
    signed_name: str


def oms_signer(keep: OpenKeep) -> EcSigner:
    """The keep's own key for formats that want an elliptic curve; it comes with its identity."""
    return EcSigner(keep.keys.oms)


def oms_signed(
    keep: OpenKeep,
    subject: Subject,
    *,
    algorithm: str,
    ignored: Sequence[str] = (),
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[bytes, OmsSigned]:
    """Sign what there is, but for what git keeps beside it, as the public tool does; the bundle.

    Raises:
        UsageError: `oms.count` or `oms.other`.
        IntegrityError: `model.damaged` or `seal.digest`.
    """
    ignored = (*GIT_PATHS, *ignored)
    counted, passed = looked_at(subject.sizes, ignored)
    _demand_files_only(subject, ignored)
    digests = {
        path: found
        for path, (found,) in _digests(subject, counted, algorithm, 0, progress=progress)
    }
    signer = oms_signer(keep)
    bundle = signed_bundle(
        subject.name, digests, algorithm=algorithm, ignored=ignored, signer=signer
    )
    done = OmsSigned(
        subject=subject.name,
        root=bundle.root,
        algorithm=algorithm,
        files=len(digests),
        key=signer.public.fingerprint,
        ignored=tuple(sorted(passed)),
    )
    record(
        keep,
        "model.oms_signed",
        {
            "subject": subject.name,
            "root": bundle.root,
            "files": len(digests),
            "key": done.key,
            **subject.facts,
        },
    )
    return bundle.raw, done


def oms_verified(
    keep: OpenKeep,
    subject: Subject,
    statement: Statement,
    *,
    ignored: Sequence[str] = (),
    progress: Callable[[int], None] = lambda _: None,
) -> OmsVerified:
    """Check as `compared` does, and record that it was so.

    Raises:
        KeepError: as `compared`.
    """
    done = compared(subject, statement, ignored=ignored, progress=progress)
    record(
        keep,
        "model.oms_verified",
        {
            "subject": subject.name,
            "root": done.root,
            "files": done.files,
            "key": done.key,
            **subject.facts,
        },
    )
    return done


def compared(
    subject: Subject,
    statement: Statement,
    *,
    ignored: Sequence[str] = (),
    progress: Callable[[int], None] = lambda _: None,
) -> OmsVerified:
    """Check that files are exactly those of a statement whose signature was verified.

    Raises:
        UsageError: `oms.other`.
        IntegrityError: `oms.files`, `oms.digest`, `model.damaged` or `seal.digest`.
    """
    counted, passed = demand_listed(statement, subject.sizes, ignored)
    _demand_files_only(subject, (*statement.ignored, *ignored))
    found = _digests(
        subject, counted, statement.algorithm, statement.shard_bytes, progress=progress
    )
    for path, digests in found:
        demand_digests(statement, path, digests)
    return OmsVerified(
        subject=subject.name,
        root=statement.root,
        algorithm=statement.algorithm,
        files=len(counted),
        key=statement.key,
        ignored=passed,
        signed_name=statement.name,
    )


@contextmanager
def version_subject(keep: OpenKeep, reference: ModelReference) -> Iterator[Subject]:
    """A version of the keep as a subject; what reading came across is recorded in the end.

    Raises:
        MissingError: `model.unknown` or `model.alias`.
    """
    reader = keep.reader()
    try:
        found = held_version(keep, reader, current_snapshot(keep, reader), reference)
        recipe, manifest = found.recipe, found.proof.manifest
        is_folder = bool(recipe.folders) or len(recipe.files) != 1 or "/" in recipe.files[0].path
        names = {each.path: each.path if is_folder else WHOLE for each in recipe.files}
        yield Subject(
            name=f"{manifest.name}:{manifest.version}",
            sizes={names[each.path]: each.size_bytes for each in recipe.files},
            blocks=_blocks_of(reader, found, names),
            others=tuple(path for path, _ in recipe.links),
            known={names[each.path]: each.digest.partition(":")[2] for each in manifest.files},
            facts={
                "model": manifest.name,
                "version": manifest.version,
                "manifest": found.proof.digest,
            },
        )
    finally:
        record_damages(keep, reader.damages)


def _blocks_of(reader: Reader, found: HeldVersion, names: Mapping[str, str]) -> Blocks:
    """Read files of a version; each is compared with the manifest at its end."""
    files = {names[each.path]: each for each in found.recipe.files}

    def blocks(paths: Sequence[str]) -> Iterator[tuple[str, memoryview]]:
        digest = Digester()
        with naming_tensors(found.proof.manifest):
            chosen = (files[path] for path in paths)
            for file, offset, plain in reader.blocks_of(chosen, key_id=found.key_id):
                digest.update(plain)
                if offset + len(plain) == file.size_bytes:
                    got = FileEntry(
                        path=file.path, size_bytes=file.size_bytes, digest=digest.digest()
                    )
                    demand_entry(found.proof, got)
                    digest = Digester()
                yield names[file.path], plain

    return blocks


def _digests(
    subject: Subject,
    paths: Iterable[str],
    algorithm: str,
    shard_bytes: int,
    *,
    progress: Callable[[int], None],
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The digests of each file, those of empty ones last."""
    left = list(paths)
    if algorithm == BLAKE3 and not shard_bytes:
        for path in left:
            if path in subject.known:
                yield path, (subject.known[path],)
        left = [path for path in left if path not in subject.known]
    filled = [path for path in left if subject.sizes[path]]
    now, digest = "", FileDigest(algorithm, shard_bytes)
    for path, block in subject.blocks(filled):
        if path != now and now:
            yield now, digest.digests()
            digest = FileDigest(algorithm, shard_bytes)
        now = path
        digest.update(block)
        progress(len(block))
    if now:
        yield now, digest.digests()
    for path in left:
        if not subject.sizes[path]:
            yield path, FileDigest(algorithm, shard_bytes).digests()


def _demand_files_only(subject: Subject, ignored: Sequence[str]) -> None:
    counted, _ = looked_at(subject.others, ignored)
    if counted:
        raise UsageError(
            "oms.other",
            f"{counted[0][:200]!r} is a link, or no file at all, and no digest says where it leads",
            hint="put the file itself in its place, or leave it out with --ignore",
        )
