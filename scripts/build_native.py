"""Compile the kernels in C into the library that modelkeep loads, if there is a C compiler.

    python scripts/build_native.py [--quiet]

The library lies beside its sources and is named after their digest; it is written under another
name first, so nobody ever loads half of one. Without a compiler modelkeep runs on its Python.
Exit status: 0 built or up to date, 3 no compiler, 1 the compiler failed.
"""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

FOLDER = Path(__file__).resolve().parent.parent / "src" / "modelkeep" / "kernels" / "native"
NO_COMPILER = 3
COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-std=gnu11", "-O3", "-shared", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra")
MISSING = "on Debian and Ubuntu: apt install gcc libc6-dev"


def compiler() -> str | None:
    """The C compiler of this machine, `CC` first."""
    named = os.environ.get("CC")
    return next(filter(None, map(shutil.which, [named] if named else COMPILERS)), None)


def built(folder: Path = FOLDER) -> tuple[Path | None, str]:
    """Build the library unless it is there: its path, or None and what stood in the way."""
    names = runpy.run_path(str(folder / "naming.py"))
    target = cast("Callable[[], Path]", names["library_path"])()
    if target.is_file():
        return target, ""
    found = compiler()
    if found is None:
        return None, f"there is no C compiler; {MISSING}"
    unfinished = target.with_suffix(f".{os.getpid()}.new")
    command = [found, *FLAGS, *map(str, sorted(folder.glob("*.c"))), "-o", str(unfinished)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if result.returncode:
        unfinished.unlink(missing_ok=True)
        return None, f"the C compiler failed; {MISSING}\n{result.stderr.strip()}"
    unfinished.replace(target)
    for old in folder.glob(f"{target.name.rpartition('-')[0]}-*.so"):
        if old != target:
            old.unlink(missing_ok=True)
    return target, ""


def main() -> int:
    """Build, say what came of it."""
    path, reason = built()
    if path is None:
        print(reason, file=sys.stderr)
        return NO_COMPILER if compiler() is None else 1
    if "--quiet" not in sys.argv:
        print(path.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
