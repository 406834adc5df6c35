"""The vault beside restic and BorgBackup: the same models, the same machine, whole processes.

Ours, as a person runs it: `modelkeep init --encoding small`, `save`, `check --read-data`,
`restore`, every one a process of its own that unlocks the keep with Argon2id; signed, in the
ledger, synced before it counts. `fast`, from which models are served, is a row of its own.

Peers: restic (`--compression auto`) and BorgBackup (`zstd,3`, `repokey-blake2`) from Debian. All
repositories, the data and what is restored lie on one file system. What is read is in the page
cache, for everyone: the source is read once before each first backup, a repository has just been
written. A backup and a restore to disk end with a sync that is timed. Tools take turns, each round
in another order, and each restore is compared with its source bit for bit.

Run it as `./run bench vault` (about 20 minutes; a tenth of the size with
MODELKEEP_BENCH_QUICK=1). MODELKEEP_BENCH_DATA names a folder where the data may stay. Real weights
need torch, which goes into an environment of its own.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import _vault_limits as limits
from _vault_data import (
    DELTAS,
    FULL,
    LAST_QUARTER,
    QUICK,
    SEED,
    STEPS_BETWEEN,
    Form,
    entropies,
    make_family,
    read_header,
)
from _vault_environments import environment, run_peer
from _vault_measure import Cost, demand_same, disk_bytes, plain_bytes, run, touch_pages
from _vault_report import Findings, Opening, report
from _vault_tools import PASSPHRASE, Tool, is_ours_ready, modelkeep, present_peers, restored

ROOT = Path(__file__).resolve().parent.parent
VENVS = ROOT / ".venv-peers"
MEMORY = Path("/dev/shm")  # noqa: S108  # a file system in memory is what is measured
TORCH = "torch==2.13.0"
TENSOR_BYTES_MAX = 8 * 1024 * 1024
OPENED = 40
FAMILY = "family"

Make = Callable[[Path], Tool]

KINDS = (
    "base", *DELTAS, LAST_QUARTER, "lora",
    "training/step-10000", f"training/step-{10_000 + STEPS_BETWEEN}", "folder",
)  # fmt: skip
REAL_KINDS = (
    "base-fp32", "base-bf16", "finetune-fp32", "finetune-bf16", "training/first", "training/second",
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where everything lies."""

    work: Path
    kept: dict[str, Path] = field(default_factory=dict)  # our keeps of the last round

    @property
    def log(self) -> Path:
        """What the tools say."""
        return self.work / "log"


def main() -> int:
    """Make the data, measure everything, print, write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    is_quick = bool(os.environ.get("MODELKEEP_BENCH_QUICK"))
    parser.add_argument("--quick", action="store_true", default=is_quick, help="a tenth of it")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    form = QUICK if options.quick else FULL
    load = os.getloadavg()[0]
    VENVS.mkdir(exist_ok=True)
    # Beside the repository and not in /tmp, which may be memory: a sync must reach a disk.
    with tempfile.TemporaryDirectory(dir=VENVS) as name:
        place = Place(Path(name))
        data = Path(os.environ.get("MODELKEEP_BENCH_DATA") or place.work / "data").resolve()
        family, real = family_data(data, form), real_data(data, form)
        findings = Findings(form.name, options.runs, load, plain_bytes(family), entropies(family))
        findings.limits = limits.measured(place.work)
        makers = present_peers()
        if is_ours_ready():
            makers += [lambda home: modelkeep(home, "small"), lambda home: modelkeep(home, "fast")]
        try:
            rounds(findings, place, makers, family)
            openings(findings, place, family)
            for make in makers[:3]:  # not `fast`, which has no codec
                findings.kinds |= grown(place, make, family, KINDS)
                if real is not None:
                    findings.real_kinds |= grown(place, make, real, REAL_KINDS)
        finally:  # what broke is said after what was measured
            report(findings)
    return 0


def family_data(data: Path, form: Form) -> Path:
    """The generated family, made or found."""
    python = environment("parquet")

    def write_tables(folder: Path, size_mb: int) -> bool:
        path = folder / "conversations.parquet"
        if python is None:
            path.unlink(missing_ok=True)
            print("no Parquet file in the folder")
        elif not path.exists():
            run_peer(python, "parquet/write.py", str(path), str(size_mb), str(SEED))
        return python is not None

    folder = data / form.name / FAMILY
    say("making the data")
    make_family(folder, form, write_tables)
    return folder


def real_data(data: Path, form: Form) -> Path | None:
    """Real weights and a really trained pair; None where torch cannot be had."""
    folder = data / form.name / "real"
    stamp = folder / "made"
    if not stamp.exists():
        python = environment("minilm", TORCH)
        if python is None:
            print("no real weights, and no rows of them")
            return None
        say("training all-MiniLM-L6-v2 a little further")
        run_peer(python, "minilm/train.py", str(folder), "40" if form is FULL else "8")
        stamp.touch()
    return folder


def rounds(findings: Findings, place: Place, makers: list[Make], family: Path) -> None:
    """All tools in turns, so that a change of the machine's mood meets all of them."""
    for number in range(findings.runs):
        shift = number % len(makers)
        for make in makers[shift:] + makers[:shift]:
            home = Path(tempfile.mkdtemp(dir=place.work)) / "home"
            tool = make(home)
            findings.versions[tool.name] = tool.version
            costs = findings.costs.setdefault(tool.name, {})
            for phase, cost in life(place, tool, family):
                costs.setdefault(phase, []).append(cost)
            findings.stored.setdefault(tool.name, []).append(disk_bytes(tool.repository))
            say(f"round {number + 1} of {findings.runs}: {tool.name}")
            if number + 1 == findings.runs and tool.name.startswith("modelkeep"):
                place.kept[tool.name] = tool.repository
            else:
                shutil.rmtree(home.parent)


def life(place: Place, tool: Tool, family: Path) -> Iterator[tuple[str, Cost]]:
    """One repository from its making to two restores."""
    log = place.log
    yield "start", run(tool.start, log)
    run(tool.init, log)
    touch_pages(family)
    yield "first backup", run(tool.save(family, FAMILY, 0), log, synced=place.work)
    yield "unchanged backup", run(tool.save(family, FAMILY, 1), log, synced=place.work)
    yield "check of all data", run(tool.check, log)
    targets = [("restore to disk", place.work)]
    if shutil.disk_usage(MEMORY).free > 2 * plain_bytes(family):
        targets.append(("restore to memory", MEMORY))
    for phase, parent in targets:
        with tempfile.TemporaryDirectory(dir=parent) as name:
            target = Path(name)
            is_disk = parent is place.work
            yield phase, run(tool.restore(FAMILY, target), log, synced=target if is_disk else None)
            demand_same(family, restored(tool, target))


def grown(
    place: Place, make: Make, source: Path, kinds: tuple[str, ...]
) -> dict[tuple[str, str], tuple[int, int]]:
    """What each kind adds to one repository in turn: (tool, kind) to (raw, stored) bytes."""
    folder = Path(tempfile.mkdtemp(dir=place.work))
    tool = make(folder / "home")
    run(tool.init, place.log)
    found = {}
    size = disk_bytes(tool.repository)
    for kind in kinds:
        part = source / kind
        run(tool.save(part, named(kind), 0), place.log)
        before, size = size, disk_bytes(tool.repository)
        found[tool.name, kind] = (plain_bytes(part), size - before)
    for kind in kinds:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            run(tool.restore(named(kind), Path(name)), place.log)
            demand_same(source / kind, restored(tool, Path(name)))
    shutil.rmtree(folder)
    say(f"what each kind takes: {tool.name}")
    return found


def named(kind: str) -> str:
    """What a kind is saved under."""
    return kind.replace("/", "-").replace(".", "-")


def openings(findings: Findings, place: Place, family: Path) -> None:
    """One tensor at a time out of warm, open stores, each for the first time."""
    for encoding, model in (("fast", "base"), ("small", "finetune-0.005")):
        keep = place.kept.get(f"modelkeep {encoding}")
        if keep is not None:
            path = f"{model}/model.safetensors"
            findings.openings[encoding] = opened(keep, family, path)


def opened(folder: Path, family: Path, path: str) -> Opening:
    """The largest tensors of at most 8 MiB, in random order."""
    from modelkeep.sdk.keep import Keep  # noqa: PLC0415  # the harness stays small while it measures

    header = read_header(family / path)
    fitting = [name for name, (_, _, size) in header.items() if size <= TENSOR_BYTES_MAX]
    names = sorted(fitting, key=lambda name: -header[name][2])[: OPENED + 1]
    random.Random(SEED).shuffle(names)  # noqa: S311  # an order, no secret
    took_s, sizes = [], []
    with (
        Keep(folder, passphrase=PASSPHRASE) as keep,
        (family / path).open("rb") as stream,
    ):
        for name in names:
            started_s = time.perf_counter()
            found = keep.tensor(FAMILY, path, name)
            took_s.append(time.perf_counter() - started_s)
            _, at, size = header[name]
            stream.seek(at)
            assert stream.read(size) == bytes(found), f"{name} differs"
            sizes.append(size)
    took_s, sizes = took_s[1:], sizes[1:]  # the first one opens the store
    return Opening(
        statistics.median(took_s),
        statistics.quantiles(took_s, n=100, method="inclusive")[98],
        statistics.median(sizes),
        len(took_s),
    )


def say(text: str) -> None:
    """Where we are, with the seconds since the start."""
    print(f"{time.perf_counter() - STARTED_S:6.0f} s  {text}", flush=True)


STARTED_S = time.perf_counter()

if __name__ == "__main__":
    sys.exit(main())
