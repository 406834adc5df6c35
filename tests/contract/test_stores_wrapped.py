"""What wraps a store is a store: each wrapper keeps all promises, and adds its own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.adapters.disk import RealDisk
from modelkeep.adapters.store_cached import CachedStore
from modelkeep.adapters.store_folder import FolderStore
from modelkeep.adapters.store_guard import GuardedStore
from modelkeep.adapters.store_retrying import WAIT_S_MAX, RetryingStore
from modelkeep.adapters.store_settings import StoreSettings
from modelkeep.adapters.store_throttled import ThrottledStore
from modelkeep.adapters.stores import opened_store
from modelkeep.core.errors import IntegrityError, MissingError, RefusedError, UnavailableError
from modelkeep.core.instant import NS_PER_S
from modelkeep.core.names import content_name
from modelkeep.kernels.digest import hex_of
from modelkeep.ports.batch_store import BatchStore
from modelkeep.ports.range_store import IntoStore
from modelkeep.testing.memory import MemoryStore
from modelkeep.testing.store_contract import StoreContract

KEEP_ID = "0123456789abcdef"
FORM = b'{"number":0,"keep_id":"%s"}\n'


class Time:
    """A Clock that moves only when somebody sleeps."""

    def __init__(self):
        self.at_ns = 0
        self.slept = []

    def monotonic_ns(self):
        return self.at_ns

    now_ns = monotonic_ns

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.at_ns += int(seconds * NS_PER_S)


def retrying(store, retries=3):
    return RetryingStore(store, retries=retries, sleep=Time().sleep)


def cached(store, folder, bytes_max=1_000_000):
    return CachedStore(store, folder=folder / "cache", bytes_max=bytes_max, disk=RealDisk())


def throttled(store, bytes_per_s, time=None):
    time = time or Time()
    return ThrottledStore(store, bytes_per_s=bytes_per_s, clock=time, sleep=time.sleep)


class TestRetrying(StoreContract):
    @pytest.fixture
    def store(self):
        return retrying(MemoryStore())


class TestCached(StoreContract):
    @pytest.fixture
    def store(self, tmp_path):
        return cached(MemoryStore(), tmp_path)


class TestThrottled(StoreContract):
    @pytest.fixture
    def store(self):
        return throttled(MemoryStore(), 1000)


class TestGuarded(StoreContract):
    @pytest.fixture
    def store(self):
        inner = MemoryStore()
        inner.put("format/000000000000", FORM % KEEP_ID.encode())
        store = GuardedStore(inner, place="memory", keep_id=KEEP_ID)
        store._guard.demand("x", store._first_bytes)
        del inner.objects["format/000000000000"]
        return store


class TestAllOfThemOverAFolder(StoreContract):
    @pytest.fixture
    def store(self, tmp_path):
        return retrying(cached(throttled(FolderStore(tmp_path / "s", "s"), 10**6), tmp_path))


# ---- retrying --------------------------------------------------------------------------------


class Weak(MemoryStore):
    """Fails so many times before it does what it is asked."""

    def __init__(self, failures, kind=UnavailableError):
        super().__init__("weak")
        self.failures = failures
        self.kind = kind
        self.calls = 0

    def _failed(self):
        self.calls += 1
        if self.failures:
            self.failures -= 1
            raise self.kind("store.read", "weak: not now")

    def get(self, name, *, start=0, length=None):
        self._failed()
        return super().get(name, start=start, length=length)

    def put(self, name, raw):
        super().put(name, raw)  # it was written, and the answer is lost
        self._failed()

    def list(self, prefix):
        for number, found in enumerate(super().list(prefix)):
            if number == 2:
                self._failed()
            yield found


def test_what_failed_for_now_is_tried_again_with_growing_random_waits():
    time, weak = Time(), Weak(3)
    store = RetryingStore(weak, retries=3, sleep=time.sleep)
    store.put("object", b"bytes")
    assert weak.calls == 4
    assert len(time.slept) == 3
    assert all(0 <= each <= WAIT_S_MAX for each in time.slept)


def test_after_the_last_try_the_error_is_the_stores_own():
    weak = Weak(9)
    with pytest.raises(UnavailableError, match="not now"):
        retrying(weak, 2).get("object")
    assert weak.calls == 3


@pytest.mark.parametrize("kind", [MissingError, IntegrityError, RefusedError])
def test_what_will_fail_again_is_not_tried_again(kind):
    weak = Weak(9, kind)
    with pytest.raises(kind):
        retrying(weak).get("object")
    assert weak.calls == 1


def test_a_listing_that_broke_off_goes_on_without_repeating_itself():
    weak = Weak(2)
    weak.objects = {f"{number}": b"" for number in range(6)}
    assert [each.name for each in retrying(weak).list("")] == list("012345")
    weak.failures = 9
    with pytest.raises(UnavailableError):
        list(retrying(weak).list(""))


# ---- throttled -------------------------------------------------------------------------------


def test_so_many_bytes_a_second_go_each_way():
    time = Time()
    store = throttled(MemoryStore(), 1000, time)
    for number in range(10):
        store.put(f"{number}", bytes(1000))
    assert 8.9 <= sum(time.slept) <= 9.1  # the first second's worth was there
    before = sum(time.slept)
    for number in range(10):
        store.get(f"{number}", length=500)
    assert 3.9 <= sum(time.slept) - before <= 4.1


@given(st.lists(st.integers(0, 5000), max_size=30), st.integers(1, 2000))
def test_no_order_of_transfers_beats_the_rate(sizes, bytes_per_s):
    time, store = Time(), MemoryStore()
    slow = throttled(store, bytes_per_s, time)
    for number, size in enumerate(sizes):
        slow.put(f"{number}", bytes(size))
    assert time.at_ns / NS_PER_S >= (sum(sizes) - bytes_per_s) / bytes_per_s - 0.01


# ---- cached ----------------------------------------------------------------------------------


class Counting(MemoryStore):
    def __init__(self):
        super().__init__("counting")
        self.reads = 0

    def get(self, name, *, start=0, length=None):
        self.reads += 1
        return super().get(name, start=start, length=length)


def kept(store, kind, raw):
    name = content_name(kind, "00" * 8, hex_of(raw))
    store.put(name, raw)
    return name


def test_a_small_object_is_fetched_once_and_a_pack_each_time(tmp_path):
    inner = Counting()
    store = cached(inner, tmp_path)
    index, pack = kept(store, "index", b"index"), kept(store, "pack", b"pack")
    for _ in range(3):
        assert store.get(index) == b"index"
        assert store.get(pack) == b"pack"
    assert inner.reads == 4
    assert store.get(index, start=1, length=2) == b"nd"
    assert cached(inner, tmp_path).get(index) == b"index"
    assert inner.reads == 4
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [hex_of(b"index")]


@given(st.binary(min_size=1, max_size=64), st.data())
def test_damage_in_the_cache_is_a_miss(tmp_path_factory, raw, data):
    inner, folder = Counting(), tmp_path_factory.mktemp("cache")
    store = cached(inner, folder)
    name = kept(store, "recipe", raw)
    store.get(name)
    there = folder / "cache" / hex_of(raw)
    harm = data.draw(st.binary(max_size=100))
    there.write_bytes(harm)
    assert store.get(name) == raw
    assert inner.reads == (1 if harm == raw else 2)
    assert there.read_bytes() == raw


def test_what_is_damaged_in_the_store_is_not_kept(tmp_path):
    inner = MemoryStore()
    store = cached(inner, tmp_path)
    name = kept(store, "envelope", b"bytes")
    inner.objects[name] = b"other"
    assert store.get(name) == b"other"  # for the reader to judge
    inner.objects[name] = b"bytes"
    assert store.get(name) == b"bytes"


def test_the_folder_stays_within_its_bound_and_the_oldest_goes_first(tmp_path):
    store = cached(Counting(), tmp_path, bytes_max=100)
    names = [kept(store, "index", bytes([number]) * 30) for number in range(10)]
    for name in names:
        store.get(name)
    there = {path.name: path.stat().st_size for path in (tmp_path / "cache").iterdir()}
    assert sum(there.values()) <= 100
    assert set(there) == {hex_of(bytes([number]) * 30) for number in (7, 8, 9)}
    large = kept(store, "index", bytes(101))
    assert store.get(large) == bytes(101)
    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_what_is_deleted_leaves_the_cache_too(tmp_path):
    store = cached(MemoryStore(), tmp_path)
    name = kept(store, "index", b"bytes")
    store.get(name)
    store.delete(name)
    with pytest.raises(MissingError):
        store.get(name)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path):
    (tmp_path / "cache").write_bytes(b"a file")
    store = cached(MemoryStore(), tmp_path)
    name = kept(store, "index", b"bytes")
    assert store.get(name) == b"bytes"
    assert store.get(name) == b"bytes"


# ---- guarded ---------------------------------------------------------------------------------


def test_nothing_is_written_where_no_store_of_this_keep_is():
    inner = MemoryStore("cloud")
    store = GuardedStore(inner, place="s3://bucket", keep_id=KEEP_ID)
    with pytest.raises(UnavailableError, match=r"store\.empty"):
        store.put("pack/ab/object", b"bytes")
    assert inner.objects == {}
    store.put("format/000000000000", FORM % b"fedcba9876543210")
    with pytest.raises(UnavailableError, match=r"store\.foreign"):
        store.put("pack/ab/object", b"bytes")
    store.delete("format/000000000000")
    store.put("format/000000000000", FORM % KEEP_ID.encode())
    store.put("pack/ab/object", b"bytes")
    store.delete("format/000000000000")
    with pytest.raises(UnavailableError, match=r"store\.empty"):
        store.put("pack/ab/other", b"bytes")


def test_a_table_of_the_configuration_says_what_wraps_a_store(tmp_path):
    plain = opened_store(StoreSettings(label="main", path="main"), base=tmp_path, keep_id=KEEP_ID)
    assert isinstance(plain, FolderStore)
    assert isinstance(plain, BatchStore)
    assert isinstance(plain, IntoStore)
    slow = opened_store(StoreSettings(label="nas", path="nas", bytes_per_s=1000), base=tmp_path)
    assert isinstance(slow, ThrottledStore)
