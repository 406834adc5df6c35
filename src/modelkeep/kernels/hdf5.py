"""What an HDF5 file says beside its numbers: attributes, links to other files, filters.

Theory of operation (HDF5 File Format Specification 3.0). From the superblock to the root's object
header, from there over every link: symbol tables (B-tree, local heap), link messages, and the
fractal heaps of groups with many links. Each header is read once; whatever leads out of the file
is collected, numbers are never read. Messages in fractal heaps are taken from their blocks one
after the other, without the index: so deleted ones are seen too. Checksums are not held against the
bytes: what the library refuses is harmless. What is known to exist and not walked is listed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from modelkeep.core.errors import IntegrityError
from modelkeep.kernels import hdf5_bytes
from modelkeep.kernels.hdf5_bytes import UNDEFINED, Array, broken, elements

_MAGIC = b"\x89HDF\r\n\x1a\n"
_PLACES = (0, *(512 << power for power in range(12)))
OBJECTS_MAX = 200_000
MESSAGES_MAX = 2_000_000
TEXT_BYTES_MAX = 64 << 20
_CONTINUATIONS_MAX = 10_000
_HEAP_BLOCK_BYTES_MAX = 16 << 20
_SPACE, _LINK_INFO, _DATATYPE, _LINK, _EXTERNAL_FILES, _LAYOUT = 1, 2, 3, 6, 7, 8
_FILTERS, _ATTRIBUTE, _CONTINUATION, _SYMBOLS, _ATTRIBUTE_INFO = 0x0B, 0x0C, 0x10, 0x11, 0x15
_NEVER_SHARED = (_SPACE, _ATTRIBUTE, _LAYOUT, _FILTERS, _EXTERNAL_FILES)
_SHARED_OBJECT = 2
_SOFT, _EXTERNAL = 1, 64
_STRING, _VARIABLE = 3, 9
# Of version 2: that list large objects as they are, by a number and directly.
_PLAIN_TREES = (1, 3)
_BLOCKS = re.compile(rb"FHDB\x00")
_HEAP_MAGIC = b"FRHP\x00"


@dataclass(slots=True)
class Hdf5:
    """What was met.

    Attributes:
        attributes: (object, name, bytes) of attributes that hold text.
        externals: (object, how, file) of what opens another file.
        filters: numbers of the filters that reading the data needs.
        unwalked: what the format has and this reader does not follow.
        array_bytes: that all data sets take once they are read.
        whole_bytes: of those, what the file keeps in one piece each.
        stop: where the file ends by its own account.
    """

    attributes: list[tuple[str, str, bytes]] = field(default_factory=list)
    externals: list[tuple[str, str, str]] = field(default_factory=list)
    filters: set[int] = field(default_factory=set)
    unwalked: list[str] = field(default_factory=list)
    array_bytes: int = 0
    whole_bytes: int = 0
    stop: int = 0


def hdf5_layout(view: memoryview) -> Hdf5:
    """Walk every object that the root leads to.

    Raises:
        IntegrityError: `hdf5.broken`.
    """
    return _Reader(view).walked()


class _Reader:
    __slots__ = (
        "_base",
        "_blocks",
        "_found",
        "_heads",
        "_messages",
        "_pending",
        "_seen",
        "_text_bytes",
        "_view",
    )

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._found = Hdf5()
        self._base = 0
        self._messages = 0
        self._text_bytes = 0
        self._seen: set[int] = set()
        self._heads: set[int] = set()
        self._blocks: set[int] = set()
        self._pending: list[tuple[str, int]] = []

    def walked(self) -> Hdf5:
        self._pending.append(("/", self._superblock()))
        heaps = False
        while self._pending:
            path, at = self._pending.pop()
            if at in self._seen:
                continue
            self._seen.add(at)
            if len(self._seen) > OBJECTS_MAX:
                self._found.unwalked.append("more objects than are looked at")
                break
            array = Array()
            for kind, flags, start, length in self._header(at):
                self._sized(array, kind, start, is_shared=bool(flags & 2))
                if flags & 2 and kind in _NEVER_SHARED:
                    if kind != _FILTERS:
                        self._found.unwalked.append("a message that several objects share")
                    continue
                heaps = heaps or self._message(path, kind, start, length)
            self._sum(array)
            if heaps and not self._pending:
                heaps = False
                self._heaps()
        return self._found

    def _sized(self, array: Array, kind: int, at: int, *, is_shared: bool) -> None:
        """Note what a message says of its object's size."""
        if kind == _DATATYPE:
            array.item_bytes = self._item_bytes(at, is_shared=is_shared)
        elif kind == _SPACE and not is_shared:
            array.elements = elements(self._view, at)
        elif kind == _LAYOUT and not is_shared:
            array.is_array = True
            array.is_whole = hdf5_bytes.is_stored_whole(self._view, at)

    def _sum(self, array: Array) -> None:
        length = array.elements * array.item_bytes
        if array.is_array:
            self._found.array_bytes += length
            self._found.whole_bytes += length if array.is_whole else 0

    def _item_bytes(self, at: int, *, is_shared: bool) -> int:
        """Bytes of one element, by its type or by the named type that it points at."""
        if not is_shared:
            return self._number(at + 4, 4)
        version, where = self._number(at, 1), self._number(at + 1, 1)
        if version == 3 and where != _SHARED_OBJECT:
            self._found.unwalked.append("a type that several objects share")
            return 0
        named = self._number(at + (8 if version == 1 else 2), 8)
        for kind, flags, start, _ in self._header(named):
            if kind == _DATATYPE and not flags & 2:
                return self._number(start + 4, 4)
        raise broken("has a type that is not where it points", at)

    def _superblock(self) -> int:
        """Where the root's object header lies."""
        place = next((at for at in _PLACES if bytes(self._view[at : at + 8]) == _MAGIC), -1)
        if place < 0:
            raise broken("has no superblock", 0)
        version = self._number(place + 8, 1)
        if version not in (0, 1, 2, 3):
            raise broken(f"has a superblock of version {version}", place)
        is_old = version < 2
        sizes = place + (13 if is_old else 9)
        at = place + (24 + 4 * version if is_old else 12)
        if bytes(self._view[sizes : sizes + 2]) != b"\x08\x08":
            raise broken("has addresses of other than 8 bytes", sizes)
        base, second, stop, last = (self._number(at + 8 * n, 8) for n in range(4))
        if base not in (0, place):
            raise broken(f"has the base address {base}", at)
        self._base = place
        self._found.stop = stop + (place if stop + place <= len(self._view) else 0)
        if stop > len(self._view):
            raise broken(f"ends at {len(self._view)}, its superblock says {stop}", at)
        if is_old:
            if last != UNDEFINED:
                self._found.unwalked.append("a driver that spreads the file over others")
            return self._number(at + 40, 8)
        if second != UNDEFINED:  # the superblock's extension names drivers too
            self._pending.append(("(extension)", second))
        return last

    # ---- object headers ----

    def _header(self, at: int) -> Iterator[tuple[int, int, int, int]]:
        """Kind, flags, offset and length of every message of an object."""
        at += self._base
        is_new = bytes(self._view[at : at + 4]) == b"OHDR"
        blocks: list[tuple[int, int]] = []
        order = 0
        if is_new:
            flags = self._number(at + 5, 1)
            order = 2 if flags & 4 else 0
            after = at + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
            size_bytes = 1 << (flags & 3)
            blocks.append((after + size_bytes, self._number(after, size_bytes)))
        elif self._number(at, 1) == 1:
            blocks.append((at + 16, self._number(at + 8, 4)))
        else:
            raise broken("has an object header of an unknown version", at)
        count = 0
        while blocks:
            start, length = blocks.pop()
            self._hold(start, length)
            count += 1
            if count > _CONTINUATIONS_MAX:
                raise broken("has an object header without an end", at)
            for message in self._block(start, start + length, is_new=is_new, order=order):
                if message[0] == _CONTINUATION:
                    place, size = self._number(message[2], 8), self._number(message[2] + 8, 8)
                    place += self._base
                    self._hold(place, size)
                    blocks.append((place + 4, size - 8) if is_new and size >= 8 else (place, size))
                else:
                    yield message

    def _is_object(self, at: int) -> bool:
        head = bytes(self._view[at + self._base : at + self._base + 4])
        return head == b"OHDR" or head[:1] == b"\x01"

    def _block(
        self, at: int, stop: int, *, is_new: bool, order: int
    ) -> Iterator[tuple[int, int, int, int]]:
        head = 4 + order if is_new else 8
        while at + head <= stop:
            self._messages += 1
            if self._messages > MESSAGES_MAX:
                raise broken("has more messages than are looked at", at)
            if is_new:
                kind, length, flags = (
                    self._number(at, 1), self._number(at + 1, 2), self._number(at + 3, 1)
                )  # fmt: skip
            else:
                kind, length, flags = (
                    self._number(at, 2), self._number(at + 2, 2), self._number(at + 4, 1)
                )  # fmt: skip
            if at + head + length > stop:
                raise broken("has a message that leaves its header", at)
            yield kind, flags, at + head, length
            at += head + length

    def _message(self, path: str, kind: int, at: int, length: int) -> bool:
        """Note what a message says; return whether fractal heaps are to be looked at."""
        if kind == _LINK:
            self._link(path, at, at + length)
        elif kind == _ATTRIBUTE:
            self._attribute(path, at, at + length)
        elif kind == _SYMBOLS:
            self._symbols(path, self._number(at, 8), self._number(at + 8, 8))
        elif kind == _EXTERNAL_FILES:
            self._external_files(path, at)
        elif kind == _LAYOUT:
            self._layout(path, at)
        elif kind == _FILTERS:
            self._found.filters |= hdf5_bytes.filters(self._view, at, at + length)
        elif kind in (_LINK_INFO, _ATTRIBUTE_INFO):
            flags = self._number(at + 1, 1)
            skip = (8 if kind == _LINK_INFO else 2) if flags & 1 else 0
            heap = self._number(at + 2 + skip, 8)
            if heap != UNDEFINED:
                self._heap(heap + self._base)
            return heap != UNDEFINED
        return False

    # ---- links ----

    def _link(self, path: str, at: int, stop: int) -> int:
        """Follow one link message; return where it ends."""
        flags = self._number(at + 1, 1)
        if self._number(at, 1) != 1 or flags & 0xE0:
            raise broken("has a link of an unknown version", at)
        at += 2
        kind = 0
        if flags & 8:
            kind = self._number(at, 1)
            at += 1
        at += (8 if flags & 4 else 0) + (1 if flags & 16 else 0)
        size_bytes = 1 << (flags & 3)
        length = self._number(at, size_bytes)
        at += size_bytes
        if at + length + 2 > stop:
            raise broken("has a link that leaves its message", at)
        name = str(self._view[at : at + length], "utf-8", "replace")
        at += length
        where = f"{path.rstrip('/')}/{name}"[:500]
        if kind == 0:
            address = self._number(at, 8)
            if not self._is_object(address):  # in a heap, only what fits is a link
                raise broken("has a link to no object", at)
            self._pending.append((where, address))
            return at + 8
        size = self._number(at, 2)
        if at + 2 + size > stop:
            raise broken("has a link that leaves its message", at)
        value = bytes(self._view[at + 2 : at + 2 + size])
        if kind == _EXTERNAL:
            file = value[1:].partition(b"\0")[0].decode("utf-8", "replace")
            self._found.externals.append((where, "link", file))
        elif kind != _SOFT:
            self._found.externals.append((where, f"link of the user's kind {kind}", ""))
        return at + 2 + size

    def _symbols(self, path: str, tree: int, heap: int) -> None:
        heap += self._base
        if bytes(self._view[heap : heap + 4]) != b"HEAP":
            raise broken("has a group without names", heap)
        names = self._number(heap + 24, 8) + self._base
        names_stop = names + self._number(heap + 8, 8)
        pending, seen = [tree], set[int]()
        while pending:
            at = pending.pop() + self._base
            if at in seen or len(seen) > OBJECTS_MAX:
                raise broken("has a group whose tree leads in a circle", at)
            seen.add(at)
            signature = bytes(self._view[at : at + 4])
            if signature == b"TREE":
                count = self._number(at + 6, 2)
                pending.extend(self._number(at + 32 + 16 * n, 8) for n in range(count))
                continue
            if signature != b"SNOD":
                raise broken("has a group whose tree is damaged", at)
            for n in range(self._number(at + 6, 2)):
                entry = at + 8 + 40 * n
                start = names + self._number(entry, 8)
                if start >= names_stop:
                    raise broken("has a link whose name is elsewhere", entry)
                name = self._text(start, names_stop)
                if self._number(entry + 16, 4) != 2:  # a soft link stays in the file
                    where = f"{path.rstrip('/')}/{name}"[:500]
                    self._pending.append((where, self._number(entry + 8, 8)))

    def _heaps(self) -> None:
        """Links and attributes in the blocks of fractal heaps, whatever object they belong to."""
        for match in _BLOCKS.finditer(self._view):
            at = match.start()
            if at in self._blocks or at + 13 > len(self._view):
                continue
            self._blocks.add(at)
            heap = self._number(at + 5, 8) + self._base
            if bytes(self._view[heap : heap + 5]) != _HEAP_MAGIC or self._number(heap + 7, 2):
                continue  # what is filtered was noted with its header
            offset_bytes = (self._number(heap + 128, 2) + 7) // 8
            start = at + 13 + offset_bytes + (4 if self._number(heap + 9, 1) & 2 else 0)
            largest = min(self._number(heap + 120, 8), _HEAP_BLOCK_BYTES_MAX)
            self._heap_block(start, min(at + largest, len(self._view)))

    def _heap(self, heap: int) -> None:
        """The header of a heap: what lies beside its blocks."""
        if heap in self._heads:
            return
        self._heads.add(heap)
        if bytes(self._view[heap : heap + 5]) != _HEAP_MAGIC:
            raise broken("has a heap without a header", heap)
        if self._number(heap + 7, 2):
            self._found.unwalked.append("a heap whose blocks are filtered")
        elif self._number(heap + 102, 8):
            self._found.unwalked.append("a heap with objects in their own names")
        elif self._number(heap + 86, 8):
            self._beside(heap)

    def _beside(self, heap: int) -> None:
        """Attributes too large for a heap's blocks, which a tree of its own lists."""
        tree = self._number(heap + 22, 8) + self._base
        size, depth = self._number(tree + 10, 2), self._number(tree + 12, 2)
        kind, leaf = self._number(tree + 5, 1), self._number(tree + 16, 8) + self._base
        if depth or kind not in _PLAIN_TREES or size < 16:
            self._found.unwalked.append("a heap with many large objects beside it")
            return
        if bytes(self._view[leaf : leaf + 4]) != b"BTLF":
            raise broken("has a tree of large objects that is damaged", leaf)
        for n in range(self._number(tree + 24, 2)):
            at, length = (self._number(leaf + 6 + size * n + 8 * m, 8) for m in range(2))
            self._hold(at + self._base, length)
            self._attribute("(heap)", at + self._base, at + self._base + length)

    def _heap_block(self, at: int, stop: int) -> None:
        misses = 0
        while at + 4 <= stop and misses < 4096:
            self._messages += 1
            if self._messages > MESSAGES_MAX:
                raise broken("has more messages than are looked at", at)
            if bytes(self._view[at : at + 4]) in (b"FHDB", b"FHIB", b"FRHP", b"BTHD", b"BTLF"):
                return
            try:
                at = self._heap_message(at, stop)
                misses = 0
            except IntegrityError:
                at += 1
                misses += 1

    def _heap_message(self, at: int, stop: int) -> int:
        version = self._number(at, 1)
        if version == 1:
            return self._link("(heap)", at, stop)
        if version == 3:
            return self._attribute("(heap)", at, stop)
        raise broken("has no message here", at)

    # ---- attributes ----

    def _attribute(self, path: str, at: int, stop: int) -> int:
        """Keep an attribute's text; return where the message ends."""
        version = self._number(at, 1)
        if version not in (1, 2, 3):
            raise broken("has an attribute of an unknown version", at)
        name_bytes, type_bytes, space_bytes = (self._number(at + 2 + 2 * n, 2) for n in range(3))
        flags = self._number(at + 1, 1) if version > 1 else 0
        name_at = at + 8 + (1 if version == 3 else 0)
        step = 8 if version == 1 else 1
        type_at = name_at + -(-name_bytes // step) * step
        space_at = type_at + -(-type_bytes // step) * step
        data_at = space_at + -(-space_bytes // step) * step
        if data_at > stop:
            raise broken("has an attribute that leaves its message", at)
        name = self._text(name_at, name_at + name_bytes)
        if flags & 1:  # the type lies elsewhere: a named one
            self._found.unwalked.append(f"the named type of attribute {name!r:.60}")
            return data_at
        kind = self._number(type_at, 1) & 15
        size = self._number(type_at + 4, 4)
        count = elements(self._view, space_at)
        length = min(count * size, stop - data_at)
        if kind == _STRING:
            self._keep(path, name, data_at, length)
        elif kind == _VARIABLE:
            for n in range(min(length // 16, 100_000)):
                self._heap_text(path, name, data_at + 16 * n)
        return data_at + length

    def _keep(self, path: str, name: str, at: int, length: int) -> None:
        self._text_bytes += length
        if self._text_bytes > TEXT_BYTES_MAX:
            self._found.unwalked.append("more text than is looked at")
            return
        self._hold(at, length)
        text = bytes(self._view[at : at + length])
        self._found.attributes.append((path, name, text))

    def _heap_text(self, path: str, name: str, at: int) -> None:
        length, place, index = (
            self._number(at, 4),
            self._number(at + 4, 8),
            self._number(at + 12, 4),
        )
        if not length or place in (0, UNDEFINED):
            return
        start, size = self._heap_object(place, index)
        self._keep(path, name, start, min(length, size))

    def _heap_object(self, place: int, index: int) -> tuple[int, int]:
        """Where an object of a global heap lies."""
        at = place + self._base
        if bytes(self._view[at : at + 4]) != b"GCOL":
            raise broken("has a text that lies elsewhere", at)
        stop = min(at + self._number(at + 8, 8), len(self._view))
        at += 16
        while at + 16 <= stop:
            self._messages += 1
            if self._messages > MESSAGES_MAX:
                raise broken("has more messages than are looked at", at)
            number, size = self._number(at, 2), self._number(at + 8, 8)
            if number == index:
                self._hold(at + 16, size)
                return at + 16, size
            if number == 0:
                break
            at += 16 + -(-size // 8) * 8
        raise broken("has a text that is not in its heap", place)

    # ---- data elsewhere ----

    def _external_files(self, path: str, at: int) -> None:
        used, heap = self._number(at + 6, 2), self._number(at + 8, 8) + self._base
        names = self._number(heap + 24, 8) + self._base
        for n in range(used):
            start = names + self._number(at + 16 + 24 * n, 8)
            self._found.externals.append((path, "storage", self._text(start, len(self._view))))

    def _layout(self, path: str, at: int) -> None:
        version, kind = self._number(at, 1), self._number(at + 1, 1)
        if version >= 4 and kind == 3:
            place, index = self._number(at + 2, 8), self._number(at + 10, 4)
            if place in (0, UNDEFINED):
                return
            start, size = self._heap_object(place, index)
            raw = bytes(self._view[start + 9 : start + min(size, 65536)])
            name = raw.partition(b"\0")[0].decode("utf-8", "replace")
            if name != ".":
                self._found.externals.append((path, "virtual data set", name))

    # ---- bytes ----

    def _number(self, at: int, size: int) -> int:
        return hdf5_bytes.number(self._view, at, size)

    def _hold(self, at: int, length: int) -> None:
        if at < 0 or length < 0 or at + length > len(self._view):
            raise broken("points past its end", at)

    def _text(self, start: int, stop: int) -> str:
        raw = bytes(self._view[start : min(stop, start + 4096)])
        return raw.partition(b"\0")[0].decode("utf-8", "replace")
