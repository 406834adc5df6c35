"""Loading: a model's plaintext straight into memory that the caller provides, proven.

manifest verified -> policy asked -> memory -> segments decrypted in place -> bound to the manifest

The first load on a host hashes every file against the signed manifest, while it is decrypted. That
is remembered; later loads of the same version there lean on the AEAD tags, which bind every
segment to its chunk's id, and on the recipe, which names those ids and is the same object.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from modelkeep.core.artifact import FileEntry, Manifest, ModelReference
from modelkeep.core.errors import IntegrityError
from modelkeep.core.policy import Use
from modelkeep.core.record import replaced
from modelkeep.flows.keep import OpenKeep, current_snapshot, record_damages
from modelkeep.flows.permission import demand_use
from modelkeep.flows.registry import HeldVersion, held_version, naming_tensors
from modelkeep.kernels.digest import Digester
from modelkeep.seal.trust import VerifiedManifest, demand_entry
from modelkeep.vault.direct import filled
from modelkeep.vault.load import Reader

# Where a file begins in memory: at a page, so that tensors are as aligned as in their file.
PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class LoadedFile:
    """One file in memory."""

    entry: FileEntry
    raw: memoryview


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A version in memory, proven to be the one that was signed.

    Attributes:
        files: in the order of the manifest, one after the other in what `allocate` gave; those
            only that were asked for.
        is_hashed: whether the plaintext was hashed now; else it was before, on this host.
    """

    proof: VerifiedManifest
    files: tuple[LoadedFile, ...]
    is_hashed: bool


def loaded(
    keep: OpenKeep,
    reference: ModelReference,
    *,
    use: Use,
    allocate: Callable[[int], memoryview],
    place: Callable[[FileEntry], memoryview] | None = None,
    demand: Callable[[Manifest], None] = lambda _: None,
    only: Callable[[Manifest], Collection[str]] | None = None,
    reader: Reader | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> LoadedModel:
    """Decrypt the files of a version into memory, and prove them.

    What was damaged on the way and healed is recorded in the ledger. After an error the memory
    holds nothing that was not proven, as far as it was written at all, but is not to be used.

    Args:
        allocate: gives a writable view of exactly that many bytes: every file, each from a multiple
            of `PAGE_BYTES` on.
        place: gives room for each file by itself instead; `allocate` is not called then.
        demand: may refuse the manifest before anything is allocated.
        only: the paths of the files that are needed; the others stay sealed.

    Raises:
        MissingError: `model.unknown`.
        RefusedError: `policy.*`.
        IntegrityError: `seal.digest`; `model.damaged`, naming model, version and tensors, when no
            store has a good copy of a chunk.
    """
    reader = reader or keep.reader()
    try:
        found = held_version(keep, reader, current_snapshot(keep, reader), reference)
        manifest = found.proof.manifest
        demand(manifest)
        demand_use(keep, manifest, use)
        entries = _wanted(manifest, only)
        places = [place(each) for each in entries] if place else _places(entries, allocate)
        what = _said(found, entries)
        is_hashed = not any(map(keep.load_proofs.knows, {what, _said(found, manifest.files)}))
        recipes = {each.path: each for each in found.recipe.files}
        files = []
        # Hashing costs as much as reading and decrypting: each is given half of the cores.
        half = max(1, reader.workers.count // 2) if is_hashed else 0
        with naming_tensors(manifest):
            for entry, raw in zip(entries, places, strict=True):
                file = LoadedFile(entry, raw)
                recipe = recipes[entry.path]
                work = filled(reader, file.raw, recipe, key_id=found.key_id, at_once=half)
                with closing(work) as parts:
                    done = _hashed(parts, found, file, threads=half) if is_hashed else parts
                    for part in done:
                        progress(len(part))
                files.append(file)
        if is_hashed:
            keep.load_proofs.note(what)
    finally:
        record_damages(keep, reader.damages)
        reader.damages.clear()
    return LoadedModel(found.proof, tuple(files), is_hashed)


def _hashed(
    parts: Iterator[memoryview], found: HeldVersion, file: LoadedFile, *, threads: int
) -> Iterator[memoryview]:
    """Hash a file while it arrives; what is not the file that was signed is zeroed.

    Raises:
        IntegrityError: `seal.digest`.
    """
    digester = Digester(threads=threads)
    for part in parts:
        digester.update(part)
        yield part
    got = replaced(file.entry, digest=digester.digest())
    try:
        demand_entry(found.proof, got)
    except IntegrityError:
        file.raw[:] = bytes(len(file.raw))
        raise


def _wanted(
    manifest: Manifest, only: Callable[[Manifest], Collection[str]] | None
) -> tuple[FileEntry, ...]:
    if only is None:
        return manifest.files
    paths = frozenset(only(manifest))
    return tuple(each for each in manifest.files if each.path in paths)


def _places(
    entries: Sequence[FileEntry], allocate: Callable[[int], memoryview]
) -> list[memoryview]:
    """Where each file goes in one memory."""
    starts, end = [], 0
    for entry in entries:
        start = -(-end // PAGE_BYTES) * PAGE_BYTES
        starts.append(start)
        end = start + entry.size_bytes
    memory = allocate(end)
    return [
        memory[start : start + entry.size_bytes]
        for entry, start in zip(entries, starts, strict=True)
    ]


def _said(found: HeldVersion, entries: Sequence[FileEntry]) -> bytes:
    """What a first load proves: that this recipe's chunks are these files of this manifest."""
    whole = f"{found.proof.digest}\0{found.recipe_name}"
    if len(entries) == len(found.proof.manifest.files):
        return whole.encode()
    return "\0".join((whole, *(each.path for each in entries))).encode()
