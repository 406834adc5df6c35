"""Sealed models: what it costs that nothing loads unproven; and the marks in what was stolen.

Loads are measured beside a plain read into memory that is there, and beside CryptoTensors and
tensorizer with encryption, in the same run, in turns (`_seal_load.py`).

Run it as `./run bench seal` (a tenth of the size with MODELKEEP_BENCH_QUICK=1). The peers need
torch, which goes into an environment of its own; without it their rows are missing.
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
from _vault_environments import VENVS, environment

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "seal.json"
TORCH = "torch==2.13.0"
MEMORY_OVER_MODEL = 64 * load.MIB


def main() -> int:
    """Measure, print, write the results; 1 when a bar was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    is_quick = bool(os.environ.get("MODELKEEP_BENCH_QUICK"))
    parser.add_argument("--quick", action="store_true", default=is_quick, help="a tenth of it")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    started_at = os.getloadavg()[0]
    VENVS.mkdir(exist_ok=True)
    form = load.QUICK if options.quick else load.FULL
    with tempfile.TemporaryDirectory(dir=VENVS) as name:
        python = environment("sealed", TORCH)
        found = load.measured(Path(name), form, options.rounds, python)
    rows = bars(found)
    show(found, rows, started_at)
    if not options.quick:
        RESULTS.write_text(json.dumps({"load_average": started_at, **found}, indent=1) + "\n")
    return 0 if all(is_met for *_, is_met in rows) else 1


def bars(found: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    """Each bar: what, measured, wanted, whether it was met."""
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
    over = found["fresh"]["load"]["rose"] - found["model_bytes"]
    most = MEMORY_OVER_MODEL
    said.append(
        (
            "peak memory over the model",
            f"{over / 1e6:.0f} MB",
            f"<= {most / 1e6:.0f} MB",
            over <= most,
        )
    )
    return said


def show(found: dict[str, Any], rows: list[tuple[str, str, str, bool]], started_at: float) -> None:
    """Print the table."""
    size = found["model_bytes"]
    print(f"\nmodel {size / 1e9:.2f} GB bf16, {found['rounds']} rounds, load {started_at:.1f}\n")
    for kind, seconds in found["median_s"].items():
        print(f"  {kind:16}{1e3 * seconds:9.0f} ms  {size / seconds / 1e9:6.2f} GB/s")
    whole = found["fresh"]["load"]["seconds"], found["fresh"]["plain"]["seconds"]
    took_ms, other_ms = 1e3 * whole[0], 1e3 * whole[1]
    print(f"  Keep.load whole {took_ms:9.0f} ms  (a read into fresh memory {other_ms:.0f})\n")
    for what, got, wanted, is_met in rows:
        print(f"  {'met   ' if is_met else 'MISSED'}  {what:34}{got:>10}   {wanted}")


if __name__ == "__main__":
    sys.exit(main())
