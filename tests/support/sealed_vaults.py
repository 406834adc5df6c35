"""Models sealed in a vault whose store is open to damage, and what of it each byte needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from scenes import CHEAP, PASSPHRASE, Scene
from vault_scenes import safetensors

from modelkeep.core.artifact import parsed_reference
from modelkeep.core.entry import Entry
from modelkeep.core.names import key_id_of
from modelkeep.core.record import from_msgpack, replaced
from modelkeep.core.rows import Applied
from modelkeep.crypto.aead import TAG_BYTES
from modelkeep.flows.keep import OpenKeep, current_head, current_snapshot
from modelkeep.flows.registry import HeldVersion, held_version
from modelkeep.ports.load_proofs import NO_LOAD_PROOFS
from modelkeep.ports.store import Store
from modelkeep.sdk.keep import Keep
from modelkeep.testing.memory import MemoryStore
from modelkeep.testing.power import Fuse
from modelkeep.vault.index import Index, Pack
from modelkeep.vault.objects import opened_object
from modelkeep.vault.pack import Segment
from modelkeep.vault.settings import VaultSettings
from modelkeep.vault.snapshot import RecipeFile

KINDS = ("pack", "index", "recipe", "envelope", "snapshot", "head")
TENSORS = ("w0", "w1", "w2")
Files = dict[str, bytes]
Family = dict[str, Files]


def onnx_model(weights: Sequence[np.ndarray]) -> bytes:
    """A chain of matrices; models of the same shapes have the same layout, byte by byte."""
    nodes, into = [], "x"
    for name in TENSORS:
        nodes.append(helper.make_node("MatMul", [into, name], [f"{name}.out"]))
        into = f"{name}.out"
    sizes = (("x", weights[0].shape[0]), (into, weights[-1].shape[1]))
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name, size in sizes
    ]
    given = [
        numpy_helper.from_array(each, name) for name, each in zip(TENSORS, weights, strict=True)
    ]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], given)
    imports = [helper.make_opsetid("", 17)]
    raw: bytes = helper.make_model(graph, opset_imports=imports, ir_version=9).SerializeToString()
    return raw


def matrices(seed: int, side: int) -> list[np.ndarray]:
    """Weights of one model."""
    random = np.random.default_rng(seed)
    shapes = ((side, 20), (20, side), (side, 16))
    return [random.standard_normal(shape).astype(np.float32) for shape in shapes]


def tuned(array: np.ndarray, by: int) -> np.ndarray:
    """Nearly the same numbers: what a delta is small for."""
    found: np.ndarray = (array.view(np.uint32) ^ np.uint32(by)).view(np.float32)
    return found


def two_and_one(side: int) -> Family:
    """Two versions of `a`, and a `b` of the same sizes; they share some chunks."""
    first, other = matrices(1, side), matrices(2, side)
    second = [first[0], tuned(first[1], 5), tuned(first[2], 9)]
    return {
        "a:1": {"a.onnx": onnx_model(first)},
        "a:2": {"a.onnx": onnx_model(second)},
        "b:1": {"b.onnx": onnx_model([other[0], other[1], first[2]])},
    }


# Without its highest bit an exponent of BF16 stands for a number, not for infinity or NaN.
FINITE = np.uint16(0xBFFF)


def folder_of_two(side: int) -> Files:
    """A model of two files."""
    return {
        f"{number}.safetensors": safetensors(
            {
                f"t{number}.{each}": matrix.view(np.uint16).ravel() & FINITE
                for each, matrix in enumerate(matrices(3 + number, side)[:2])
            }
        )
        for number in range(2)
    }


class Facts:
    """A Recorder that remembers."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def record(self, entries: Sequence[Entry]) -> int:
        self.entries += entries
        return len(self.entries) - len(entries)


class Standing:
    """A State that stands where it was: no aliases, and one head."""

    def __init__(self, applied: Applied) -> None:
        self._applied = applied

    def applied(self) -> Applied:
        return self._applied

    def apply(self, first: int, entries: Sequence[Entry]) -> None:
        raise AssertionError((first, entries))

    def rows(self, kind: type[Any]) -> tuple[Any, ...]:
        del kind
        return ()

    def revision(self) -> int:
        return 0

    def close(self) -> None:
        pass


class Proofs:
    """LoadProofs in a set."""

    def __init__(self, known: Iterable[bytes] = ()) -> None:
        self.known = set(known)

    def knows(self, what: bytes) -> bool:
        return what in self.known

    def note(self, what: bytes) -> None:
        self.known.add(what)


def over(opened: OpenKeep, objects: dict[str, bytes], applied: Applied | None = None) -> OpenKeep:
    """The keep over a copy of these objects; what it records stays beside it."""
    store = MemoryStore(opened.store.label)
    store.objects = dict(objects)
    return replace(
        opened,
        stores=(store,),
        state=Standing(applied or opened.state.applied()),
        recorder=Facts(),
        history=lambda _: iter(()),
        load_proofs=NO_LOAD_PROOFS,
    )


def objects_of(store: Store) -> dict[str, bytes]:
    """Everything that a store holds."""
    return {each.name: store.get(each.name) for each in list(store.list(""))}


# ---- what was sealed, and what of a store each byte of it needs ---------------------------------


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk of a file, and everything in the store that it is read from."""

    path: str
    start: int
    length: int
    pack: str
    segment: Segment
    needs: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Sealed:
    """One version: its plaintext, and what in a store it needs."""

    reference: str
    files: dict[str, bytes]
    found: HeldVersion
    core: tuple[str, ...]  # objects without any of which nothing of it can be read
    chunks: tuple[Chunk, ...]

    def lacks(self, whole: dict[str, bytes], objects: dict[str, bytes]) -> bool:
        """Whether what nothing of it can be read without is not as it was."""
        return any(objects.get(name) != whole[name] for name in self.core)

    def hit(self, whole: dict[str, bytes], objects: dict[str, bytes]) -> list[Chunk]:
        """The chunks of which anything is not as it was."""
        changed = {name for name, raw in whole.items() if objects.get(name) != raw}
        return [
            each
            for each in self.chunks
            if any(
                name in changed and objects.get(name, b"")[start:end] != whole[name][start:end]
                for name, start, end in each.needs
            )
        ]

    def tensor(self, name: str) -> tuple[str, int, int]:
        """Where a tensor lies: path, start, length."""
        for entry in self.found.proof.manifest.files:
            for each in entry.tensors:
                if each.name == name:
                    return entry.path, each.offset, each.length
        raise AssertionError(name)

    @cached_property
    def tensors(self) -> list[str]:
        files = self.found.proof.manifest.files
        return [each.name for entry in files for each in entry.tensors]

    @property
    def is_servable(self) -> bool:
        return self.found.proof.manifest.schema is not None


def sealed_of(keep: OpenKeep, reference: str, files: dict[str, bytes]) -> Sealed:
    """What a version is read from, in a store that is whole."""
    reader = keep.reader()
    snapshot = current_snapshot(keep, reader)
    found = held_version(keep, reader, snapshot, parsed_reference(reference))
    manifest = found.proof.manifest
    (entry,) = [
        each
        for each in snapshot.artifacts
        if (each.name, each.version) == (manifest.name, manifest.version)
    ]
    index = reader.index_of(keep.store, found.key_id)
    listed = _indexes(keep, found.key_id)

    def needs(pack: Pack, segment: Segment) -> Iterator[tuple[str, int, int]]:
        end = segment.offset + segment.payload_bytes + TAG_BYTES
        yield pack.name, segment.offset, end
        yield listed[pack.name], 0, 1 << 30
        if segment.base:
            base = index.find(segment.base)
            assert base is not None
            yield from needs(*base)

    def chunks(file: RecipeFile) -> Iterator[Chunk]:
        start = 0
        for chunk_id, length in file.chunks:
            ((pack, segment),) = index.find_all(chunk_id)
            wanted = tuple(needs(pack, segment))
            yield Chunk(file.path, start, length, pack.name, segment, wanted)
            start += length

    every = tuple(each for file in found.recipe.files for each in chunks(file))
    core = (current_head(keep).snapshot, entry.envelope, entry.recipe)
    return Sealed(reference, files, found, core, every)


def _indexes(keep: OpenKeep, key_id: str) -> dict[str, str]:
    """Pack -> the index that names it."""
    found = {}
    for stat in keep.store.list(f"index/{key_id}/"):
        domain = keep.domains.of(stat.name)
        raw = keep.store.get(stat.name)
        body = opened_object(stat.name, raw, kind="index", domain=domain, public=keep.public)
        for pack in from_msgpack(Index, body, what=stat.name).packs:
            assert key_id_of(pack.name) == key_id
            found[pack.name] = stat.name
    return found


# ---- a keep of them -----------------------------------------------------------------------------


@dataclass
class Vault:
    """A store as it is, as it was after each commit, and the models in it."""

    keep: OpenKeep
    images: list[dict[str, bytes]]
    models: list[Sealed]

    @property
    def whole(self) -> dict[str, bytes]:
        return self.images[-1]

    def names(self, *kinds: str) -> list[str]:
        return [name for name in self.whole if name.partition("/")[0] in (kinds or KINDS)]

    def segments(self) -> list[tuple[str, int, int]]:
        """Every segment once: pack, start, end."""
        return sorted({chunk.needs[0] for model in self.models for chunk in model.chunks})

    def model(self, reference: str) -> Sealed:
        return next(each for each in self.models if each.reference == reference)


def vault_of(opened: OpenKeep, images: list[dict[str, bytes]], models: Family) -> Vault:
    """What lies in a store."""
    keep = over(opened, images[-1])
    return Vault(keep, images, [sealed_of(keep, *each) for each in models.items()])


def admitted(keep: Keep, folder: Path, models: Family, segment_bytes: int) -> Iterator[str]:
    """Admit them one after the other, cut small."""
    vault = VaultSettings(segment_bytes=segment_bytes, pack_bytes=3 * segment_bytes)
    keep.config = replaced(keep.config, vault=vault)
    for reference, files in models.items():
        place = folder / reference
        place.mkdir()
        for path, raw in files.items():
            (place / path).write_bytes(raw)
        source = place if len(files) > 1 else place / next(iter(files))
        base = "a:1" if reference == "a:2" else ""
        assert keep.admit(source, name=reference.partition(":")[0], base=base).is_new
        yield reference


@contextmanager
def sealed_vault(folder: Path, encoding: str) -> Iterator[Vault]:
    """A keep of these models whose store encodes so."""
    scene = Scene(folder)
    with Keep.create(
        scene.keep_path,
        passphrase=PASSPHRASE,
        encoding=encoding,
        argon2=CHEAP,
        world=scene.world(Fuse()),
    ) as keep:
        models = two_and_one(32) | {"c:1": folder_of_two(32)}
        images = [objects_of(keep.opened.store) for _ in admitted(keep, folder, models, 1024)]
        yield vault_of(keep.opened, images, models)
