"""How fast files are judged, beside the anchors in the same run, and how much memory it takes.

Ours goes through the SDK as users have it: a warm worker, and for each file a fork that is locked
in. The anchors are called through their Python interfaces in one warm process each, which looks
into all files by itself; that is the fastest form that they have.
"""

from __future__ import annotations

import gzip
import lzma
import os
import statistics
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from _admit_anchors import made, models_python, python_of, served

from modelkeep.scan.settings import ScanSettings
from modelkeep.sdk.scanning import scanned_paths

MB = 1_000_000
MIB = 1024 * 1024
ROUNDS = 9
SCAN_MS_MAX = 50
RATE_MB_S_MIN = 300
MEMORY_MB_MAX = 200
# fickling's seconds stand with the anchors' samples: of a forest of 10 MB it takes minutes.
PEERS = ("picklescan", "modelscan", "modelaudit")
PEER_S_MAX = 60.0  # of one tool over one set: what it would take beyond is not counted
EVERY = 10  # of the harmless models one in so many: modelaudit takes a second for each
LARGE = ("model.safetensors", "model.pt", "model.gguf", "model.onnx")
SETTINGS = ScanSettings()
# A process of its own scans one file and says the peak of the worker and its children.
PEAK = """
import resource, sys, time
from pathlib import Path
from modelkeep.scan.settings import ScanSettings
from modelkeep.sdk.scanning import scanned_paths
from modelkeep.wiring import scanner
path = Path(sys.argv[1])
started = time.perf_counter()
(found,) = scanned_paths([path], ScanSettings())
scanner().close()
print(found.verdict.decision, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""


def measured(folder: Path, models: Sequence[Path], *, is_quick: bool) -> dict[str, Any]:
    """Medians of each kind, rates and peaks of large files, and everybody over the same files."""
    kinds = ten_megabytes(folder / "kinds")
    found: dict[str, Any] = {"kinds": {each.name: timed(each) for each in kinds}}
    found["floors"] = {each.name: floor_ms(each) for each in kinds if floor(each) is not None}
    size = (256 if is_quick else 1024) * MIB
    found["large"] = large(folder / "large", size)
    show_files(found)
    found["peers"] = {"10 MB": beside(kinds), "models": beside(models[::EVERY])}
    return found


def ten_megabytes(folder: Path) -> list[Path]:
    """One file, or folder, of each kind."""
    python, other = models_python(), python_of("modelscan")
    if python is not None:
        made(python, "sized.py", folder)
    if other is not None:
        made(other, "keras_models.py", "speed", folder)
    return sorted(folder.iterdir())


def timed(path: Path) -> dict[str, Any]:
    """Seconds of each scan of one file."""
    took = []
    for _ in range(ROUNDS + 1):
        started = time.perf_counter()
        found = list(scanned_paths([path], SETTINGS))
        took.append(1e3 * (time.perf_counter() - started))
    size = sum(each.size_bytes for each in found)
    decisions = sorted({str(each.verdict.decision) for each in found})
    return {
        "size_mb": size / MB, "median_ms": statistics.median(took[1:]), "least_ms": min(took[1:]),
        "decisions": decisions,
    }  # fmt: skip


def floor(path: Path) -> Callable[[], object] | None:
    """What must be done before anything in a file can be read: unpacking it."""
    if path.suffix == ".gz":
        return lambda: gzip.decompress(path.read_bytes())
    if path.suffix == ".xz":
        return lambda: lzma.decompress(path.read_bytes())
    if path.name == "packed.npz":

        def unpack() -> None:
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    archive.read(name)

        return unpack
    return None


def floor_ms(path: Path) -> float:
    """The least of the floor, in this process."""
    unpack, took = floor(path), []
    assert unpack is not None
    for _ in range(3):
        started = time.perf_counter()
        unpack()
        took.append(1e3 * (time.perf_counter() - started))
    return min(took)


def large(folder: Path, size: int) -> dict[str, Any]:
    """Rates and peaks of large files, and what reading each once takes here."""
    python = models_python()
    if python is None:
        return {}
    made(python, "sized.py", folder, size)
    found = {}
    for path in sorted(folder.iterdir()):
        started = time.perf_counter()
        with path.open("rb", buffering=0) as source:
            held = bytearray(8 * MIB)
            while source.readinto(held):
                pass
        read_s = time.perf_counter() - started
        facts = timed(path)
        command = [sys.executable, "-P", "-c", PEAK, str(path)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        found[path.name] = {
            **facts, "rate_mb_s": 1e3 * facts["size_mb"] / facts["median_ms"],
            "read_mb_s": facts["size_mb"] / read_s, "peak_mb": int(said[1]) / MB,
        }  # fmt: skip
    return found


def beside(paths: Sequence[Path]) -> dict[str, float]:
    """Seconds of every tool over the same files, one after the other."""
    list(scanned_paths(paths[:1], SETTINGS))
    started = time.perf_counter()
    for path in paths:
        list(scanned_paths([path], SETTINGS))
    seconds = {"modelkeep, one by one": time.perf_counter() - started}
    started = time.perf_counter()
    files = [each for path in paths for each in ([path] if path.is_file() else path.rglob("*"))]
    list(scanned_paths([each for each in files if each.is_file()], SETTINGS))
    seconds["modelkeep"] = time.perf_counter() - started
    for tool in PEERS:
        python = python_of(tool)
        if python is None:
            continue
        with served(python, "scan.py", tool) as ask:
            ask(path=str(paths[0]), is_folder=paths[0].is_dir())  # what is loaded once
            seconds[tool] = 0.0
            for number, path in enumerate(paths):
                seconds[tool] += ask(path=str(path), is_folder=path.is_dir())["seconds"]
                if seconds[tool] > PEER_S_MAX:
                    print(f"  {tool} was stopped after {number + 1} of {len(paths)} files")
                    break
    return seconds


def bars(found: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    """What the issue demands of speed and memory."""
    medians = {name: each["median_ms"] for name, each in found["kinds"].items()}
    plain = [each for name, each in medians.items() if name not in found["floors"]]
    rows = [
        ("median scan of 10 MB, all kinds", statistics.median(medians.values()), SCAN_MS_MAX, "ms"),
        ("slowest kind of 10 MB that is not packed", max(plain), SCAN_MS_MAX, "ms"),
    ]
    for name, floored in found["floors"].items():
        ratio = found["kinds"][name]["least_ms"] / floored
        rows.append((f"{name}, by unpacking it alone", ratio, 2, "x"))
    if found["large"]:
        rates = [found["large"][each]["rate_mb_s"] for each in LARGE if each in found["large"]]
        peaks = [each["peak_mb"] for each in found["large"].values()]
        rows.append(("peak memory, any size", max(peaks), MEMORY_MB_MAX, "MB"))
    said = [
        (what, f"{got:.1f} {unit}", f"<= {most} {unit}", got <= most)
        for what, got, most, unit in rows
    ]
    if found["large"]:
        rate = min(rates)
        said.append(
            ("large tensor files", f"{rate:.0f} MB/s", f">= {RATE_MB_S_MIN}", rate >= RATE_MB_S_MIN)
        )
    for name, seconds in found["peers"].items():
        for tool in ("picklescan", "modelaudit"):
            if tool in seconds:
                ratio = seconds[tool] / seconds["modelkeep"]
                said.append((f"{name}: {tool} / ours", f"{ratio:.2f}", "> 1", ratio > 1))
    return said


def show_files(found: dict[str, Any]) -> None:
    """Print what ours takes."""
    load = os.getloadavg()[0]
    print(f"\none scan, warm worker, fresh fork (median of {ROUNDS}); load now {load:.1f}")
    for name, each in found["kinds"].items():
        alone = found["floors"].get(name)
        more = f"   unpacking it alone {alone:.0f} ms" if alone else ""
        decided = ", ".join(each["decisions"])
        print(f"  {name:20}{each['size_mb']:7.1f} MB{each['median_ms']:9.1f} ms   {decided}{more}")
    print("\nlarge files: only what has a structure is read, the limit is a plain read")
    for name, each in found["large"].items():
        print(
            f"  {name:20}{each['size_mb']:7.0f} MB{each['median_ms']:9.1f} ms"
            f"{each['rate_mb_s']:9.0f} MB/s   plain read {each['read_mb_s']:6.0f} MB/s"
            f"   peak {each['peak_mb']:5.0f} MB"
        )


def show(found: dict[str, Any]) -> None:
    """Print what everybody takes."""
    for name, seconds in found["peers"].items():
        told = ", ".join(f"{tool} {each:.2f} s" for tool, each in seconds.items())
        print(f"  all of {name}: {told}")
