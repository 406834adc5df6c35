"""Many objects at once: durable on return, never in part, never in place of another."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from modelkeep.adapters.store_folder import FolderStore
from modelkeep.core.errors import UnavailableError, UsageError
from modelkeep.testing.power import Fuse, PowerCut, SimulatedDisk

OBJECTS = [(f"tile/{number % 3}/{number:03d}", b"%d" % number * 50) for number in range(20)]


def held(store):
    return {stat.name: store.get(stat.name) for stat in store.list("")}


def test_objects_are_written_and_taken_names_come_back(tmp_path):
    store = FolderStore(tmp_path / "store", "main")
    store.put("tile/0/000", b"other")
    store.put(*OBJECTS[5])
    assert store.put_new(OBJECTS) == [OBJECTS[0], OBJECTS[5]]
    assert held(store) == dict(OBJECTS) | {"tile/0/000": b"other"}
    assert store.put_new([]) == []
    assert list((tmp_path / "store" / ".tmp").iterdir()) == []
    with pytest.raises(UsageError, match=r"store\.name"):
        store.put_new([("../x", b"")])


def test_a_name_given_twice_is_written_once(tmp_path):
    store = FolderStore(tmp_path, "main")
    assert store.put_new([("a", b"1"), ("a", b"2")]) == [("a", b"2")]
    assert store.get("a") == b"1"


def test_a_store_that_cannot_be_written_is_unavailable(tmp_path):
    (tmp_path / "file").write_bytes(b"not a folder")
    with pytest.raises(UnavailableError, match=r"store\.write"):
        FolderStore(tmp_path / "file", "main").put_new(OBJECTS)


def test_a_power_cut_before_any_change_leaves_whole_objects_or_none():
    whole = SimulatedDisk()
    FolderStore(Path("/store"), "main", whole).put_new(OBJECTS)
    for at in range(whole.fuse.count + 1):
        disk = SimulatedDisk(Fuse(at))
        done = False
        with contextlib.suppress(PowerCut):
            FolderStore(Path("/store"), "main", disk).put_new(OBJECTS)
            done = True
        left = FolderStore(Path("/store"), "main", disk.after_power_cut())
        assert held(left).items() <= dict(OBJECTS).items()
        assert not done or held(left) == dict(OBJECTS)
        for each in left.put_new(OBJECTS):
            left.put(*each)
        assert held(left) == dict(OBJECTS)
