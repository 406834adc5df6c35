"""What every Store promises, as a suite: inherit, and give a fixture named `store`."""

from __future__ import annotations

import pytest

from modelkeep.core.errors import IntegrityError, MissingError, UsageError
from modelkeep.ports.range_store import read_into
from modelkeep.ports.store import Store


class StoreContract:
    """The promises of `modelkeep.ports.store.Store`."""

    def test_what_was_put_is_read(self, store: Store) -> None:
        store.put("pack/ab/one", b"bytes")
        assert store.get("pack/ab/one") == b"bytes"

    def test_an_empty_object_is_an_object(self, store: Store) -> None:
        store.put("empty", b"")
        assert store.get("empty") == b""
        assert store.stat("empty") is not None

    def test_a_memoryview_is_as_good_as_bytes(self, store: Store) -> None:
        store.put("view", memoryview(b"012345")[1:4])
        assert store.get("view") == b"123"

    def test_a_range_is_read(self, store: Store) -> None:
        store.put("object", b"0123456789")
        assert store.get("object", start=2, length=3) == b"234"
        assert store.get("object", start=8, length=100) == b"89"
        assert store.get("object", start=100, length=1) == b""

    def test_a_range_is_read_into_memory_that_is_there(self, store: Store) -> None:
        store.put("object", b"0123456789")
        target = bytearray(b"." * 6)
        assert read_into(store, "object", 2, memoryview(target)[1:4]) == 3
        assert target == b".234.."
        assert read_into(store, "object", 8, memoryview(target)) == 2
        assert target[:2] == b"89"
        assert read_into(store, "object", 10, memoryview(target)) == 0
        assert read_into(store, "object", 100, memoryview(target)) == 0
        assert read_into(store, "object", 0, memoryview(bytearray())) == 0
        with pytest.raises(MissingError):
            read_into(store, "nothing", 0, memoryview(target))

    def test_a_whole_object_is_read_from_somewhere_on(self, store: Store) -> None:
        store.put("object", b"0123456789")
        assert store.get("object", start=4) == b"456789"
        assert store.get("object", start=10) == b""
        assert store.get("object", start=3, length=0) == b""

    def test_an_object_of_several_megabytes_comes_back(self, store: Store) -> None:
        raw = bytes(range(256)) * 4096 * 6
        store.put("pack/large", raw)
        assert store.get("pack/large") == raw
        assert store.get("pack/large", start=1_000_001, length=9) == raw[1_000_001:1_000_010]
        target = bytearray(len(raw))
        assert read_into(store, "pack/large", 0, memoryview(target)) == len(raw)
        assert target == raw

    def test_the_same_bytes_again_are_success(self, store: Store) -> None:
        store.put("object", b"same")
        store.put("object", b"same")
        assert store.get("object") == b"same"

    def test_other_bytes_are_refused_and_change_nothing(self, store: Store) -> None:
        store.put("object", b"first")
        with pytest.raises(IntegrityError) as refusal:
            store.put("object", b"other")
        assert refusal.value.code == "store.exists"
        assert store.get("object") == b"first"

    def test_a_missing_object_is_missing(self, store: Store) -> None:
        with pytest.raises(MissingError):
            store.get("nothing/here")
        assert store.stat("nothing/here") is None

    def test_a_listing_is_sorted_and_by_prefix(self, store: Store) -> None:
        for name in ("b/2", "a/1", "b/1", "bc"):
            store.put(name, name.encode())
        assert [stat.name for stat in store.list("b/")] == ["b/1", "b/2"]
        assert [stat.name for stat in store.list("b")] == ["b/1", "b/2", "bc"]
        assert [stat.size_bytes for stat in store.list("")] == [3, 3, 3, 2]
        assert list(store.list("none/")) == []

    def test_a_listing_is_in_the_order_of_the_whole_names(self, store: Store) -> None:
        """Two listings are compared as they come: all stores have to sort alike."""
        names = sorted(["a/b/c", "a-b", "a.b/c", "a/b.c", "a/b-c/d", "a0", "a/b0", "ab/c", "a_"])
        for name in names:
            store.put(name, b"")
        assert [stat.name for stat in store.list("")] == names
        assert [stat.name for stat in store.list("a/b")] == [
            name for name in names if name.startswith("a/b")
        ]

    def test_a_deleted_object_is_gone_and_its_name_free(self, store: Store) -> None:
        store.put("object", b"first")
        store.delete("object")
        store.delete("object")
        assert store.stat("object") is None
        store.put("object", b"second")
        assert store.get("object") == b"second"

    @pytest.mark.parametrize(
        "name",
        ["", "/", "a//b", "../a", "a/..", ".hidden", "A", "a b", "a\n", "a/", "é", "x" * 201],
    )
    def test_a_name_that_could_escape_is_refused(self, store: Store, name: str) -> None:
        for call in (store.get, store.stat, store.delete):
            with pytest.raises(UsageError):
                call(name)
        with pytest.raises(UsageError):
            store.put(name, b"")
