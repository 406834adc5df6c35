"""CRC-32C (Castagnoli, RFC 3720), for services that ask for it; no protection against intent."""

from __future__ import annotations

_POLYNOMIAL = 0x82F63B78


def crc32c(raw: bytes) -> int:
    """The checksum of a few hundred bytes, bit by bit: no table, no speed."""
    value = 0xFFFFFFFF
    for byte in raw:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
    return value ^ 0xFFFFFFFF
