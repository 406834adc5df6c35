"""The embedded runtime of language models against `generate` of transformers, call by call."""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from _vault_environments import environment, run_peer

TORCH = "torch==2.13.0"
ROUNDS, ROUNDS_QUICK = 5, 1
Found = dict[str, Any]


def measured(*, is_quick: bool) -> Found:
    """Tokens a second for several numbers of streams; empty where torch cannot be had."""
    python = environment("text", TORCH)
    if python is None:
        return {}
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "said"
        rounds = ROUNDS_QUICK if is_quick else ROUNDS
        run_peer(python, "text/speak.py", str(rounds), str(out))
        said: Found = json.loads(out.read_text())
    said["rows"] = [row(int(streams), each) for streams, each in said["rows"].items()]
    return said


def row(streams: int, rounds: list[Found]) -> Found:
    """Medians over the rounds; each round has both, one after the other."""

    def rate(one: Found) -> float:
        return float(one["tokens"] / one["seconds"])

    return {
        "streams": streams,
        "ours": statistics.median(rate(each["ours"]) for each in rounds),
        "plain": statistics.median(rate(each["plain"]) for each in rounds),
        "gain": statistics.median(rate(each["ours"]) / rate(each["plain"]) for each in rounds),
        "first_s": statistics.median(each["ours"]["first_s"] for each in rounds),
        "same": min(each["same"] for each in rounds),
    }


def show(found: Found) -> None:
    """Print the table."""
    if not found:
        return
    print(f"\n{'streams':>8}{'ours':>12}{'generate':>12}{'gain':>8}{'first token':>14}{'same':>9}")
    for each in found["rows"]:
        print(f"{each['streams']:>8}{each['ours']:>8.1f} t/s{each['plain']:>8.1f} t/s"
              f"{each['gain']:>7.1f}x{each['first_s']:>12.2f} s"
              f"{each['same']:>6}/{each['streams']}")  # fmt: skip
    print(
        f"imports {found['imported_s']:.1f} s, load {found['load_s']:.1f} s, "
        f"{found['weight_bytes'] / 1e6:.0f} MB of weights, "
        f"peak {found['peak_bytes'] / 1e6:.0f} MB; "
        f"{'exact' if found['is_exact'] else 'not exact'} in any company"
    )


if __name__ == "__main__":
    show(measured(is_quick=True))
