"""Proves cases: writes their files, lets their loaders load both, says what was touched."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.corpus.cases import SECRET, Case, Harm

PROVER = Path(__file__).parent / "prover"
_ENDS = {
    Harm.NETWORK: ("network",),
    Harm.MEMORY: ("memory", "SIGKILL", "SIGABRT", "SIGSEGV", "SIGBUS"),
    Harm.DISK: ("disk",),
    Harm.CRASH: ("SIGABRT", "SIGSEGV"),
    Harm.TIME: ("SIGXCPU", "SIGKILL"),
}


@dataclass(frozen=True)
class Proof:
    """What loading a case and its twin did.

    Attributes:
        faults: why this proves nothing; empty where it does.
    """

    case: Case
    dangerous: Mapping[str, object]
    twin: Mapping[str, object]

    @property
    def faults(self) -> tuple[str, ...]:
        """What is missing from a proof."""
        found = []
        touched, end = self.dangerous["touched"], self.dangerous["end"]
        wanted = _ENDS.get(self.case.harm)
        if end not in wanted if wanted else not touched:
            said = self.dangerous["said"]
            found.append(f"the dangerous one: {end}, touched {touched}, said {said}")
        if self.twin["touched"] or self.twin["end"] != "loaded":
            end, touched, said = (self.twin[key] for key in ("end", "touched", "said"))
            found.append(f"the twin: {end}, touched {touched}, said {said}")
        return tuple(found)


def proofs(
    python: str, cases: Sequence[Case], place: Path, traps: Path, modules: Sequence[str]
) -> Iterator[Proof]:
    """Load every case and its twin in the environment of this Python."""
    jobs = []
    for case in cases:
        for kind, files in (("dangerous", case.dangerous), ("twin", case.twin)):
            trap = traps / case.name
            folder = place / kind / case.name
            written(folder, files)
            trap.mkdir(parents=True, exist_ok=True)
            (trap / "secret").write_bytes(SECRET)
            job = {"name": case.name, "loader": case.loader, "main": case.main}
            paths = {"folder": str(folder), "trap": str(trap), "harm": case.harm.value}
            jobs.append(job | paths)
    command = [python, "-W", "ignore", str(PROVER), *modules]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as prover:
        assert prover.stdin is not None
        assert prover.stdout is not None
        answers: list[Mapping[str, object]] = []
        for at, job in enumerate(jobs):
            trap = Path(job["trap"])
            reset(trap)
            prover.stdin.write(json.dumps(job) + "\n")
            prover.stdin.flush()
            answers.append(json.loads(prover.stdout.readline()))
            if at % 2:
                yield Proof(cases[at // 2], answers[at - 1], answers[at])
        prover.stdin.close()


def reset(trap: Path) -> None:
    """Lay the trap again, whatever was done to it."""
    shutil.rmtree(trap, ignore_errors=True)
    trap.mkdir(parents=True)
    (trap / "secret").write_bytes(SECRET)


def written(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a case's files; `->` in front of a content makes a link."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content.startswith(b"->"):
            path.symlink_to(content[2:].decode())
        else:
            path.write_bytes(content)
