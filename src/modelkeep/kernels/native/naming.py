"""What the library of the kernels in C is called: after the machine and the digest of its sources.

It imports nothing of modelkeep: the build (`scripts/build_native.py`) runs it from its file.
"""

from __future__ import annotations

import hashlib
import sysconfig
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def sources() -> list[Path]:
    """The C files and their header, by name."""
    return sorted([*FOLDER.glob("*.c"), *FOLDER.glob("*.h")])


def library_path() -> Path:
    """Where the library of these sources lies on a machine of this kind, built or not."""
    hashed = hashlib.sha256()
    for path in sources():
        raw = path.read_bytes()
        hashed.update(f"{path.name} {len(raw)}\n".encode() + raw)
    machine = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    return FOLDER / f"kernels-{machine}-{hashed.hexdigest()[:16]}.so"
