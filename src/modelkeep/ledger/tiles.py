"""Names and bytes of tiles and entry bundles (C2SP tlog-tiles), and of our bundles of bodies.

Everything of one log lies under `ledger/<first 16 hex of BLAKE3(origin)>/`, so that a recovered
log, which has a new origin, lies beside the old one:

    checkpoint/<size, 12 digits>     signed note; the number is the tree size that it signs
    tile/<L>/<N>[.p/<W>]             hashes; W of them when there are fewer than 256
    tile/entries/<N>[.p/<W>]         leaves, each after its length as big-endian uint16
    body/<N>[.p/<W>]                 the bodies of the same entries, encrypted (ours, `entry.py`)

A full tile or bundle is final. A partial one is superseded when the tree grows and may go once
no kept checkpoint needs it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from modelkeep.core.errors import IntegrityError
from modelkeep.core.limits import SERIES_DIGITS
from modelkeep.core.names import checked_object_name, series_name
from modelkeep.kernels.digest import hex_of
from modelkeep.ledger.tree import HASH_BYTES, TILE_WIDTH, level_count, levels_of

ORIGIN_HASH_DIGITS = 16
LEAF_LENGTH_BYTES = 2

_NAME = re.compile(
    r"(?P<kind>tile/(?:entries|0|[1-9][0-9]?)|body)"
    r"/(?P<path>(?:x[0-9]{3}/)*[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?"
)
_CHECKPOINT = re.compile(rf"checkpoint/(?P<size>[0-9]{{{SERIES_DIGITS}}})")


@dataclass(frozen=True, slots=True)
class Place:
    """Which tile or bundle an object is.

    Attributes:
        kind: `tile/<L>`, `tile/entries` or `body`.
        width: of a partial one; 256 for a full one.
    """

    kind: str
    index: int
    width: int

    @property
    def level(self) -> int:
        """The tile level; -1 for bundles."""
        digits = self.kind.rpartition("/")[2]
        return int(digits) if digits.isdecimal() else -1

    @property
    def is_partial(self) -> bool:
        """Whether the object will be superseded."""
        return self.width < TILE_WIDTH


def log_prefix(origin: str) -> str:
    """The folder of a log inside a store, with its closing slash."""
    return f"ledger/{hex_of(origin.encode())[:ORIGIN_HASH_DIGITS]}/"


def checkpoint_name(prefix: str, size: int) -> str:
    """The object name of the checkpoint of a tree size."""
    return checked_object_name(series_name(prefix + "checkpoint", size))


def place_name(prefix: str, place: Place) -> str:
    """The object name of a tile or bundle."""
    suffix = f".p/{place.width}" if place.is_partial else ""
    return checked_object_name(f"{prefix}{place.kind}/{index_path(place.index)}{suffix}")


def index_path(index: int) -> str:
    """An index as tlog-tiles writes it: 1234067 is `x001/x234/067`."""
    digits = str(index)
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    parts = [digits[i : i + 3] for i in range(0, len(digits), 3)]
    return "/".join([*("x" + part for part in parts[:-1]), parts[-1]])


def parsed_place(prefix: str, name: str) -> Place | None:
    """Which tile or bundle a name means; None when it is not the one name of any."""
    match = _NAME.fullmatch(name.removeprefix(prefix)) if name.startswith(prefix) else None
    if match is None:
        return None
    index = int(match["path"].replace("/", "").replace("x", ""))
    place = Place(match["kind"], index, int(match["width"] or TILE_WIDTH))
    return place if place_name(prefix, place) == name else None


def parsed_checkpoint_size(prefix: str, name: str) -> int | None:
    """The tree size in a checkpoint's name; None when it is not one."""
    match = _CHECKPOINT.fullmatch(name.removeprefix(prefix)) if name.startswith(prefix) else None
    return int(match["size"]) if match is not None else None


def width_at(size: int, level: int, index: int) -> int:
    """How many hashes tile `index` of a level has in a tree of `size` leaves (0 to 256)."""
    return max(0, min(TILE_WIDTH, level_count(size, level) - index * TILE_WIDTH))


def partial_places(size: int) -> list[Place]:
    """The partial tiles and bundles that a checkpoint of `size` needs."""
    places = []
    for level in range(levels_of(size)):
        count = level_count(size, level)
        index, width = divmod(count, TILE_WIDTH)
        if width == 0:
            continue
        if level == 0:
            places.append(Place("tile/entries", index, width))
            places.append(Place("body", index, width))
        places.append(Place(f"tile/{level}", index, width))
    return places


def superseded(places: Iterable[Place], *, kept_sizes: Iterable[int]) -> list[Place]:
    """Those of the partial places that no kept checkpoint needs."""
    needed = {place for size in kept_sizes for place in partial_places(size)}
    return [place for place in places if place.is_partial and place not in needed]


def tile_bytes(hashes: Sequence[bytes]) -> bytes:
    """The bytes of a tile."""
    return b"".join(hashes)


def parsed_tile(raw: bytes, *, width: int, name: str) -> tuple[bytes, ...]:
    """The hashes of a tile of known width.

    Raises:
        IntegrityError: `ledger.tile`, when the size is not exactly that of `width` hashes.
    """
    if len(raw) != width * HASH_BYTES:
        raise IntegrityError(
            "ledger.tile",
            f"{name} is {len(raw)} bytes long, not {width * HASH_BYTES}",
            object=name,
            expected=width * HASH_BYTES,
            got=len(raw),
        )
    return tuple(raw[i : i + HASH_BYTES] for i in range(0, len(raw), HASH_BYTES))


def entry_bundle(leaves: Iterable[bytes]) -> bytes:
    """The bytes of an entry bundle: every leaf after its length as big-endian uint16."""
    # `to_bytes` refuses a leaf that is longer than tlog-tiles can say.
    return b"".join([len(leaf).to_bytes(LEAF_LENGTH_BYTES, "big") + leaf for leaf in leaves])


def parsed_entry_bundle(raw: bytes, *, width: int, name: str) -> tuple[bytes, ...]:
    """The leaves of an entry bundle of known width.

    Raises:
        IntegrityError: `ledger.bundle`, when it does not hold exactly `width` leaves.
    """
    leaves: list[bytes] = []
    at = 0
    while at < len(raw) and len(leaves) <= width:
        start = at + LEAF_LENGTH_BYTES
        at = start + int.from_bytes(raw[at:start], "big")
        leaves.append(raw[start:at])
    if at != len(raw) or len(leaves) != width:
        raise IntegrityError(
            "ledger.bundle",
            f"{name} does not hold exactly {width} leaves",
            object=name,
            expected=width,
            got=len(leaves),
        )
    return tuple(leaves)
