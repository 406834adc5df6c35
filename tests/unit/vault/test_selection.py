"""Whole packs are copied only where nothing else lies in them and no delta loses its base."""

from modelkeep.vault.index import ChunkIndex, Index
from modelkeep.vault.pack import PackEntry, Segment
from modelkeep.vault.selection import packs_within


def identity(letter):
    return letter.encode() * 32


def pack(name, *segments):
    """A pack of segments such as `a` or `b>a`, a delta of b to a."""
    parts = [each.partition(">") for each in segments]
    return PackEntry(
        name=name,
        size_bytes=1000,
        salt=bytes(32),
        segments=tuple(
            Segment(
                chunk_id=identity(own),
                number=at,
                offset=100 * at,
                length=10,
                base=identity(base) if base else b"",
            )
            for at, (own, _, base) in enumerate(parts)
        ),
    )


def chosen(packs, wanted, target=()):
    source, there = (ChunkIndex([Index(packs=tuple(each))]) for each in (packs, target))
    return packs_within(source, there, {identity(each) for each in wanted})


def test_a_pack_with_something_else_in_it_stays():
    assert chosen([pack("p", "a", "b"), pack("q", "c")], "ac") == {"q"}


def test_a_base_goes_along_with_its_delta():
    assert chosen([pack("p", "a"), pack("q", "b>a")], "b") == {"p", "q"}


def test_a_delta_stays_whose_base_lies_beside_something_else():
    assert chosen([pack("p", "a", "x"), pack("q", "b>a"), pack("r", "c")], "bc") == {"r"}


def test_a_base_that_the_target_has_is_enough():
    packs = [pack("p", "a", "x"), pack("q", "b>a")]
    assert chosen(packs, "b", target=[pack("t", "a")]) == {"q"}


def test_what_stays_takes_its_dependants_with_it():
    packs = [pack("p", "a", "x"), pack("q", "b>a", "c"), pack("r", "d>c"), pack("s", "e")]
    assert chosen(packs, "bcde") == {"s"}


def test_nothing_wanted_is_nothing_copied():
    assert chosen([pack("p", "a")], "") == frozenset()
