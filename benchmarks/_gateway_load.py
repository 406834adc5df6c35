"""Load from outside: wrk over HTTP, h2load over gRPC, and what it cost each process.

Both are C programs with one thread that keep one call under way on each connection. wrk sends
bodies from a Lua script; a gRPC call is an HTTP/2 POST of one framed message, so h2load can send
it, and its log has each call's time. What h2load cannot see is gRPC's status, which is in trailers:
an error has no message, so the bytes of data say whether all calls were answered.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

GRPC_PATH = "inference.GRPCInferenceService/ModelInfer"
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Payload:
    """One call, as bytes: the same for every server."""

    name: str
    model: str
    form: str  # json | binary | grpc
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Side:
    """One server under load."""

    name: str
    url: str
    processes: Mapping[str, Sequence[int]]  # all that spend CPU on a call, by what they are
    grpc_url: str = ""
    authorization: str = ""


@dataclass(frozen=True)
class Run:
    """What one run says."""

    calls_per_s: float
    p50_ms: float
    p99_ms: float
    calls: int
    failures: int
    cpu_us: Mapping[str, float]  # CPU a call, by process
    client_us: float  # CPU a call of the program that loads

    @property
    def all_cpu_us(self) -> float:
        """CPU a call of all processes of the server together."""
        return sum(self.cpu_us.values())


@dataclass
class Load:
    """Runs the two programs; `folder` holds their scripts, bodies and logs."""

    folder: Path
    seconds: float
    written: set[str] = field(default_factory=set)

    def run(self, side: Side, payload: Payload, connections: int, *, seconds: float = 0.0) -> Run:
        """One run of one payload against one server."""
        measured = _over_grpc if payload.form == "grpc" else _over_http
        return measured(self, side, payload, connections, seconds or self.seconds)

    def stored(self, payload: Payload) -> Path:
        """The body as a file."""
        path = self.folder / f"{payload.name}.body"
        if payload.name not in self.written:
            path.write_bytes(payload.body)
            self.written.add(payload.name)
        return path


def _over_http(load: Load, side: Side, payload: Payload, connections: int, seconds: float) -> Run:
    headers = [*payload.headers]
    if side.authorization:
        headers.append(("Authorization", side.authorization))
    script = load.folder / f"{side.name}-{payload.name}.lua"
    lines = [
        'wrk.method = "POST"',
        f'wrk.path = "/v2/models/{payload.model}/infer"',
        *(f'wrk.headers["{name}"] = "{value}"' for name, value in headers),
        f'local file = assert(io.open("{load.stored(payload)}", "rb"))',
        'wrk.body = file:read("*a")',
        "file:close()",
    ]
    script.write_text("\n".join(lines) + "\n")
    script.chmod(0o600)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(round(seconds), 1)}s", "--timeout", "20s"]
    before, own_s = spent_s(side), _children_s()
    done = subprocess.run(
        [*command, "--latency", "-s", str(script), side.url],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    after, said = spent_s(side), done.stdout
    calls = int(found(r"(\d+) requests in", said))
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    socket_errors = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
    failures = int(bad[1]) if bad else 0
    failures += sum(map(int, socket_errors.groups())) if socket_errors else 0
    return Run(
        calls_per_s=float(found(r"Requests/sec:\s+([\d.]+)", said)),
        p50_ms=_milliseconds(found(r"50%\s+(\d\S+)", said)),
        p99_ms=_milliseconds(found(r"99%\s+(\d\S+)", said)),
        calls=calls,
        failures=failures,
        cpu_us=_cost_us(before, after, calls),
        client_us=(_children_s() - own_s) / max(calls, 1) * 1e6,
    )


def _over_grpc(load: Load, side: Side, payload: Payload, connections: int, seconds: float) -> Run:
    log = load.folder / f"{side.name}-{payload.name}.log"
    log.unlink(missing_ok=True)
    whole_s = max(round(seconds), 1)
    words = (f"-c{connections}", f"-D{whole_s}", f"--log-file={log}")
    command = _grpc_command(load, side, payload, *words)
    before, own_s = spent_s(side), _children_s()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    after, said = spent_s(side), done.stdout
    rows = [line.split("\t") for line in log.read_text().splitlines()]
    times_us = sorted(int(took) for _, status, took in rows if status == "200")
    # Without a message in each answer some were errors; frames differ in length by a few bytes.
    data_bytes = int(found(r"\((\d+)\) data", said))
    answered = min(len(times_us), data_bytes // max(_answer_bytes(load, side, payload), 1))
    calls = len(times_us)
    return Run(
        calls_per_s=calls / whole_s,
        p50_ms=times_us[calls // 2] / 1000 if calls else 0.0,
        p99_ms=times_us[calls * 99 // 100] / 1000 if calls else 0.0,
        calls=calls,
        failures=len(rows) - answered,
        cpu_us=_cost_us(before, after, calls),
        client_us=(_children_s() - own_s) / max(calls, 1) * 1e6,
    )


def _answer_bytes(load: Load, side: Side, payload: Payload) -> int:
    """The length of one answer, from one call by itself that must succeed."""
    done = subprocess.run(
        _grpc_command(load, side, payload, "-n1", "-c1"), check=True, capture_output=True, text=True
    )
    size_bytes = int(found(r"\((\d+)\) data", done.stdout))
    assert size_bytes > 0, f"{side.name} does not answer {payload.name} over gRPC"
    return size_bytes


def _grpc_command(load: Load, side: Side, payload: Payload, *words: str) -> list[str]:
    headers = ["content-type: application/grpc", "te: trailers"]
    if side.authorization:
        headers.append(f"authorization: {side.authorization}")
    return [
        *("h2load", "-t1", "-m1", "-d", str(load.stored(payload)), *words),
        *(f"--header={each}" for each in headers),
        f"{side.grpc_url}/{GRPC_PATH}",
    ]


def spent_s(side: Side) -> dict[str, float]:
    """CPU seconds so far, by process; what a process has started counts with it."""
    named = {pid for pids in side.processes.values() for pid in pids}
    return {
        name: sum(cpu_s(each) for pid in pids for each in _family(pid, named))
        for name, pids in side.processes.items()
    }


def _family(pid: int, named: set[int]) -> list[int]:
    """A process and what it has started, without what is counted under its own name."""
    found_pids = [pid]
    for each in found_pids:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{each}/task").iterdir():
                children = map(int, (task / "children").read_text().split())
                found_pids += [child for child in children if child not in named]
    return found_pids


def _children_s() -> float:
    """CPU seconds of the programs that were run and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def cpu_s(pid: int) -> float:
    """CPU time of a process, user and system; 0 for one that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def median_run(runs: Sequence[Run]) -> Run:
    """Medians of each figure, failures added up."""

    def median(name: str) -> float:
        return statistics.median(getattr(run, name) for run in runs)

    return Run(
        calls_per_s=median("calls_per_s"),
        p50_ms=median("p50_ms"),
        p99_ms=median("p99_ms"),
        calls=sum(run.calls for run in runs),
        failures=sum(run.failures for run in runs),
        cpu_us={
            name: statistics.median(run.cpu_us[name] for run in runs) for name in runs[0].cpu_us
        },
        client_us=median("client_us"),
    )


def found(pattern: str, text: str) -> str:
    """The one group of a pattern that must be there."""
    match = re.search(pattern, text)
    assert match is not None, f"{pattern} is not in:\n{text}"
    return match[1]


def _cost_us(before: dict[str, float], after: dict[str, float], calls: int) -> dict[str, float]:
    return {name: (after[name] - start) / max(calls, 1) * 1e6 for name, start in before.items()}


def _milliseconds(text: str) -> float:
    """Wrk's `513.00us`, `3.10ms` or `1.02s`."""
    for unit, factor in (("us", 0.001), ("ms", 1.0), ("s", 1000.0)):
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    raise ValueError(text)
