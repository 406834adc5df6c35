"""What the gateway spends its CPU on: perf by library and symbol, py-spy by line where it is here.

perf sees the C below Python and the kernel, and slows nothing down; py-spy sees Python's lines.
Neither needs anything in the gateway. Rates under a profiler are not results.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections import Counter
from pathlib import Path

from _gateway_load import Load, Payload, Run
from _gateway_ours import World

PERF_HERTZ = 997
SPY_HERTZ = 200
SHOWN = 25


def profiled(load: Load, world: World, payload: Payload, connections: int) -> str:
    """Load ours and look at one of its gateways with each tool that is here."""
    pid = world.side.processes["gateway"][0]
    load.run(world.side, payload, connections, seconds=1)
    plain = load.run(world.side, payload, connections)
    parts = [_said(payload, connections, plain)]
    for tool in (_perf, _py_spy):
        found: list[str] = []
        looking = threading.Thread(
            target=lambda tool=tool, found=found: found.append(tool(pid, load))  # type: ignore[misc]
        )
        looking.start()
        load.run(world.side, payload, connections, seconds=load.seconds + 2)
        looking.join()
        parts += found
    return "\n\n".join(parts)


def _said(payload: Payload, connections: int, run: Run) -> str:
    cpu = " + ".join(f"{name} {us:.0f}" for name, us in run.cpu_us.items())
    return (
        f"{payload.name}, {connections} connections: {run.calls_per_s:.0f}/s, p50 {run.p50_ms:.2f} "
        f"ms, p99 {run.p99_ms:.2f} ms, CPU us a call {run.all_cpu_us:.0f} = {cpu}"
    )


def _perf(pid: int, load: Load) -> str:
    program = shutil.which("perf")
    if program is None:
        return "perf is not here"
    data = load.folder / "perf.data"
    seconds = f"{load.seconds:g}"
    record = [program, "record", "-q", "-F", str(PERF_HERTZ), "-p", str(pid), "-o", str(data)]
    subprocess.run([*record, "--", "sleep", seconds], check=False, capture_output=True)
    reports = []
    for sort in ("dso", "dso,symbol"):
        done = subprocess.run(
            [program, "report", "-i", str(data), "--sort", sort, "--percent-limit", "0.8",
             "--stdio"],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        lines = [line.rstrip() for line in done.stdout.splitlines()]
        kept = [line for line in lines if line and not line.startswith("#")][:SHOWN]
        reports.append("\n".join([f"perf by {sort}", *kept]))
    return "\n\n".join(reports)


def _py_spy(pid: int, load: Load) -> str:
    program = shutil.which("py-spy")
    if program is None:
        return "py-spy is not here: no lines of Python"
    data: Path = load.folder / "py-spy.raw"
    seconds = str(max(round(load.seconds), 1))
    subprocess.run(
        [program, "record", "--pid", str(pid), "--duration", seconds, "--rate", str(SPY_HERTZ),
         "--gil", "--nonblocking", "--format", "raw", "--output", str(data)],
        check=False, capture_output=True,
    )  # fmt: skip
    if not data.exists():
        return "py-spy may not look at this process"
    below: Counter[str] = Counter()
    total = 0
    for line in data.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        total += int(count)
        for each in {frame.strip() for frame in stack.split(";")}:
            below[each] += int(count)
    lines = [f"{count / total:6.1%} {frame}" for frame, count in below.most_common(2 * SHOWN)]
    return "\n".join(["py-spy, with what is called", *lines])
