r"""Exported models of format v0, which are read and no longer written.

    "modelkeep model v0\n"
    length u32 || envelope (MessagePack: the manifest's exact bytes, its signature, its signer)
    for each file of the manifest, in its order, until its size is reached:
        encoding u8 || length u32 || stored u32 || payload of `stored` bytes

Integers are big-endian. A chunk is encoded alone, never as a delta, and carries no id: whoever
reads it learns nothing of the domain that it comes from. The stream is the plaintext of a sealed
file (`crypto.sealed_file`), which makes it confidential and says who made it; that the files are
those of the manifest is for their digests to say. Nothing follows the last chunk.
"""

from __future__ import annotations

from dataclasses import dataclass

from modelkeep.core.errors import IntegrityError
from modelkeep.core.record import from_msgpack
from modelkeep.crypto.stream import Read, exactly
from modelkeep.kernels.encoding import Encoding, decode_into
from modelkeep.seal.envelope import Envelope

FIRST_LINE = b"modelkeep model v0\n"
# A million tensors, whose digests, names and shapes take some 200 bytes each.
ENVELOPE_BYTES_MAX = 256 * 1024 * 1024
# What a chunk may be long that is not encoded: the largest that a vault can be told to cut.
PLAIN_BYTES_MAX = 128 * 1024 * 1024
_SOLO = (Encoding.RAW, Encoding.ZSTD, Encoding.PLANES)
_LENGTH_BYTES = 4
_FRAME_BYTES = 1 + 2 * _LENGTH_BYTES


@dataclass(frozen=True, slots=True)
class Frame:
    """One chunk of a file, whose payload was not decoded yet."""

    encoding: Encoding
    length: int
    payload: bytes

    def decode_into(self, target: memoryview) -> None:
        """Fill a target of `length` bytes.

        Raises:
            IntegrityError: `codec.*`.
        """
        decode_into(self.encoding, memoryview(self.payload), target)


def read_head(read: Read) -> Envelope:
    """Read what stands before the first chunk; nothing in it is believed yet.

    Raises:
        IntegrityError: `portable.format`, `portable.cut`, `portable.bounds` or `record.msgpack`.
    """
    if exactly(read, len(FIRST_LINE)) != FIRST_LINE:
        raise IntegrityError(
            "portable.format",
            "this is no exported model",
            hint="`modelkeep decrypt` opens other sealed files",
        )
    size_bytes = int.from_bytes(_whole(read, _LENGTH_BYTES), "big")
    if size_bytes > ENVELOPE_BYTES_MAX:
        raise IntegrityError(
            "portable.bounds", "the manifest of an exported model is out of bounds"
        )
    return from_msgpack(Envelope, _whole(read, size_bytes), what="an exported model's envelope")


def read_frame(read: Read, *, length_max: int) -> Frame:
    """Read the next chunk of a file of which so many bytes are missing.

    Raises:
        IntegrityError: `portable.cut` or `portable.bounds`.
    """
    head = _whole(read, _FRAME_BYTES)
    length = int.from_bytes(head[1 : 1 + _LENGTH_BYTES], "big")
    stored = int.from_bytes(head[1 + _LENGTH_BYTES :], "big")
    is_bounded = 0 < length <= min(length_max, PLAIN_BYTES_MAX) and stored <= length
    if not is_bounded or head[0] not in _SOLO:
        raise IntegrityError("portable.bounds", "a chunk of an exported model is out of bounds")
    return Frame(Encoding(head[0]), length, _whole(read, stored))


def demand_end(read: Read) -> None:
    """Check that nothing follows.

    Raises:
        IntegrityError: `portable.end`.
    """
    if exactly(read, 1):
        raise IntegrityError("portable.end", "something follows the last file of an exported model")


def _whole(read: Read, size_bytes: int) -> bytes:
    got = exactly(read, size_bytes)
    if len(got) < size_bytes:
        raise IntegrityError("portable.cut", "an exported model is cut short")
    return got
