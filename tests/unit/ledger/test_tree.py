"""The tree is RFC 6962's: judged by its definition, by published values, by pymerkle."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.ledger.tree import (
    EMPTY_ROOT,
    Edge,
    leaf_hash,
    level_count,
    levels_of,
    node_hash,
    root_of,
)

# The reference tree of certificate-transparency-go and RFC 6962 implementations everywhere.
LEAVES = [
    bytes.fromhex(each)
    for each in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)


def defined_root(leaves):
    """RFC 6962, section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    left, right = defined_root(leaves[:k]), defined_root(leaves[k:])
    return hashlib.sha256(b"\x01" + left + right).digest()


def test_the_published_roots_come_out():
    for count, root in enumerate(ROOTS, start=1):
        assert root_of([leaf_hash(leaf) for leaf in LEAVES[:count]]).hex() == root


@given(st.lists(st.binary(max_size=8), max_size=70))
def test_the_root_is_the_defined_one(leaves):
    assert root_of([leaf_hash(leaf) for leaf in leaves]) == defined_root(leaves)


def test_the_empty_tree_has_the_empty_root():
    assert root_of([]) == EMPTY_ROOT == Edge().root()


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 511, 512, 513, 1000])
def test_the_edge_knows_the_root(size):
    hashes = [leaf_hash(b"%d" % number) for number in range(size)]
    edge = Edge()
    full = [tile for hashed in hashes for tile in edge.push(hashed)]
    assert edge.root() == root_of(hashes)
    assert Edge(edge.size, edge.levels).root() == edge.root()
    assert [(tile.level, tile.index) for tile in full] == [(0, i) for i in range(size // 256)]
    for tile in full:
        assert list(tile.hashes) == hashes[tile.index * 256 : tile.index * 256 + 256]
    assert {tile.level: len(tile.hashes) for tile in edge.partials()} == {
        level: width
        for level in range(levels_of(size))
        if (width := level_count(size, level) % 256)
    }


def test_the_edge_carries_over_three_levels():
    edge = Edge()
    hashed = leaf_hash(b"same")
    for _ in range(65_535):
        edge.push(hashed)
    tiles = edge.push(hashed)
    assert [(tile.level, tile.index) for tile in tiles] == [(0, 255), (1, 0)]
    expected = hashed
    for _ in range(16):
        expected = node_hash(expected, expected)
    assert edge.root() == expected
    assert [(tile.level, tile.index, len(tile.hashes)) for tile in edge.partials()] == [(2, 0, 1)]


def test_an_edge_that_grows_leaves_the_one_it_came_from():
    edge = Edge()
    for number in range(300):
        edge.push(leaf_hash(b"%d" % number))
    root = edge.root()
    copy = edge.copy()
    copy.push(leaf_hash(b"more"))
    assert edge.root() == root
    assert edge.size == 300


def test_an_edge_of_the_wrong_shape_is_our_mistake():
    with pytest.raises(AssertionError):
        Edge(3, [[b"x" * 32]])


def test_pymerkle_finds_the_same_roots():
    pymerkle = pytest.importorskip("pymerkle", reason="pymerkle is not installed")
    theirs = pymerkle.InmemoryTree(algorithm="sha256")
    hashes = []
    for number in range(300):
        leaf = b"entry %d" % number
        theirs.append_entry(leaf)
        hashes.append(leaf_hash(leaf))
        if number % 37 == 0 or number > 250:
            assert theirs.get_root() == root_of(hashes)
