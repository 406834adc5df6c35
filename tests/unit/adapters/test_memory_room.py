"""Memory that can be had, within what control groups allow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.adapters.memory_room import meminfo, memory_room

MEMINFO = "MemTotal:       1000 kB\nMemFree: 1 kB\nMemAvailable:    800 kB\nHugePages_Total: 3\n"


@pytest.fixture
def machine(tmp_path):
    """A machine with files as they are named."""

    def made(**files):
        for name, text in {"proc/meminfo": MEMINFO, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return made


def version_2(limit, used, *, path="", idle=0):
    base = f"sys/fs/cgroup{path}"
    return {
        f"{base}/memory.max": f"{limit}\n",
        f"{base}/memory.current": f"{used}\n",
        f"{base}/memory.stat": f"anon 1\ninactive_file {idle}\n",
    }


def test_without_groups_the_machine_bounds(machine):
    room = memory_room(machine())
    assert (room.available_bytes, room.total_bytes) == (800 * 1024, 1000 * 1024)
    assert room.bound_by == "the machine"


def test_a_group_of_version_2_bounds_and_what_it_can_give_back_is_free(machine):
    files = version_2(500_000, 450_000, path="/a/b", idle=100_000)
    room = memory_room(machine(**files, **{"proc/self/cgroup": "0::/a/b\n"}))
    assert room.available_bytes == 150_000
    assert room.total_bytes == 500_000
    assert room.bound_by == "/sys/fs/cgroup/a/b/memory.max"


def test_the_tightest_group_above_counts(machine):
    files = version_2("max", 1, path="/a/b") | version_2(300_000, 200_000, path="/a")
    room = memory_room(machine(**files, **{"proc/self/cgroup": "0::/a/b\n"}))
    assert room.available_bytes == 100_000


def test_a_group_that_a_container_shows_as_its_root_is_found(machine):
    files = version_2(400_000, 100_000)
    room = memory_room(machine(**files, **{"proc/self/cgroup": "0::/../../system/x\n"}))
    assert room.available_bytes == 300_000


def test_a_group_of_version_1_bounds(machine):
    base = "sys/fs/cgroup/memory/docker/1"
    files = {
        "proc/self/cgroup": "9:name=systemd:/\n4:cpu,memory:/docker/1\n",
        f"{base}/memory.limit_in_bytes": "600000",
        f"{base}/memory.usage_in_bytes": "500000",
        f"{base}/memory.stat": "total_inactive_file 50000\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "1",
    }
    assert memory_room(machine(**files)).available_bytes == 150_000


def test_a_group_that_is_over_its_limit_has_nothing_left(machine):
    files = version_2(100, 200)
    room = memory_room(machine(**files, **{"proc/self/cgroup": "0::/\n"}))
    assert room.available_bytes == 0


def test_where_nothing_is_said_nothing_is_known(tmp_path):
    room = memory_room(tmp_path)
    assert (room.available_bytes, room.total_bytes) == (-1, -1)


def test_counts_are_no_sizes(machine):
    assert meminfo(machine())["HugePages_Total"] == 3


@given(st.text(max_size=200), st.text(max_size=60), st.text(max_size=60))
def test_no_file_of_the_kernel_breaks_it(tmp_path_factory, groups, limit, info):
    root = tmp_path_factory.mktemp("machine")
    for name, text in (
        ("proc/self/cgroup", groups),
        ("proc/meminfo", info),
        ("sys/fs/cgroup/memory.max", limit),
        ("sys/fs/cgroup/memory.current", limit),
    ):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
    assert memory_room(root).available_bytes >= -1


def test_this_machine_says_something():
    room = memory_room()
    assert 0 < room.available_bytes <= room.total_bytes
