"""Folders to be saved: data with everything that a file system may hold, and how they compare."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import numpy as np


def safetensors(arrays: dict[str, np.ndarray]) -> bytes:
    """A file of FP32 tensors."""
    header, offset = {}, 0
    for name, array in arrays.items():
        end = offset + array.nbytes
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": [offset, end]}
        offset = end
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(8, "little") + raw + b"".join(a.tobytes() for a in arrays.values())


def weights(seed: int = 0, *, step: float = 0.0) -> dict[str, np.ndarray]:
    """Two tensors; a step makes them a fine-tune of those without one."""
    rng, noise = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    shapes = {"wte.weight": (64, 256), "head.weight": (300, 100)}
    return {
        name: (rng.standard_normal(shape) + step * noise.standard_normal(shape)).astype(np.float32)
        for name, shape in shapes.items()
    }


def write_tree(root: Path, *, seed: int = 0) -> Path:
    """A folder with files of every kind, empty ones, modes, times and links."""
    rng = np.random.default_rng(seed)
    (root / "deep" / "er").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "model.safetensors").write_bytes(safetensors(weights(seed)))
    (root / "deep" / "noise.bin").write_bytes(rng.bytes(1_500_000))
    (root / "deep" / "er" / "config.json").write_text(json.dumps({"seed": seed}))
    (root / "deep" / "er" / "nothing").write_bytes(b"")
    (root / "größe.txt").write_text("ü" * 1000)
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "empty").chmod(0o750)
    (root / "latest").symlink_to("deep/er")
    (root / "outside").symlink_to("/etc/passwd")
    (root / "dangling").symlink_to("nowhere/./at-all")
    os.utime(root / "run.sh", ns=(1_600_000_000_123_456_789, 1_600_000_000_123_456_789))
    return root


def picture(root: Path) -> dict[str, tuple[object, ...]]:
    """All that is kept of a folder, by path."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        name = path.relative_to(root).as_posix()
        mode = stat.S_IMODE(status.st_mode)
        if path.is_symlink():
            found[name] = ("link", os.readlink(path))  # noqa: PTH115 - a Path tidies it
        elif path.is_dir():
            found[name] = ("folder", mode)
        else:
            found[name] = ("file", mode, status.st_mtime_ns, path.read_bytes())
    return found
