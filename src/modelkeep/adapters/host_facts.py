"""Looking at this machine: what the kernel, the C library and the Python installation say.

Each fact is gathered by itself, and a fact that cannot be had is left unknown: this never fails.
No library beyond the standard one, and no program but Python itself, which tries a sandbox out, and
a driver's own (`nvidia-smi`), which is asked only where an accelerator is demanded and there.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from modelkeep.adapters.host_reach import listeners, port_state, reached
from modelkeep.adapters.memory_room import meminfo, memory_room
from modelkeep.adapters.sandboxes import this_sandbox
from modelkeep.core.errors import IntegrityError
from modelkeep.core.record import Record, from_json, to_json
from modelkeep.ports.host import (
    Accelerator,
    Asked,
    Bounds,
    Clock,
    Host,
    Memory,
    Mode,
    Space,
)
from modelkeep.ports.sandbox import CALLS, Grants, Limits, Measure

_FILE_BYTES_MAX = 16 * 1024
_DRIVER_S_MAX = 5.0
_TRIAL_S_MAX = 30.0
# The code that runs there is the code that runs here, wherever it was imported from.
_EXPLAIN = (
    "import sys; sys.path.insert(0, {root!r}); "
    "from modelkeep.adapters.host_facts import explain; explain(*sys.argv[1:])"
)
_STA_UNSYNC = 0x40
_TIME_ERROR = 5
# struct timex of 64-bit kernels, larger than any of them; mode 0 only reads.
_TIMEX_BYTES = 256
_SMI = ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits")


class SystemFacts:
    """This machine.

    Args:
        root: below which `/proc`, `/sys`, `/dev` and `/etc` lie, for tests.
        grants: what a process keeps whose isolation is tried out.
    """

    def __init__(
        self,
        root: Path = Path("/"),
        *,
        grants: Grants | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._root = root
        self._grants = grants or Grants()
        self._limits = limits or Limits(memory_bytes=1 << 30, cpu_s=0)

    def gathered(self, asked: Asked) -> Host:
        flags = self._cpu_flags()
        return Host(
            system=platform.system().lower(),
            distribution=self._distribution(),
            kernel=_release(platform.release()),
            libc=_libc(),
            python=".".join(map(str, sys.version_info[:3])),
            processor=platform.machine(),
            cpus=_cpus(),
            cpu_flags=flags,
            user=os.geteuid(),
            memory=self._memory(),
            spaces=tuple(map(_space, asked.folders)),
            private=tuple(map(_mode, asked.private)),
            packages={name: _installed(name) for name in asked.packages},
            accelerators=tuple(map(self._accelerator, asked.accelerators)),
            reached=reached(asked.reachable, timeout_s=asked.reach_timeout_s),
            ports=tuple(port_state(address, port) for address, port in asked.ports),
            listeners=listeners(self._root) if asked.listeners else (),
            clock=_clock(),
            has_entropy=_has_entropy(),
            bounds=self._bounds(),
            isolation=self._isolation() if asked.isolation else None,
        )

    def _text(self, path: str) -> str:
        with suppress(OSError), (self._root / path).open("rb") as stream:
            return stream.read(_FILE_BYTES_MAX).decode("utf-8", "replace")
        return ""

    def _memory(self) -> Memory:
        room = memory_room(self._root)
        return Memory(
            available_bytes=room.available_bytes,
            total_bytes=room.total_bytes,
            swap_bytes=meminfo(self._root).get("SwapTotal", -1),
            bound_by=room.bound_by,
        )

    def _cpu_flags(self) -> tuple[str, ...] | None:
        """Of the first processor; the lines of all others say the same again."""
        for line in self._text("proc/cpuinfo").splitlines():
            name, _, rest = line.partition(":")
            if name.strip() in ("flags", "Features"):
                return tuple(rest.split())
        return None

    def _distribution(self) -> tuple[str, str]:
        facts = {}
        for line in self._text("etc/os-release").splitlines():
            name, _, value = line.partition("=")
            facts[name] = value.strip().strip("\"'")
        return facts.get("ID", "").lower(), facts.get("VERSION_ID", "")

    def _bounds(self) -> Bounds:
        return Bounds(
            open_files=_limit(resource.RLIMIT_NOFILE),
            locked_bytes=_limit(getattr(resource, "RLIMIT_MEMLOCK", None)),
            processes=_limit(getattr(resource, "RLIMIT_NPROC", None)),
            core_bytes=_limit(resource.RLIMIT_CORE),
            address_bytes=_limit(resource.RLIMIT_AS),
            overcommit=self._setting("overcommit_memory"),
            mappings=self._setting("max_map_count"),
        )

    def _setting(self, name: str) -> int:
        text = self._text(f"proc/sys/vm/{name}").strip()
        return int(text) if text.isdigit() and len(text) < 20 else -2

    def _accelerator(self, kind: str) -> Accelerator:
        return self._cuda() if kind == "cuda" else self._rocm()

    def _cuda(self) -> Accelerator:
        """Devices that this process may open; their names where the driver's program says them."""
        nodes = self._devices("dev", "nvidia[0-9]*")
        usable = [each for each in nodes if os.access(each, os.R_OK | os.W_OK)]
        if not usable:
            why = "no /dev/nvidia0" if not nodes else "/dev/nvidia* may not be opened"
            return Accelerator(kind="cuda", why_none=why)
        names = _asked_driver()
        names += [each.name for each in usable[len(names) :]]
        return Accelerator(kind="cuda", devices=tuple(names[: len(usable)]))

    def _rocm(self) -> Accelerator:
        """Nodes of the kernel's compute driver that have vector units: those without are CPUs."""
        door = self._root / "dev/kfd"
        if not os.access(door, os.R_OK | os.W_OK):
            why = "/dev/kfd may not be opened" if door.exists() else "no /dev/kfd"
            return Accelerator(kind="rocm", why_none=why)
        nodes = []
        for each in self._devices("sys/class/kfd/kfd/topology/nodes", "[0-9]*"):
            facts = self._text(str(each.relative_to(self._root) / "properties")).splitlines()
            pairs = (line.partition(" ") for line in facts)
            if any(
                name == "simd_count" and value.strip() not in ("", "0") for name, _, value in pairs
            ):
                nodes.append(f"node {each.name}")
        why = "" if nodes else "the compute driver has no device"
        return Accelerator(kind="rocm", devices=tuple(nodes), why_none=why)

    def _devices(self, folder: str, pattern: str) -> list[Path]:
        with suppress(OSError):
            return sorted((self._root / folder).glob(pattern))
        return []

    def _isolation(self) -> tuple[Measure, ...]:
        """Tried in a process of its own: it forks, which a process with threads may not."""
        program = _EXPLAIN.format(root=str(Path(__file__).parents[2]))
        words = (to_json(each).decode() for each in (self._limits, self._grants))
        with suppress(OSError, subprocess.SubprocessError, IntegrityError):
            said = subprocess.run(  # noqa: S603 - our own module, no shell
                [sys.executable, "-I", "-c", program, *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                env={},
                timeout=_TRIAL_S_MAX,
                check=True,
            )
            return from_json(_Explained, said.stdout, what="the trial of a sandbox").measures
        text = "a trial did not come to an end"
        return (Measure(name=CALLS, is_on=False, why=text),)


class _Explained(Record, frozen=True):
    """What the process says that tries a sandbox out."""

    measures: tuple[Measure, ...]


def explain(limits: str, grants: str) -> None:
    """Write what a sandbox brings here to standard output, as JSON."""
    found = this_sandbox().explain(
        from_json(Limits, limits.encode(), what="limits"),
        from_json(Grants, grants.encode(), what="grants"),
    )
    os.write(1, to_json(_Explained(measures=found)))


def _release(text: str) -> str:
    """The numbers that a kernel's release begins with: `6.1.0` of `6.1.0-13-amd64`."""
    numbers = []
    for part in text.split("-", maxsplit=1)[0].split("+", maxsplit=1)[0].split("."):
        if not part.isdigit():
            break
        numbers.append(part)
    return ".".join(numbers)


def _libc() -> str:
    with suppress(OSError, ValueError, AttributeError):
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    return "musl" if any(Path("/lib").glob("ld-musl-*")) else ""


def _cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or -1


def _limit(kind: int | None) -> int:
    """The soft limit."""
    if kind is None:
        return -2
    soft, _ = resource.getrlimit(kind)
    return -1 if soft == resource.RLIM_INFINITY else soft


def _space(folder: str) -> Space:
    """Of the folder, or of the nearest one above it that is there."""
    path = Path(folder).absolute()
    for each in (path, *path.parents):
        with suppress(OSError):
            found = os.statvfs(each)
            # A file system without a table of files (btrfs, overlays of it) says none at all.
            files = found.f_favail if found.f_files else -1
            return Space(
                folder=folder, free_bytes=found.f_bavail * found.f_frsize, free_files=files
            )
    return Space(folder=folder)


def _mode(path: str) -> Mode:
    try:
        found = os.stat(path)  # noqa: PTH116 - links count as what they lead to
    except OSError:
        return Mode(path=path)
    is_folder = (found.st_mode & 0o170000) == 0o040000
    return Mode(path=path, mode=found.st_mode, owner=found.st_uid, is_folder=is_folder)


def _installed(name: str) -> str:
    with suppress(metadata.PackageNotFoundError, ValueError):
        return metadata.version(name) or ""
    return ""


def _asked_driver() -> list[str]:
    """Names of the devices, as the driver's own program says them; none where it is not there."""
    with suppress(OSError, subprocess.SubprocessError):
        said = subprocess.run(  # noqa: S603 - a fixed command
            _SMI, capture_output=True, timeout=_DRIVER_S_MAX, check=True, stdin=subprocess.DEVNULL
        )
        lines = said.stdout.decode("utf-8", "replace").splitlines()
        return [f"{line.strip()} MiB".replace(",", "", 1)[:100] for line in lines if line.strip()]
    return []


def _clock() -> Clock:
    """What the kernel's discipline of its clock says (adjtimex with no change)."""
    now_ns = time.time_ns()
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None, use_errno=True)
        raw = ctypes.create_string_buffer(_TIMEX_BYTES)
        state = libc.adjtimex(raw)
        if state >= 0 and struct.calcsize("l") == 8:
            # modes, padding, offset, freq, maxerror, esterror, status
            error_us, status = struct.unpack_from("=q8xi", raw.raw, 24)
            is_right = state != _TIME_ERROR and not status & _STA_UNSYNC
            return Clock(now_ns=now_ns, is_synchronised=is_right, error_us_max=error_us)
    return Clock(now_ns=now_ns)


def _has_entropy() -> bool | None:
    if not hasattr(os, "getrandom"):
        return None
    try:
        os.getrandom(1, os.GRND_NONBLOCK)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def kept_private(folder: Path, references: Iterable[str]) -> tuple[str, ...]:
    """What of a keep is its owner's only: its folder, its settings, and files with keys."""
    files = [each.removeprefix("file:") for each in references if each.startswith("file:")]
    inside = [folder, folder / "modelkeep.toml", folder / "run", folder / "tls"]
    # A relative path of a reference begins in the keep's folder.
    paths = [*(path for path in inside if path.exists()), *(folder / each for each in files)]
    return tuple(str(path) for path in paths)
