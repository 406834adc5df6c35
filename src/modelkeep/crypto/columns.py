"""Cells of database columns: AES-256-SIV under keys that are named in the cell.

    cell = kind(1) || length of the key's id(1) || key's id || nonce || SIV(16) || ciphertext

- AES-SIV (RFC 5297) needs no luck: its tag is a PRF over everything it is given and doubles as
  the IV, so a nonce that repeats (a cloned machine) shows that two cells of one column are equal,
  and nothing else.
- A sealed cell (kind 1) has a fresh nonce of 16 bytes: equal values have unequal cells.
- A searchable cell (kind 2) has none: equal values have equal cells under one key, which is what
  lets a database compare and index them. That is also what it leaks: who shares a value with
  whom, and how often each value occurs.
- Each key, column (`place`) and kind has a subkey of its own; what stands before the ciphertext
  is authenticated, and so is the row, where one is given. A cell that was changed, or moved to
  another place, kind or bound row, does not open.
- Values are padded to multiples of 32 bytes (ISO/IEC 7816-4), so a cell tells its value's length
  only to that grain.

Deliberately absent: order, ranges, prefixes and substrings. What lets a server sort or match
ciphertext also lets it read most of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.crypto.kdf import KEY_BYTES, derived_key
from modelkeep.crypto.secret import Secret

NONCE_BYTES = 16
SIV_BYTES = 16
GRAIN_BYTES = 32  # hides "yes" from "no" and most names from each other; costs 16 bytes on average
VALUE_BYTES_MAX = 1024 * 1024  # a cell is a value; files belong into the vault
KEYS_MAX = 16  # a search names one cell per live key
_KEY_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_PLACE = re.compile(r"[a-z0-9_][a-z0-9_.-]{0,99}")


class Kind(IntEnum):
    """The first byte of a cell."""

    SEALED = 1
    SEARCHABLE = 2


@dataclass(frozen=True, slots=True, eq=False)
class ColumnKeys:
    """Keys by id: the newest writes, every one reads.

    Attributes:
        newest: id of the key that new cells are made with.
        secrets: 32 bytes each; ids are up to 32 lower-case letters, digits and hyphens, and stand
            in the clear in each cell.

    Raises:
        UsageError: `columns.keys`, when ids or lengths are not so.
    """

    newest: str
    secrets: Mapping[str, Secret]

    def __post_init__(self) -> None:
        object.__setattr__(self, "secrets", MappingProxyType(dict(self.secrets)))
        well_formed = all(
            _KEY_ID.fullmatch(name) and len(secret) == KEY_BYTES
            for name, secret in self.secrets.items()
        )
        if not (well_formed and self.newest in self.secrets and len(self.secrets) <= KEYS_MAX):
            raise UsageError(
                "columns.keys",
                "the keys of columns are not well formed",
                hint=f"give 1 to {KEYS_MAX} keys of {KEY_BYTES} bytes, the newest one among them",
            )

    @classmethod
    def derived(cls, parent: Secret, ids: Iterable[str], *, newest: str) -> ColumnKeys:
        """Keys that hang on one parent, each under the purpose `columns/<id>`.

        Who holds the parent holds them all: a new id helps when a column's key was lost, a new
        parent when the parent was.
        """
        return cls(newest, {each: derived_key(parent, f"columns/{each}") for each in ids})


class CellCipher:
    """Seals, finds and opens the cells of one column.

    Args:
        place: the column's name for good, such as `people.email`; a table may be renamed, its
            place may not. Two columns must not share one.

    Raises:
        UsageError: `columns.place`.
    """

    __slots__ = ("_ciphers", "_newest")

    def __init__(self, keys: ColumnKeys, place: str) -> None:
        checked_place(place)
        self._newest = keys.newest
        self._ciphers = {
            (kind, name): _cipher(secret, kind, place)
            for kind in Kind
            for name, secret in keys.secrets.items()
        }

    def sealed(self, value: bytes, *, nonce: bytes, row: bytes = b"") -> bytes:
        """A cell that shows no equality.

        Args:
            nonce: 16 fresh random bytes.
            row: what identifies the row, to bind the cell to it; nothing binds to the column only.

        Raises:
            UsageError: `columns.size`.
        """
        if len(nonce) != NONCE_BYTES:
            raise AssertionError("the nonce of a cell is 16 bytes")
        return self._made(Kind.SEALED, self._newest, value, row=row, nonce=nonce)

    def searchable(self, value: bytes) -> bytes:
        """The cell that every row with this value has under the newest key.

        Raises:
            UsageError: `columns.size`.
        """
        return self._made(Kind.SEARCHABLE, self._newest, value)

    def searched(self, value: bytes) -> tuple[bytes, ...]:
        """The searchable cells of a value under every key.

        Raises:
            UsageError: `columns.size`.
        """
        names = [name for kind, name in self._ciphers if kind is Kind.SEARCHABLE]
        return tuple(self._made(Kind.SEARCHABLE, name, value) for name in names)

    def head(self, kind: Kind) -> bytes:
        """How a cell of this kind begins that is under the newest key."""
        return _head(kind, self._newest)

    def opened(self, cell: bytes, *, row: bytes = b"") -> bytes:
        """The value of a cell of either kind.

        Raises:
            IntegrityError: `columns.form`, `columns.unknown_key` or `columns.tag`; nothing of the
                value is released.
        """
        kind, name = _named(cell)
        cipher = self._ciphers.get((kind, name))
        if cipher is None:
            raise IntegrityError(
                "columns.unknown_key",
                f"a cell is under the key {name}, which is not among the keys of its column",
                hint="add the key, if it is one of yours",
                key=name,
            )
        head = _head(kind, name)
        rest = len(head) + (NONCE_BYTES if kind is Kind.SEALED else 0)
        try:
            padded = cipher.decrypt(cell[rest:], [head, row, cell[len(head) : rest]])
        except InvalidTag:
            raise IntegrityError(
                "columns.tag",
                "a cell does not authenticate: it was changed, or moved from another column or row",
            ) from None
        return _unpadded(padded)

    def _made(
        self, kind: Kind, name: str, value: bytes, *, row: bytes = b"", nonce: bytes = b""
    ) -> bytes:
        if len(value) > VALUE_BYTES_MAX:
            raise UsageError(
                "columns.size",
                f"a value of {len(value)} bytes is too long for a cell",
                hint=f"a cell holds up to {VALUE_BYTES_MAX} bytes",
            )
        head = _head(kind, name)
        cipher = self._ciphers[kind, name]
        return head + nonce + cipher.encrypt(_padded(value), [head, row, nonce])


def checked_place(place: str) -> str:
    """The name of a column, if it can be one.

    Raises:
        UsageError: `columns.place`.
    """
    if not _PLACE.fullmatch(place):
        raise UsageError(
            "columns.place",
            f"{place!r} cannot name a column",
            hint="use up to 100 lower-case letters, digits, underscores, dots and hyphens",
        )
    return place


def _cipher(secret: Secret, kind: Kind, place: str) -> AESSIV:
    halves = (
        derived_key(secret, f"column/{kind.name.lower()}/{half}/{place}")
        for half in ("authenticate", "encrypt")
    )
    return AESSIV(b"".join(half.reveal() for half in halves))


def _head(kind: Kind, name: str) -> bytes:
    return bytes((kind, len(name))) + name.encode()


def _named(cell: bytes) -> tuple[Kind, str]:
    """What a cell says of itself, before any of it is believed."""
    name = cell[2 : 2 + cell[1]] if len(cell) > 1 else b""
    shortest = 2 + len(name) + SIV_BYTES + GRAIN_BYTES
    longest = 2 + len(name) + NONCE_BYTES + SIV_BYTES + VALUE_BYTES_MAX + GRAIN_BYTES
    text = name.decode("ascii", "replace")
    if not (
        shortest <= len(cell) <= longest and cell[0] in tuple(Kind) and _KEY_ID.fullmatch(text)
    ):
        raise IntegrityError("columns.form", "a cell is not one that modelkeep made")
    return Kind(cell[0]), text


def _padded(value: bytes) -> bytes:
    ended = value + b"\x80"
    return ended + bytes(-len(ended) % GRAIN_BYTES)


def _unpadded(padded: bytes) -> bytes:
    value = padded.rstrip(b"\0")
    if not value.endswith(b"\x80"):
        raise IntegrityError("columns.form", "the value of a cell is not padded as it must be")
    return value[:-1]
