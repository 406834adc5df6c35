"""A cluster of Ray of several nodes on this machine, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from gateway_world import SOURCE

from modelkeep.adapters.ray_settings import RaySettings, ray_environment

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = Path(__file__).resolve().parent / "ray_nodes.py"


def ray_python() -> Path:
    """The Python of the environment with Ray, made if it is not there.

    Raises:
        RuntimeError: it cannot be made.
    """
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        from _vault_environments import environment  # noqa: PLC0415
    finally:
        sys.path.pop(0)
    python = environment("ray")
    if python is None:
        raise RuntimeError("the environment for Ray cannot be made")
    packages = next((python.parents[1] / "lib").glob("python3*")) / "site-packages"
    (packages / "modelkeep.pth").write_text(f"{SOURCE}\n")
    return python


class Nodes:
    """A cluster, held by a process of its own that does what it is told, line by line."""

    def __init__(self, python: Path, folder: Path, *, workers: int) -> None:
        self.folder = folder
        self._log = folder / "nodes.log"
        (folder / "ray").mkdir()
        environment = {
            "PATH": os.environ["PATH"],
            "RAY_TMPDIR": str(folder),
            **ray_environment(RaySettings()),
        }
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(python), "-I", str(CLUSTER), str(workers)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
            )
        self.address: str = self.told()["address"]

    def told(self) -> dict:
        """What it says next."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(self._log.read_text()[-3000:])
        return json.loads(line)

    def asked(self, *words: str) -> dict:
        """Tell it to do something."""
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()
        return self.told()

    def end(self) -> None:
        """End every node."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
