"""Every way to the plaintext of a sealed model, and what each gave out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from portable_files import WORDS
from sealed_vaults import Proofs, Sealed

from modelkeep.core.artifact import parsed_reference
from modelkeep.core.errors import KeepError
from modelkeep.core.policy import Use
from modelkeep.flows.export import exported
from modelkeep.flows.keep import OpenKeep, current_head
from modelkeep.flows.load import loaded
from modelkeep.flows.plain_export import plain_tensors
from modelkeep.flows.portable_stream import received
from modelkeep.flows.publish import published
from modelkeep.flows.restore import restored, streamed_file
from modelkeep.flows.tree import KeepTree
from modelkeep.sdk.contents import Warm

FILL = 0xAA  # what memory holds that nothing was written to


@dataclass
class Given:
    """What a way gave out: bytes by path and place; and how it ended.

    Attributes:
        wanted: the ranges that were asked for.
        memory: what was handed in to be filled, by path, with what nothing was written to as FILL.
    """

    wanted: list[tuple[str, int, int]]
    parts: list[tuple[str, int, bytes]] = field(default_factory=list)
    memory: dict[str, bytes] = field(default_factory=dict)
    error: KeepError | None = None

    @property
    def code(self) -> str:
        return self.error.code if self.error else "success"

    def put(self, path: str, start: int, block: bytes | memoryview) -> None:
        self.parts.append((path, start, bytes(block)))


Way = Callable[[OpenKeep, Sealed, Given], None]


def whole_of(model: Sealed) -> list[tuple[str, int, int]]:
    return [(path, 0, len(raw)) for path, raw in model.files.items()]


class _Target:
    """A Target whose blocks are remembered."""

    is_ordered = False

    def __init__(self, model: Sealed, given: Given) -> None:
        self._model, self._given = model, given

    @contextmanager
    def opened(self, is_folder: bool) -> Iterator[_Target]:  # noqa: FBT001 - the flow's signature
        assert is_folder == (len(self._model.files) > 1)
        yield self

    def begin(self, path: str, size_bytes: int) -> None:
        assert len(self._model.files[self._named(path)]) == size_bytes

    def write(self, path: str, start: int, block: memoryview) -> None:
        self._given.put(self._named(path), start, block)

    def end(self, path: str, *, mode: int, mtime_ns: int) -> None:
        del path, mode, mtime_ns

    def frame(self, folders: object, links: object) -> None:
        del folders, links

    def _named(self, path: str) -> str:
        return next(iter(self._model.files)) if path == "." else path


def restore(keep: OpenKeep, model: Sealed, given: Given) -> None:
    """`modelkeep restore`: into files that get their names in the end."""
    restored(keep, parsed_reference(model.reference), _Target(model, given).opened)


def stream(keep: OpenKeep, model: Sealed, given: Given) -> None:
    """`modelkeep cat`: into what cannot be taken back."""
    for path in model.files:
        done = [0]

        def write(block: memoryview, path: str = path, done: list[int] = done) -> None:
            given.put(path, done[0], block)
            done[0] += len(block)

        streamed_file(keep, parsed_reference(model.reference), path, write)


def tensor(keep: OpenKeep, model: Sealed, given: Given) -> None:
    """`Keep.tensor`."""
    ((path, start, length),) = given.wanted
    (name,) = [each for each in model.tensors if model.tensor(each) == (path, start, length)]
    given.put(path, start, Warm().tensor(keep, model.reference, path, name))


def byte_range(keep: OpenKeep, model: Sealed, given: Given) -> None:
    """`Keep.read`."""
    ((path, start, length),) = given.wanted
    raw = Warm().read(keep, model.reference, path, start=start, length=length)
    given.put(path, start, raw)


def first_load(keep: OpenKeep, model: Sealed, given: Given) -> None:
    """`Keep.load` on a host that never proved it: every file is hashed."""
    proofs = Proofs()
    _load(replace(keep, load_proofs=proofs), model, given, proofs)


def later_load(keep: OpenKeep, model: Sealed, given: Given) -> None:
    """`Keep.load` on a host that proved it before: the tags have to do."""
    proof = f"{model.found.proof.digest}\0{model.found.recipe_name}".encode()
    _load(replace(keep, load_proofs=Proofs([proof])), model, given, None)


def _load(keep: OpenKeep, model: Sealed, given: Given, proofs: Proofs | None) -> None:
    room = _Room()
    try:
        found = loaded(
            keep, parsed_reference(model.reference), use=Use.LOAD, allocate=room.allocate
        )
        for each in found.files:
            given.put(each.entry.path, 0, each.raw)
        assert found.is_hashed == (proofs is not None)
        assert proofs is None or proofs.known
    except KeepError:
        assert proofs is None or not proofs.known  # what failed is not remembered as proven
        given.memory = room.by_path(model)
        raise


def publish(keep: OpenKeep, model: Sealed, given: Given) -> None:
    """`modelkeep serve`: into memory that replicas will share."""
    room = _Room()
    reference = parsed_reference(model.reference)
    try:
        published(keep, reference, is_default=True, allocate=room.allocate)
    except KeepError:
        given.memory = room.by_path(model)
        raise
    for path, raw in room.by_path(model).items():
        given.put(path, 0, raw)


class _Room:
    """Memory as a load asks for it."""

    def __init__(self) -> None:
        self.views: list[memoryview] = []

    def allocate(self, size_bytes: int) -> memoryview:
        self.views.append(memoryview(bytearray([FILL]) * size_bytes))
        return self.views[-1]

    def by_path(self, model: Sealed) -> dict[str, bytes]:
        found, start = {}, 0
        for view in self.views:
            for entry in model.found.proof.manifest.files:
                found[entry.path] = bytes(view[start : start + entry.size_bytes])
                start = -(-(start + entry.size_bytes) // 4096) * 4096
        return found


def export(keep: OpenKeep, model: Sealed, given: Given) -> None:
    """`modelkeep export`: sealed again, to somebody else, who opens it."""
    sent = bytearray()

    def write(start: int, raw: bytes) -> None:
        sent[len(sent) :] = bytes(max(0, start + len(raw) - len(sent)))
        sent[start : start + len(raw)] = raw

    try:
        exported(keep, parsed_reference(model.reference), write, bytes, locks=[WORDS])
    except KeepError:
        assert not any(sent[:64]), "a file that nobody finished has a beginning"
        raise
    try:
        found = received(
            _reading(bytes(sent)),
            keys=[WORDS],
            trusted=[keep.public],
            allocate=_room,
        )
    except KeepError as error:
        raise AssertionError("what was exported does not open") from error
    for path, raw in found.files:
        given.put(path, 0, raw)


def _reading(raw: bytes) -> Callable[[int], bytes]:
    at = [0]

    def read(size_bytes: int) -> bytes:
        at[0] += size_bytes
        return raw[at[0] - size_bytes : at[0]]

    return read


def safetensors(keep: OpenKeep, model: Sealed, given: Given) -> None:
    """`modelkeep safetensors`: as it is if it is that already, else its tensors anew."""
    reference = parsed_reference(model.reference)
    if not model.is_servable:
        plain_tensors(keep, reference, _Target(model, given).opened, _room)
        return
    file = _Blocks()
    plain_tensors(keep, reference, file.opened, _room)
    head_bytes = 8 + int.from_bytes(file.raw[:8], "little")
    header = json.loads(file.raw[8:head_bytes])
    for name in model.tensors:
        path, start, length = model.tensor(name)
        at, end = (head_bytes + each for each in header[name]["data_offsets"])
        assert file.raw[at:end] == model.files[path][start : start + length]
    for path, raw in model.files.items():  # what lies around them was read, and is not given out
        given.put(path, 0, raw)


def _room(size_bytes: int) -> memoryview:
    return memoryview(bytearray(size_bytes))


class _Blocks:
    """A Target of one file."""

    is_ordered = True

    def __init__(self) -> None:
        self.raw = bytearray()

    @contextmanager
    def opened(self, is_folder: bool) -> Iterator[_Blocks]:  # noqa: FBT001 - the flow's signature
        assert not is_folder
        yield self

    def begin(self, path: str, size_bytes: int) -> None:
        self.raw += bytes(size_bytes)
        assert path == "."

    def write(self, path: str, start: int, block: memoryview) -> None:
        del path
        self.raw[start : start + len(block)] = block

    def end(self, path: str, *, mode: int, mtime_ns: int) -> None:
        del path, mode, mtime_ns

    def frame(self, folders: object, links: object) -> None:
        del folders, links


def mount(keep: OpenKeep, model: Sealed, given: Given) -> None:
    """`modelkeep mount`: chunk by chunk; one that fails says nothing of the others."""
    name, _, version = model.reference.partition(":")
    tree = KeepTree(keep.reader, current_head(keep), (), demand=lambda _: None)
    failure: KeepError | None = None
    for path, raw in model.files.items():
        file = tree.opened(f"models/{name}/{version}/{path}")
        at = 0
        while at < len(raw):
            piece = file.piece_at(at)
            assert piece is not None
            try:
                given.put(path, at, file.read(piece))
            except KeepError as error:
                failure = error
            at += piece.length
    if failure is not None:
        raise failure


WAYS: dict[str, Way] = {
    "restore": restore,
    "stream": stream,
    "first load": first_load,
    "later load": later_load,
    "export": export,
    "safetensors": safetensors,
    "mount": mount,
    "publish": publish,
    "tensor": tensor,
    "range": byte_range,
}


def ways_to(model: Sealed) -> list[str]:
    """The ways that there are to a model."""
    return [each for each in WAYS if each != "publish" or model.is_servable]


def taken(
    keep: OpenKeep, model: Sealed, way: str, wanted: tuple[str, int, int] | None = None
) -> Given:
    """Go one way to a model.

    Args:
        wanted: of a tensor or a range: path, start, length.
    """
    given = Given([wanted] if wanted else whole_of(model))
    try:
        WAYS[way](keep, model, given)
    except KeepError as error:
        given.error = error
    return given
