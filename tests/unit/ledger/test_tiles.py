"""Names and bytes of tiles are those of C2SP tlog-tiles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import IntegrityError
from modelkeep.core.names import checked_object_name
from modelkeep.ledger.tiles import (
    Place,
    checkpoint_name,
    entry_bundle,
    index_path,
    log_prefix,
    parsed_checkpoint_size,
    parsed_entry_bundle,
    parsed_place,
    parsed_tile,
    partial_places,
    place_name,
    superseded,
    width_at,
)

PREFIX = log_prefix("example.org/keep")


def test_an_index_is_written_as_the_specification_says():
    assert index_path(1234067) == "x001/x234/067"
    assert index_path(0) == "000"
    assert index_path(999) == "999"
    assert index_path(1000) == "x001/000"


def test_a_tree_of_70000_has_the_tiles_of_the_specification():
    places = {place.kind: (place.index, place.width) for place in partial_places(70_000)}
    assert places == {
        "tile/0": (273, 112),
        "tile/entries": (273, 112),
        "body": (273, 112),
        "tile/1": (1, 17),
        "tile/2": (0, 1),
    }
    assert width_at(70_000, 0, 272) == 256
    assert width_at(70_000, 1, 0) == 256


def test_a_tree_of_256_has_a_full_tile_and_one_hash_above():
    assert partial_places(256) == [Place("tile/1", 0, 1)]


kinds = st.sampled_from(["tile/0", "tile/1", "tile/7", "tile/entries", "body"])
places = st.builds(Place, kinds, st.integers(0, 10**12), st.integers(1, 256))


@given(places)
def test_a_place_has_one_name_and_the_name_one_place(place):
    name = checked_object_name(place_name(PREFIX, place))
    assert parsed_place(PREFIX, name) == place


@pytest.mark.parametrize(
    "name",
    [
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/x000/000",
        "tile/0/0",
        "tile/00/000",
        "tile/64x/000",
        "tile/0/x1/000",
        "body/000.p/",
        "entries/000",
        "tile/0/000/",
    ],
)
def test_other_spellings_are_no_names(name):
    assert parsed_place(PREFIX, PREFIX + name) is None


def test_a_checkpoint_is_named_by_its_size():
    name = checkpoint_name(PREFIX, 42)
    assert name == PREFIX + "checkpoint/000000000042"
    assert parsed_checkpoint_size(PREFIX, name) == 42
    assert parsed_checkpoint_size(PREFIX, PREFIX + "checkpoint/42") is None


def test_logs_of_two_origins_lie_apart():
    assert log_prefix("example.org/keep") != log_prefix("example.org/keep-2")
    assert len(PREFIX) == len("ledger/") + 16 + 1


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=20))
def test_a_bundle_is_read_as_written(leaves):
    raw = entry_bundle(leaves)
    assert parsed_entry_bundle(raw, width=len(leaves), name="bundle") == tuple(leaves)


@given(st.lists(st.binary(max_size=10), min_size=1, max_size=5), st.data())
def test_a_bundle_cut_short_or_prolonged_is_refused(leaves, data):
    raw = entry_bundle(leaves)
    cut = data.draw(st.integers(0, len(raw) - 1))
    for wrong in (raw[:cut], raw + b"\0", raw + b"\0\0"):
        with pytest.raises(IntegrityError):
            parsed_entry_bundle(wrong, width=len(leaves), name="bundle")


def test_a_tile_has_exactly_its_width():
    raw = bytes(range(64))
    assert parsed_tile(raw, width=2, name="tile") == (raw[:32], raw[32:])
    for wrong in (raw[:-1], raw + b"\0", b""):
        with pytest.raises(IntegrityError):
            parsed_tile(wrong, width=2, name="tile")


def test_only_what_no_kept_checkpoint_needs_is_superseded():
    old, new = partial_places(10), partial_places(20)
    assert superseded([*old, *new], kept_sizes=[20]) == old
    assert superseded([*old, *new], kept_sizes=[10, 20]) == []
    assert superseded([Place("tile/0", 0, 256)], kept_sizes=[300]) == []
