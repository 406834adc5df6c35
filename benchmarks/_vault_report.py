"""What benchmarks/vault found: bars judged, all figures beside the peers', the machine's floors."""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _vault_data import DELTAS
from _vault_limits import Limits
from _vault_measure import Cost

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "vault.json"
LOAD_MAX = 1.0
MB = 1e6
OURS, FAST = "modelkeep small", "modelkeep fast"
PEERS = ("restic", "borg")
MEMORY_BAR_MB = 300
FINETUNE_BARS = dict(zip(DELTAS, (0.18, 0.28, 0.43), strict=True))
PHASES = (
    "first backup", "unchanged backup", "check of all data", "restore to disk", "restore to memory",
)  # fmt: skip


@dataclass(frozen=True)
class Opening:
    """How long opening one tensor took."""

    median_s: float
    p99_s: float
    size_bytes: float
    count: int


@dataclass
class Findings:
    """Everything measured, raw."""

    form: str
    runs: int
    load: float
    raw_bytes: int
    entropies: dict[str, float]
    limits: Limits | None = None
    versions: dict[str, str] = field(default_factory=dict)
    costs: dict[str, dict[str, list[Cost]]] = field(default_factory=dict)
    stored: dict[str, list[int]] = field(default_factory=dict)
    kinds: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    real_kinds: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    openings: dict[str, Opening] = field(default_factory=dict)

    def seconds(self, tool: str, phase: str) -> float | None:
        """The median."""
        costs = self.costs.get(tool, {}).get(phase)
        return statistics.median(cost.seconds for cost in costs) if costs else None

    def size(self, tool: str) -> float | None:
        """Stored bytes of the family, the median."""
        return statistics.median(self.stored[tool]) if tool in self.stored else None

    def speedup(self, phase: str, peers: tuple[str, ...], tool: str = OURS) -> float | None:
        """The better peer's seconds by ours: the median of the rounds' own ratios."""
        sides = [self.costs.get(each, {}).get(phase) for each in (tool, *peers)]
        if not all(sides):
            return None
        ours, *others = [[cost.seconds for cost in side] for side in sides if side]
        better = [min(each) for each in zip(*others, strict=True)]
        return statistics.median(b / o for b, o in zip(better, ours, strict=True))

    def memory_mb(self, tool: str, phase: str, field_name: str) -> float | None:
        """The most over a bare start, over all rounds."""
        costs = self.costs.get(tool, {})
        if phase not in costs:
            return None
        start = statistics.median(getattr(cost, field_name) for cost in costs["start"])
        return (max(getattr(cost, field_name) for cost in costs[phase]) - start) / MB


@dataclass(frozen=True)
class Row:
    """One figure; `wanted` is the bar, where there is one."""

    name: str
    value: float | None
    unit: str
    how: str = ""
    wanted: float | None = None
    is_least: bool = False

    def holds(self, *, is_quiet: bool) -> bool | None:
        """Whether the bar is met; None without a bar or a figure, or for times under load."""
        if self.value is None or self.wanted is None:
            return None
        if not is_quiet and self.unit in {"x", "ms"}:
            return None
        return self.value >= self.wanted if self.is_least else self.value <= self.wanted


def report(findings: Findings) -> None:
    """Print every table, judge the bars, write everything down."""
    is_quiet = findings.load <= LOAD_MAX
    print_costs(findings)
    print_kinds("generated", findings.kinds)
    print_kinds("real weights", findings.real_kinds)
    print_limits(findings)
    rows = list(bars(findings))
    print(f"\n{'bar':<54}{'value':>9} {'wanted':>8}")
    for row in rows:
        value = "-" if row.value is None else f"{row.value:.3f}"
        wanted = "" if row.wanted is None else f"{'>=' if row.is_least else '<='} {row.wanted:g}"
        said = mark(row, is_quiet=is_quiet)
        print(f"{row.name:<54}{value:>9} {wanted:>8} {row.unit:<7}{said:<13} {row.how}")
    judged = [row.holds(is_quiet=is_quiet) for row in rows if row.wanted is not None]
    met, missed, open_ = (judged.count(each) for each in (True, False, None))
    print(f"{met} bars met, {missed} missed, {open_} not judged")
    write(findings, [*rows, *figures(findings)], is_quiet=is_quiet)


def mark(row: Row, *, is_quiet: bool) -> str:
    """What is said of a bar."""
    if row.wanted is None:
        return ""
    if row.value is None:
        return "not measured"
    return {True: "met", False: "MISSED", None: "not judged: load over 1"}[
        row.holds(is_quiet=is_quiet)
    ]


def bars(findings: Findings) -> Iterator[Row]:
    """Every bar of the issue."""
    yield from bars_of_size(findings)
    yield from bars_of_time(findings)
    for encoding, tensor_ms in (("fast", 10.0), ("small", 60.0)):
        opening = findings.openings.get(encoding)
        name = f"open a tensor, {encoding}" + (", a delta" if encoding == "small" else "")
        how = f"{opening.count} of {opening.size_bytes / MB:.1f} MB" if opening else ""
        yield Row(name, opening and opening.median_s * 1e3, "ms", how, tensor_ms)
        yield Row(f"{name}, 99 of 100", opening and opening.p99_s * 1e3, "ms", "")
    for phase in ("first backup", "restore to disk"):
        for tool in (OURS, FAST):
            how = "VmHWM of the largest process, over `modelkeep --version`"
            over = findings.memory_mb(tool, phase, "peak_bytes")
            yield Row(f"memory over start, {phase}, {tool}", over, "MB", how, MEMORY_BAR_MB)
            over = findings.memory_mb(tool, phase, "anonymous_bytes")
            name = f"anonymous over start, {phase}, {tool}"
            yield Row(name, over, "MB", "all processes", MEMORY_BAR_MB)


def bars_of_size(findings: Findings) -> Iterator[Row]:
    """Stored bytes: the family against the peers, kinds against raw."""
    ours = findings.size(OURS)
    for peer, wanted, aim in (("borg", 0.78, 0.73), ("restic", 0.68, 0.63)):
        theirs = findings.size(peer)
        value = ours / theirs if ours and theirs else None
        yield Row(f"family stored, by {peer}'s", value, "of it", f"aim {aim}", wanted)
    for kind, wanted in {"base": 0.67, **FINETUNE_BARS}.items():
        raw, stored = findings.kinds.get((OURS, kind), (0, 0))
        how = f"order-0 entropy {findings.entropies[kind]:.3f}"
        yield Row(f"{kind}, of raw", stored / raw if raw else None, "of raw", how, wanted)


def bars_of_time(findings: Findings) -> Iterator[Row]:
    """Speed: the better peer's seconds by ours; the check by restic's."""
    for phase, peers, wanted in (
        ("first backup", PEERS, 2.0),
        ("unchanged backup", PEERS, 1.0),
        ("check of all data", ("restic",), 1.3),
        ("restore to disk", PEERS, 1.0),
        ("restore to memory", PEERS, 1.3),
    ):
        how = f"{'the better peer' if peers is PEERS else 'restic'} by ours, median of rounds"
        value = findings.speedup(phase, peers)
        yield Row(f"{phase}, as fast", value, "x", how, wanted, is_least=True)
        value = findings.speedup(phase, peers, FAST)
        yield Row(f"{phase}, as fast, fast store", value, "x", "", is_least=True)


def figures(findings: Findings) -> Iterator[Row]:
    """Everything else, for the file: each tool's figures, each kind, the machine."""
    for tool in findings.costs:
        version = findings.versions[tool]
        yield Row(f"{tool}: stored", mb(findings.size(tool)), "MB", version)
        for phase, costs in findings.costs[tool].items():
            for name, part in (("", "seconds"), (", sync", "sync_s")):
                values = [getattr(cost, part) for cost in costs]
                how = " ".join(f"{value:.2f}" for value in values)
                yield Row(f"{tool}: {phase}{name}", statistics.median(values), "s", how)
            for name, part in (("peak", "peak_bytes"), ("anonymous", "anonymous_bytes")):
                most = max(getattr(cost, part) for cost in costs)
                yield Row(f"{tool}: {phase}, {name}", mb(most), "MB", version)
    for title, kinds in (("", findings.kinds), ("real ", findings.real_kinds)):
        for (tool, kind), (raw, stored) in kinds.items():
            how = f"{raw / MB:.1f} MB raw"
            yield Row(f"{tool}: {title}{kind}", stored / raw, "of raw", how)
    for name, value in vars(findings.limits).items() if findings.limits else ():
        yield Row(f"limit: {name}", value / MB, "MB/s")


def print_costs(findings: Findings) -> None:
    """Seconds, rates, sizes and memory of each tool; how ours compares with each peer."""
    raw = findings.raw_bytes
    print(f"\n{findings.form} form: {raw / MB:.0f} MB, medians of {findings.runs} interleaved runs")
    for tool, version in findings.versions.items():
        size = findings.size(tool)
        print(f"{tool:<16}{version}: stored {size / MB:.0f} MB, {size / raw:.3f} of raw")
    print(f"\n{'':<20}{'':<17}{'s':>8}{'sync':>7}{'MB/s':>7}{'peak MB':>9}{'anon MB':>9}", end="")
    print("".join(f"{'x ' + peer:>10}" for peer in PEERS))
    for phase in PHASES:
        for tool, phases in findings.costs.items():
            if not (costs := phases.get(phase)):
                continue
            took_s = statistics.median(cost.seconds for cost in costs)
            sync_s = statistics.median(cost.sync_s for cost in costs)
            peak = max(cost.peak_bytes for cost in costs) / MB
            anonymous = max(cost.anonymous_bytes for cost in costs) / MB
            print(f"{phase:<20}{tool:<17}{took_s:>8.2f}{sync_s:>7.2f}{raw / took_s / MB:>7.0f}"
                  f"{peak:>9.0f}{anonymous:>9.0f}", end="")  # fmt: skip
            ratios = [findings.speedup(phase, (peer,), tool) for peer in PEERS]
            is_ours = tool not in PEERS
            print("".join(f"{each:>10.2f}" for each in ratios if each and is_ours))


def print_kinds(title: str, kinds: dict[tuple[str, str], tuple[int, int]]) -> None:
    """What each kind added, as a part of its raw size, in each tool."""
    if not kinds:
        return
    tools = sorted({tool for tool, _ in kinds})
    print(f"\n{title + ', stored of raw':<32}{'raw MB':>8}" + "".join(f"{t:>17}" for t in tools))
    names = list(dict.fromkeys(kind for _, kind in kinds))
    for kind in names:
        raw = kinds[tools[0], kind][0]
        shares = [kinds[tool, kind][1] / raw for tool in tools]
        print(f"{kind:<32}{raw / MB:>8.1f}" + "".join(f"{share:>17.3f}" for share in shares))
    raw = sum(kinds[tools[0], kind][0] for kind in names)
    totals = [sum(kinds[tool, kind][1] for kind in names) for tool in tools]
    print(f"{'all':<32}{raw / MB:>8.1f}" + "".join(f"{total / raw:>17.3f}" for total in totals))


def print_limits(findings: Findings) -> None:
    """The machine's limits, and how many times the floor each of our stages takes."""
    limits = findings.limits
    if limits is None:
        return
    print("\nlimits of this machine, GB/s: " + ", ".join(
        f"{name.replace('_', ' ')} {value / 1e9:.2f}" for name, value in vars(limits).items()
    ))  # fmt: skip
    raw = findings.raw_bytes
    print("a floor: memcpy, BLAKE3 and AES-GCM of what a stage must touch, on all cores; the disk")
    for tool in (OURS, FAST):
        if (size := findings.size(tool)) is None:
            continue
        stored = int(size)
        floors = {
            "first backup": limits.floor_s(
                copied=raw, hashed=raw + stored, ciphered=stored, written=stored
            ),
            "check of all data": limits.floor_s(
                copied=stored, hashed=raw + stored, ciphered=stored
            ),
            "restore to disk": limits.floor_s(
                copied=raw + stored, hashed=raw, ciphered=stored, written=raw
            ),
            "restore to memory": limits.floor_s(copied=raw + stored, hashed=raw, ciphered=stored),
        }
        for phase, floor_s in floors.items():
            if took_s := findings.seconds(tool, phase):
                times = took_s / floor_s
                print(
                    f"{tool}, {phase}: {took_s:.2f} s, {times:.1f} x its floor of {floor_s:.2f} s"
                )


def mb(size: float | None) -> float | None:
    """Bytes as MB."""
    return None if size is None else size / MB


def write(findings: Findings, rows: list[Row], *, is_quiet: bool) -> None:
    """The file."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607
        cwd=ROOT, capture_output=True, text=True, check=False,
    ).stdout.strip()  # fmt: skip
    facts: list[dict[str, Any]] = [
        {
            "bar": row.name, "value": row.value if row.value is None else round(row.value, 4),
            "wanted": row.wanted, "holds": row.holds(is_quiet=is_quiet), "unit": row.unit,
            "how": row.how, "form": findings.form, "commit": commit,
            "load": round(findings.load, 2),
        }
        for row in rows
    ]  # fmt: skip
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(facts, indent=2) + "\n")
