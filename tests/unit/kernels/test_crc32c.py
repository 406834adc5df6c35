"""CRC-32C against the examples of RFC 3720, B.4, and the check value of the catalogues."""

import pytest

from modelkeep.kernels.crc32c import crc32c


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_it_gives_the_published_values(raw, value):
    assert crc32c(raw) == value
