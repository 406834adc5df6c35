"""How much memory this process can still be given: what is free, within what its groups may use.

The machine may have memory to spare that a control group (a container, a service with `MemoryMax`)
does not let its processes have: past its limit the kernel ends one of them. So the room is the
least of what the kernel says is available and of what each group above this process has left. Of
what a group uses the pages of files that nobody looked at lately are given back when memory is
short, so they count as free, as the kernel counts them in `MemAvailable`.

Both interfaces are read (version 2: `memory.max`; version 1: `memory.limit_in_bytes`). A container
may see its group under the host's path, or as the root of what is mounted: every folder from the
group's path up to the mount's root that is there counts.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

# Version 1 says "no limit" with the largest number of pages; no machine has that much.
_UNLIMITED = 1 << 60
_FILE_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class Room:
    """Memory that can be had.

    Attributes:
        available_bytes: -1 where nothing says.
        total_bytes: of the machine, or what a group may use at most if that is less.
        bound_by: what allows no more: `the machine`, or the folder of a control group.
    """

    available_bytes: int
    total_bytes: int
    bound_by: str


@dataclass(frozen=True, slots=True)
class _Interface:
    """Names of one version's files."""

    mount: str
    limit: str
    used: str
    idle: str


_VERSION_2 = _Interface("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")
_HYBRID = _Interface("sys/fs/cgroup/unified", "memory.max", "memory.current", "inactive_file")
_VERSION_1 = _Interface(
    "sys/fs/cgroup/memory",
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    "total_inactive_file",
)


def memory_room(root: Path = Path("/")) -> Room:
    """Look now; takes well under a millisecond.

    Args:
        root: below which `/proc` and `/sys` lie, for tests.
    """
    facts = meminfo(root)
    available = facts.get("MemAvailable", -1)
    total = facts.get("MemTotal", -1)
    bound_by = "the machine"
    for folder, interface in _groups(root):
        limit = _number(folder / interface.limit)
        used = _number(folder / interface.used)
        if limit < 0 or limit >= _UNLIMITED or used < 0:
            continue
        total = limit if total < 0 else min(total, limit)
        free = max(0, limit - max(0, used - _idle(folder, interface)))
        if available < 0 or free < available:
            available, bound_by = free, f"/{folder.relative_to(root)}/{interface.limit}"
    return Room(available, total, bound_by)


def meminfo(root: Path = Path("/")) -> dict[str, int]:
    """What `/proc/meminfo` says, in bytes; nothing where it is not there."""
    found = {}
    for line in _text(root / "proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            found[name] = int(words[0]) * (1024 if words[1:] == ["kB"] else 1)
    return found


def _groups(root: Path) -> list[tuple[Path, _Interface]]:
    """The folders of the groups that this process is in, and of those above them."""
    found: dict[Path, _Interface] = {}
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            interfaces = [_VERSION_2, _HYBRID]
        elif "memory" in controllers.split(","):
            interfaces = [_VERSION_1]
        else:
            continue
        own = PurePosixPath("/", *(part for part in path.split("/") if part not in ("", "..", ".")))
        for interface in interfaces:
            for each in (own, *own.parents):
                folder = root / interface.mount / str(each).lstrip("/")
                if (folder / interface.limit).is_file():
                    found.setdefault(folder, interface)
    return list(found.items())


def _idle(folder: Path, interface: _Interface) -> int:
    for line in _text(folder / "memory.stat").splitlines():
        name, _, number = line.partition(" ")
        if name == interface.idle and number.strip().isdigit():
            return int(number)
    return 0


def _number(path: Path) -> int:
    """A file's number; -1 for `max`, and where there is none."""
    text = _text(path).strip()
    return int(text) if text.isdigit() and len(text) < 20 else -1


def _text(path: Path) -> str:
    with suppress(OSError), path.open("rb") as stream:
        return stream.read(_FILE_BYTES_MAX).decode("ascii", "replace")
    return ""
