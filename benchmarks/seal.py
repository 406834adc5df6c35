"""Sealed models: what it costs that nothing loads unproven; and the marks in what was stolen.

    load      beside a plain read into memory that is there, and beside CryptoTensors and tensorizer
              with encryption, in the same run, in turns (`_seal_load.py`)
    runtime   from a sealed memory file into NumPy, PyTorch and ONNX Runtime (`_seal_runtime.py`)
    marks     what watermarks survive, whom they accuse, who can forge them (`_seal_marks.py`)

Run it as `./run bench seal` (smaller with MODELKEEP_BENCH_QUICK=1), a part of it with `--only`. The
peers and the language model need torch, which goes into environments of its own; without it their
rows are missing. MODELKEEP_BENCH_DATA names a folder with real data; `_seal_marks.py` says which.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import _seal_load as load
import _seal_marks as marks
import _seal_runtime as runtime
from _seal_texts import TORCH
from _vault_environments import VENVS, environment

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "seal.json"
PARTS = ("load", "runtime", "marks")
MEMORY_OVER_MODEL = 64 * load.MIB
COPIES_MOST = 1.15  # one copy, and what a runtime needs besides
Bar = tuple[str, str, str, bool]  # what, measured, wanted, whether it is met


def main() -> int:
    """Measure, print, write the results; 1 when a bar was missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    is_quick = bool(os.environ.get("MODELKEEP_BENCH_QUICK"))
    parser.add_argument("--quick", action="store_true", default=is_quick, help="less of it")
    parser.add_argument("--rounds", type=int, default=5, help="of loads")
    parser.add_argument("--only", choices=PARTS, help="one part")
    options = parser.parse_args()
    VENVS.mkdir(exist_ok=True)
    measured = {
        part: of_part(part, is_quick=options.quick, rounds=options.rounds)
        for part in PARTS
        if options.only in (None, part)
    }
    if not options.quick:
        write(measured)
    return 0 if all(is_met for each in measured.values() for *_, is_met in each["bars"]) else 1


def of_part(part: str, *, is_quick: bool, rounds: int) -> dict[str, Any]:
    """Measure a part and print it."""
    started_at = os.getloadavg()[0]
    if part == "marks":
        found = marks.measure(is_quick=is_quick)
        marks.show(found)
    elif part == "runtime":
        found = runtime.measure(environment("sealed", TORCH), is_quick=is_quick)
        found["bars"] = runtime_bars(found)
        runtime.show(found)
        show_bars(found["bars"])
    else:
        form = load.QUICK if is_quick else load.FULL
        with tempfile.TemporaryDirectory(dir=VENVS) as name:
            python = environment("sealed", TORCH)
            found = load.measured(Path(name), form, rounds, python)
        found["bars"] = load_bars(found)
        show_load(found, started_at)
        show_bars(found["bars"])
    return {"load_average": started_at, **found}


def write(measured: dict[str, Any]) -> None:
    """Write the results; those of parts that were not measured stay."""
    former = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    kept = {part: each for part, each in former.items() if part in PARTS}
    RESULTS.write_text(json.dumps({**kept, **measured}, indent=1) + "\n")


def load_bars(found: dict[str, Any]) -> list[Bar]:
    """Each bar of loads."""
    ratio = found["ratio"]
    rows = [
        ("later load / plain read, warm", ratio["later"], 1.6),
        ("first load / plain read, warm", ratio["first"], 2.5),
        ("later load / plain read, cold", ratio["cold"], 1.2),
    ]
    said = [(what, f"{got:.2f}", f"<= {most}", got <= most) for what, got, most in rows]
    for peer in load.PEERS:
        if peer in ratio:
            faster = ratio[peer] / ratio["later"]
            said.append((f"{peer} / ours", f"{faster:.1f}", "> 1", faster > 1))
    over, most = found["fresh"]["load"]["rose"] - found["model_bytes"], MEMORY_OVER_MODEL
    got, wanted = f"{over / 1e6:.0f} MB", f"<= {most / 1e6:.0f} MB"
    said.append(("peak memory over the model", got, wanted, over <= most))
    return said


def runtime_bars(found: dict[str, Any]) -> list[Bar]:
    """At most one copy in ONNX Runtime after the first calls, as we give it the model."""
    copies = {
        name: ways["ours"]["rest_bytes"] / found["size_bytes"]
        for name, ways in found["onnx"].items()
    }
    return [
        (f"copies at rest, ONNX {name}", f"{got:.2f}", f"<= {COPIES_MOST}", got <= COPIES_MOST)
        for name, got in copies.items()
    ]


def show_load(found: dict[str, Any], started_at: float) -> None:
    """Print the table of loads."""
    size = found["model_bytes"]
    print(f"\nmodel {size / 1e9:.2f} GB bf16, {found['rounds']} rounds, load {started_at:.1f}\n")
    for kind, seconds in found["median_s"].items():
        print(f"  {kind:16}{1e3 * seconds:9.0f} ms  {size / seconds / 1e9:6.2f} GB/s")
    whole = found["fresh"]["load"]["seconds"], found["fresh"]["plain"]["seconds"]
    took_ms, other_ms = 1e3 * whole[0], 1e3 * whole[1]
    print(f"  Keep.load whole {took_ms:9.0f} ms  (a read into fresh memory {other_ms:.0f})")


def show_bars(rows: list[Bar]) -> None:
    """Print what was wanted."""
    print()
    for what, got, wanted, is_met in rows:
        print(f"  {'met   ' if is_met else 'MISSED'}  {what:34}{got:>10}   {wanted}")


if __name__ == "__main__":
    sys.exit(main())
