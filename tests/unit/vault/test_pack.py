"""Packs: what went in comes out, in its own place only, and no changed bit is believed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import IntegrityError
from modelkeep.core.record import replaced
from modelkeep.crypto.aead import TAG_BYTES
from modelkeep.kernels.digest import hex_of
from modelkeep.kernels.encoding import Encoding
from modelkeep.vault.check import demand_content
from modelkeep.vault.pack import (
    Encoded,
    PackWriter,
    bound_to,
    pack_cipher,
    padded_bytes,
    read_pack,
)
from tests.unit.vault.parts import (
    DOMAIN,
    OTHER_DOMAIN,
    SALT,
    SIGNER,
    STRANGER,
    chunk_id,
    flipped,
    packed,
    reader_of,
)

VECTORS = Path(__file__).parents[2] / "vectors" / "vault"
PLAINS = (b"first chunk", b"the second, a little longer", b"")


def opened(entry, raw, segment, *, domain=DOMAIN, number=None, salt=None, bound=None):
    sealed = raw[segment.offset : segment.offset + segment.length + TAG_BYTES]
    return pack_cipher(domain, salt or entry.salt).open(
        segment.number if number is None else number,
        sealed,
        bound=bound_to(domain.name, segment) if bound is None else bound,
    )


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=8, unique=True))
def test_every_chunk_comes_back_from_its_place(plains):
    entry, raw = packed(*plains)
    assert read_pack(entry.name, raw, domain=DOMAIN, public=SIGNER.public) == entry
    assert [opened(entry, raw, segment) for segment in entry.segments] == plains
    assert entry.size_bytes == len(raw)
    assert entry.name == f"pack/{DOMAIN.key_id}/{hex_of(raw)[:2]}/{hex_of(raw)}"
    demand_content(entry.name, raw, reader=reader_of())


def test_nothing_of_the_plaintext_stands_in_a_pack():
    entry, raw = packed(b"canary in plaintext " * 10)
    assert b"canary" not in raw
    assert entry.segments[0].chunk_id not in raw


def test_any_flipped_bit_of_a_pack_is_noticed_whatever_its_name_says():
    entry, raw = packed(*PLAINS)
    for at in range(len(raw) * 8):
        with pytest.raises(IntegrityError):
            read_pack(entry.name, flipped(raw, at), domain=DOMAIN, public=SIGNER.public)


def test_any_flipped_bit_of_a_segment_is_noticed_where_only_the_segment_is_read():
    entry, raw = packed(*PLAINS)
    for segment in entry.segments:
        for at in range(segment.offset * 8, (segment.offset + segment.length + TAG_BYTES) * 8):
            with pytest.raises(IntegrityError) as refused:
                opened(entry, flipped(raw, at), segment)
            assert refused.value.code == "aead.tag"


def test_any_truncation_is_noticed():
    entry, raw = packed(*PLAINS)
    for length in range(len(raw)):
        with pytest.raises(IntegrityError):
            read_pack(entry.name, raw[:length], domain=DOMAIN, public=SIGNER.public)
    with pytest.raises(IntegrityError):
        read_pack(entry.name, raw + b"\0", domain=DOMAIN, public=SIGNER.public)


def test_a_segment_in_another_place_does_not_open():
    entry, raw = packed(*PLAINS)
    first, second, _ = entry.segments
    for wrong in (
        {"number": second.number},
        {"salt": bytes(32)},
        {"domain": OTHER_DOMAIN},
        {"bound": bound_to("other", first)},
        {"bound": bound_to("default", second)},
        {"bound": bound_to("default", replaced(first, encoding=Encoding.ZSTD))},
        {"bound": bound_to("default", replaced(first, base=second.chunk_id))},
        {"bound": b""},
    ):
        with pytest.raises(IntegrityError) as refused:
            opened(entry, raw, first, **wrong)
        assert refused.value.code == "aead.tag"


def test_two_packs_with_one_salt_would_share_nonces_and_two_salts_do_not():
    _, one = packed(b"same")
    _, other = packed(b"same", salt=bytes(32))
    assert one[40:64] != other[40:64]


def test_a_pack_of_a_stranger_or_another_domain_is_not_believed():
    entry, raw = packed(*PLAINS, signer=STRANGER)
    with pytest.raises(IntegrityError) as refused:
        read_pack(entry.name, raw, domain=DOMAIN, public=SIGNER.public)
    assert refused.value.code == "signature.bad"
    entry, raw = packed(*PLAINS, domain=OTHER_DOMAIN)
    with pytest.raises(IntegrityError) as refused:
        read_pack(entry.name, raw, domain=DOMAIN, public=SIGNER.public)
    assert refused.value.code == "aead.tag"


def test_a_chunk_that_is_not_what_its_id_says_is_found_where_data_is_read():
    writer = PackWriter(domain=DOMAIN, signer=SIGNER, salt=SALT)
    writer.add(Encoded(chunk_id(b"one thing"), 13, payload=b"another thing"))
    entry, raw = writer.finished()
    raw = bytes(raw)
    read_pack(entry.name, raw, domain=DOMAIN, public=SIGNER.public)
    with pytest.raises(IntegrityError) as refused:
        demand_content(entry.name, raw, reader=reader_of())
    assert refused.value.code == "vault.id"


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_an_integrity_error(raw):
    magics = (b"mkpack0\n", b"mkpack1\n")
    for given_raw in (raw, *(m + raw for m in magics), *(m + bytes(32) + raw for m in magics)):
        with pytest.raises(IntegrityError):
            read_pack("pack/00/00", given_raw, domain=DOMAIN, public=SIGNER.public)


@given(st.integers(1, 2**40))
def test_padding_costs_at_most_an_eighth_and_leaves_few_sizes(size):
    padded = padded_bytes(size)
    assert size <= padded <= size * 1.12 + 1
    assert padded_bytes(padded) == padded
    exponent = padded.bit_length() - 1
    assert padded % (1 << max(0, exponent - exponent.bit_length())) == 0


def test_packs_whose_chunks_differ_a_little_have_one_size():
    sizes = {len(packed(bytes(3000 + n))[1]) for n in range(20)}
    assert len(sizes) == 1


def test_a_pack_of_the_first_form_is_still_read():
    """Made by the release before padding: salt 00..1f, chunks `first chunk` and `second`."""
    raw = bytes.fromhex((VECTORS / "pack_v0.hex").read_text())
    name = f"pack/{DOMAIN.key_id}/{hex_of(raw)[:2]}/{hex_of(raw)}"
    entry = demand_content(name, raw, reader=reader_of())
    assert [opened(entry, raw, each) for each in entry.segments] == [b"first chunk", b"second"]
