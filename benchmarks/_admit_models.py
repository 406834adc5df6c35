"""Harmless models made by real libraries raise no alarm; damaged, they break nothing."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from _admit_anchors import GRAVER, made, models_python, python_of

from modelkeep.adapters.scan_process import ProcessScanner
from modelkeep.ports.scanner import Unjudged
from modelkeep.scan.settings import ScanSettings
from modelkeep.sdk.scanning import scanned_paths

SETTINGS = ScanSettings()
MODELS_LEAST = 300
SEED_BYTES_MAX = 64 * 1024
FILE_S_MAX = 10
BROKEN = ("scan.worker.crashed", "scan.worker.timeout", "scan.worker.answer")
WARNED = 20  # of what could not be made, at most so many lines


def written(folder: Path) -> list[Path]:
    """Models of every family; those of Keras where it can be had."""
    paths: list[Path] = []
    for python, script in (
        (models_python(), "models.py"),
        (python_of("modelscan"), "keras_models.py"),
    ):
        if python is not None:
            place = folder / Path(script).stem
            made(python, script, "models", place)
            paths += sorted(place.glob("*/*" if script == "models.py" else "*"))
    return paths


def judged(paths: Sequence[Path]) -> dict[str, Any]:
    """What modelkeep says of each."""
    alarms, counts = [], Counter[str]()
    for path in paths:
        found = list(scanned_paths([path], SETTINGS))
        worst = max(found, key=lambda each: GRAVER[each.verdict.decision])
        decision = str(worst.verdict.decision)
        counts[decision] += 1
        if decision != "allow":
            why = [each.evidence for each in worst.verdict.findings if each.severity != "note"]
            alarms.append({"name": "/".join(path.parts[-2:]), "decision": decision, "why": why[:3]})
    families = Counter(path.parent.name for path in paths)
    return {"models": len(paths), "families": families, "decisions": counts, "alarms": alarms}


def mutations(paths: Sequence[Path], count: int) -> dict[str, Any]:
    """What comes of so many damaged files, in a worker as users have it."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))
    from mutations import mutated  # noqa: PLC0415  # the mutator of the tests

    files = [each for path in paths for each in ([path] if path.is_file() else path.rglob("*"))]
    seeds = [
        (each.name, each.read_bytes())
        for each in files
        if each.is_file() and 0 < each.stat().st_size <= SEED_BYTES_MAX
    ]
    asked: dict[str, float] = {}
    longest = 0.0

    def damaged() -> Iterator[Unjudged]:
        for number in range(count):
            name, raw = seeds[number % len(seeds)]
            other = seeds[(7 * number + 1) % len(seeds)][1]
            asked[f"{number}/{name}"] = time.monotonic()
            yield Unjudged(f"{number}/{name}", memoryview(mutated([raw, other], number)))

    broken, decisions, names = [], Counter[str](), iter(range(count))
    scanner = ProcessScanner()
    started = time.monotonic()
    for found in scanner.judge(damaged(), sizes={}, settings=SETTINGS):
        number = next(names)
        name = f"{number}/{seeds[number % len(seeds)][0]}"
        longest = max(longest, time.monotonic() - asked.pop(name))
        rules = {each.rule for each in found.findings}
        decisions[max((str(each.severity) for each in found.findings), default="none")] += 1
        broken += [f"{name}: {rule}" for rule in rules if rule in BROKEN]
    seconds = time.monotonic() - started
    scanner.close()
    return {
        "files": count, "seeds": len(seeds), "broken": broken, "longest_s": longest,
        "seconds": seconds, "findings": decisions,
    }  # fmt: skip


def bars(found: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    """What the issue demands of them."""
    said, damaged = found["judged"], found["mutations"]
    denied, held = said["decisions"]["deny"], said["decisions"]["hold"]
    count, broken, longest = said["models"], len(damaged["broken"]), damaged["longest_s"]
    return [
        ("harmless models", str(count), f">= {MODELS_LEAST}", count >= MODELS_LEAST),
        ("harmless models denied", str(denied), "0", not denied),
        ("harmless models held", str(held), "0", not held),
        (f"{damaged['files']} damaged files: crashes, hangs", str(broken), "0", not broken),
        ("the longest of them", f"{longest:.2f} s", f"<= {FILE_S_MAX} s", longest <= FILE_S_MAX),
    ]


def show(found: dict[str, Any]) -> None:
    """Print the counts and every alarm."""
    said, damaged = found["judged"], found["mutations"]
    families = ", ".join(f"{count} {name}" for name, count in sorted(said["families"].items()))
    print(f"\n{said['models']} harmless models: {families}")
    for each in said["alarms"]:
        print(f"  {each['decision']:6} {each['name']}: {'; '.join(each['why'])[:180]}")
    print(
        f"{damaged['files']} damaged files from {damaged['seeds']} models: "
        f"{damaged['seconds']:.0f} s, the longest {damaged['longest_s']:.2f} s"
    )
    for each in damaged["broken"][:WARNED]:
        print(f"  {each}")
