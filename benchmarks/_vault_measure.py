"""Runs a program as a user would and says what it took: seconds, the sync after it, memory.

Memory is read from /proc every 10 ms over the process and its children: VmHWM, the kernel's own
high-water mark with mapped pages of files, of the largest one, and the most anonymous memory of
all together. (`ru_maxrss` of a child begins at its parent's peak and so says too much.)
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

SAMPLE_S = 0.01
KIB = 1024
COMPARED_BYTES = 256 * KIB  # two pieces stay in the cache


@dataclass(frozen=True)
class Command:
    """What is started."""

    words: list[str]
    cwd: Path
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cost:
    """What it took."""

    seconds: float  # the program and the sync
    sync_s: float
    peak_bytes: int  # VmHWM of the largest process
    anonymous_bytes: int  # RssAnon of all processes


def run(command: Command, log: Path, *, synced: Path | None = None) -> Cost:
    """Run it to its end, then sync what it wrote.

    Args:
        synced: a folder whose file system is synced before (untimed) and after (timed).
    """
    if synced is not None:
        os.sync()
    with log.open("ab") as stream:
        started_s = time.perf_counter()
        process = subprocess.Popen(
            command.words, cwd=command.cwd, env=base_env() | command.env,
            stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
        )  # fmt: skip
        with Watch(process.pid) as watch:
            code = process.wait()
        ended_s = time.perf_counter()
    if synced is not None:
        os.sync()
    synced_s = time.perf_counter()
    if code:
        raise RuntimeError(f"{command.words[:6]} ended with {code}: {log.read_text()[-2000:]}")
    return Cost(synced_s - started_s, synced_s - ended_s, watch.peak_bytes, watch.anonymous_bytes)


def base_env() -> dict[str, str]:
    """The same few variables for everyone."""
    names = ("PATH", "HOME", "LANG", "TMPDIR")
    return {"LC_ALL": "C.UTF-8"} | {name: os.environ[name] for name in names if name in os.environ}


class Watch:
    """Looks at the memory of a process and its children until it is closed."""

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0
        self.anonymous_bytes = 0
        self._pid = pid
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ends.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ends.wait(SAMPLE_S):
            found = [status(pid) for pid in family(self._pid)]
            self.peak_bytes = max(self.peak_bytes, *(peak for peak, _ in found), 0)
            self.anonymous_bytes = max(self.anonymous_bytes, sum(each for _, each in found))


def family(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for each in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{each}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def status(pid: int) -> tuple[int, int]:
    """High-water mark and anonymous memory of a process, in bytes; zeros when it is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0, 0
    found = {"VmHWM": 0, "RssAnon": 0}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name in found:
            found[name] = int(value.split()[0]) * KIB
    return found["VmHWM"], found["RssAnon"]


def disk_bytes(folder: Path) -> int:
    """What `du` says: blocks on disk of all files and folders, after a sync."""
    os.sync()
    return sum(each.lstat().st_blocks * 512 for each in (folder, *folder.rglob("*")))


def plain_bytes(folder: Path) -> int:
    """The sizes of all files."""
    return sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())


def touch_pages(folder: Path) -> None:
    """Read everything once, so that it lies in the page cache."""
    piece = bytearray(COMPARED_BYTES)
    for each in files_of(folder).values():
        with each.open("rb", buffering=0) as stream:
            while stream.readinto(piece):
                pass


def demand_same(source: Path, restored: Path) -> None:
    """Every file, bit for bit, and no other files."""
    wanted, found = files_of(source), files_of(restored)
    assert wanted.keys() == found.keys(), wanted.keys() ^ found.keys()
    for name, path in wanted.items():
        with path.open("rb", buffering=0) as one, found[name].open("rb", buffering=0) as other:
            while piece := one.read(COMPARED_BYTES):
                assert piece == other.read(COMPARED_BYTES), f"{name} differs"
            assert not other.read(1), f"{name} is too long"


def files_of(folder: Path) -> dict[str, Path]:
    """All files by their path below a folder."""
    return {
        str(each.relative_to(folder)): each for each in sorted(folder.rglob("*")) if each.is_file()
    }
