"""Admission: what the scanner stops, what it lets in, and how fast, beside four others.

    anchors   their own malicious and benign samples, loaded for the truth (`_admit_anchors.py`)
    corpus    our own dangerous files and their benign twins (`_admit_corpus.py`)
    models    harmless models made by real libraries, and damaged ones (`_admit_models.py`)
    speed     10 MB of each kind, large files, everybody on the same set (`_admit_speed.py`)

The anchors are picklescan, modelscan, fickling and modelaudit, each in an environment of its own;
PyTorch and TensorFlow, which make and load models, are in two of these. What cannot be installed is
said, and its rows are missing. Dangerous samples are only loaded in processes without network,
which end at the first thing that they do (`peers/admit/truth.py`).

Run it as `./run bench admit` (a part of it with `--only`, less of it with `--quick`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import _admit_anchors as anchors
import _admit_corpus as corpus
import _admit_models as models
import _admit_speed as speed
from _vault_environments import VENVS

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "admit.json"
PARTS = ("anchors", "corpus", "models", "speed")
MUTATIONS, QUICK_MUTATIONS = 10_000, 1_000


def main() -> int:
    """Measure, print, write the results; 1 when a bar was missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    is_quick = bool(os.environ.get("MODELKEEP_BENCH_QUICK"))
    parser.add_argument("--quick", action="store_true", default=is_quick, help="less of it")
    parser.add_argument("--only", choices=PARTS, action="append", help="one part, or several")
    options = parser.parse_args()
    VENVS.mkdir(exist_ok=True)
    wanted = options.only or PARTS
    with tempfile.TemporaryDirectory(dir=VENVS) as name:
        measured = {
            part: of_part(part, Path(name), is_quick=options.quick)
            for part in PARTS
            if part in wanted
        }
    if not options.quick:
        write(measured)
    missed = [bar for each in measured.values() for bar in each["bars"] if not bar[-1]]
    print(f"\n{len(missed)} bars missed")
    return 1 if missed else 0


def of_part(part: str, folder: Path, *, is_quick: bool) -> dict[str, Any]:
    """Measure a part and print it."""
    load = os.getloadavg()[0]
    if part == "anchors":
        found = anchors.measured(folder / part)
        anchors.show(found)
        found["bars"] = anchors.bars(found)
    elif part == "corpus":
        found = corpus.measured(folder / part, is_quick=is_quick)
        corpus.show(found)
        found["bars"] = corpus.bars(found)
    elif part == "models":
        paths = made_models(folder)
        count = QUICK_MUTATIONS if is_quick else MUTATIONS
        found = {"judged": models.judged(paths), "mutations": models.mutations(paths, count)}
        models.show(found)
        found["bars"] = models.bars(found)
    else:
        found = speed.measured(folder / part, made_models(folder), is_quick=is_quick)
        speed.show(found)
        found["bars"] = speed.bars(found)
    show_bars(found["bars"])
    return {"load_average": load, **found}


def made_models(folder: Path) -> list[Path]:
    """The harmless models, made once."""
    place = folder / "models"
    listed = folder / "models.json"
    if not listed.exists():
        listed.write_text(json.dumps([str(each) for each in models.written(place)]))
    return [Path(each) for each in json.loads(listed.read_text())]


def show_bars(rows: list[tuple[str, str, str, bool]]) -> None:
    """Print what was wanted."""
    print()
    for what, got, wanted, is_met in rows:
        print(f"  {'met   ' if is_met else 'MISSED'}  {what:44}{got:>14}   {wanted}", flush=True)


def write(measured: dict[str, Any]) -> None:
    """Write the results; those of parts that were not measured stay."""
    former = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    kept = {part: each for part, each in former.items() if part in PARTS}
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607
        cwd=ROOT, capture_output=True, text=True, check=False,
    ).stdout.strip()  # fmt: skip
    machine = {"machine": platform.machine(), "python": platform.python_version(), "commit": commit}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({**kept, **measured, **machine}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
