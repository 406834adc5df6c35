"""From a chunk's plaintext to what a store keeps of it, by the policy of that store, and back.

`fast` keeps the plaintext itself, which decrypts in place; `small` the smallest that the codecs
find, alone or as a delta to a base. What was encoded is decoded and hashed again before it counts.
"""

from __future__ import annotations

from enum import StrEnum

from modelkeep.kernels.digest import keyed_id
from modelkeep.kernels.encoding import Encoding, decode_into, encoded
from modelkeep.vault.pack import Encoded


class Policy(StrEnum):
    """How a store encodes what is written to it."""

    FAST = "fast"
    SMALL = "small"


def encoded_chunk(
    plain: memoryview,
    *,
    chunk_id: bytes,
    key: bytes,
    policy: Policy,
    dtype: str = "",
    base: tuple[bytes, memoryview] | None = None,
    scratch: memoryview | None = None,
) -> Encoded:
    """Encode one chunk; what comes back may share the plaintext's memory.

    Args:
        chunk_id: of the plaintext, under `key`.
        dtype: of the tensor that the chunk is a part of; empty for other bytes.
        base: id and plaintext of the chunk that a delta may be taken to.
        scratch: room for the plaintext once more, where the caller has some.
    """
    if policy is Policy.FAST or not plain:
        return Encoded(chunk_id, len(plain), Encoding.RAW, plain)
    encoding, payload = encoded(plain, dtype=dtype, base=None if base is None else base[1])
    if encoding is Encoding.RAW or len(payload) >= len(plain):
        return Encoded(chunk_id, len(plain), Encoding.RAW, plain)
    is_delta = encoding in (Encoding.XOR, Encoding.DIFFERENCE)
    own_base = base if is_delta else None
    again = memoryview(bytearray(len(plain))) if scratch is None else scratch[: len(plain)]
    decode_into(
        encoding, memoryview(payload), again, base=None if own_base is None else own_base[1]
    )
    if keyed_id(key, again) != chunk_id:
        raise AssertionError(f"the encoding {encoding.name} does not give a chunk back")
    return Encoded(
        chunk_id, len(plain), encoding, payload, b"" if own_base is None else own_base[0]
    )
