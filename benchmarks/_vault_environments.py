"""Environments of their own for what benchmarks/vault needs and modelkeep does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENVS = HERE.parent / ".venv-peers"


def environment(name: str, *first: str) -> Path | None:
    """The Python of a peer's environment, made once from its lock; None, and a line, if it cannot.

    Args:
        first: requirements that are installed before the lock, by themselves.
    """
    folder = VENVS / name
    python, lock = folder / "bin" / "python", HERE / "peers" / name / "requirements.lock"
    stamp = folder / "installed"
    wanted = "\n".join([*first, lock.read_text()])
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"installing peers/{name} into .venv-peers (once) ...", flush=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    steps = [
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        *([[*pip, each] for each in first]),
        [*pip, "--no-deps", "--require-hashes", "-r", str(lock)],
    ]
    for step in steps:
        done = subprocess.run(step, check=False, capture_output=True, text=True)
        if done.returncode:
            print(f"peers/{name} cannot be installed: {last_line(done.stderr)}")
            return None
    stamp.write_text(wanted)
    return python


def run_peer(python: Path, script: str, *words: str) -> None:
    """Run a script of a peer in its environment; what it says on stderr is shown if it fails."""
    path = HERE / "peers" / script
    done = subprocess.run([python, path, *words], check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{script} failed: {done.stderr[-2000:]}")


def last_line(text: str) -> str:
    """What a program said last."""
    return (text.strip().splitlines() or ["no reason was given"])[-1]
