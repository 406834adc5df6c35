"""Protected against unprotected: our gateway beside MLServer, the same model, the same machine.

Ours: TLS, API key, schema, durable record of every call before its answer leaves, two replicas.
MLServer 1.7.1: no TLS, no key, no record, `parallel_workers: 0`, a small MLModel over ONNX Runtime.
Both answer V2 JSON calls for one row of a digits classifier; `wrk` loads one after the other, in
pairs, and the median of the pairs' ratios is the result. Run it as `./run bench gateway`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelkeep.cli.demo_data import digits, trained
from modelkeep.sdk.keep import Keep
from modelkeep.sdk.service import Service

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

PEER = HERE / "peers" / "mlserver"
PEER_VENV = ROOT / ".venv-peers" / "mlserver"
RESULTS = HERE / "results" / "gateway.json"
CONNECTIONS = 32
LOAD_MAX = 1.0
LUA = """wrk.method = "POST"
wrk.path = "/v2/models/digits/infer"
wrk.headers["Content-Type"] = "application/json"
{key}
wrk.body = [[{body}]]
"""


@dataclass(frozen=True)
class Run:
    """What one run of wrk says."""

    calls_per_s: float
    p50_ms: float
    p99_ms: float
    calls: int
    failures: int
    cpu_us: tuple[float, ...]  # CPU a call, for each process that answered


@dataclass(frozen=True)
class Side:
    """One server under load."""

    name: str
    url: str
    script: Path
    pids: tuple[int, ...]


def main() -> int:
    """Start both, load them in turns, print, write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--alone", action="store_true", help="only ours, without MLServer")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    PEER_VENV.parent.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        # Beside the repository and not in /tmp, which may be memory: records must reach a disk.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=PEER_VENV.parent)))
        model = trained(digits(), folder)[1].file
        world = stack.enter_context(our_side(folder, model))
        ours = world.side
        sides = [ours]
        if not options.alone:
            sides.append(stack.enter_context(peer_side(folder, model)))
        runs = measured(sides, pairs=options.pairs, seconds=options.seconds)
        few = {
            count: {side.name: loaded(side, count, seconds=options.seconds) for side in sides}
            for count in (1, 8)
        }
        demand_records(world, runs[ours.name])
    table(runs, few)
    if not options.alone:
        write_results(runs, load)
    return 0


@dataclass(frozen=True)
class World:
    """Our service as `modelkeep serve` runs it."""

    side: Side
    metrics_key: str
    ca_path: Path


@contextlib.contextmanager
def our_side(folder: Path, model: Path) -> Iterator[World]:
    """A keep with one model, served: supervisor, gateway, two replicas, recorder."""
    keep_folder = folder / "keep"
    with Keep.create(keep_folder, passphrase=secrets.token_urlsafe(), port=0) as keep:
        keep.admit(model, name="digits")
        key = keep.access.new_token("load")[1].reveal().decode()
        metrics_key = keep.access.new_token("scraper", scopes=("metrics",))[1].reveal().decode()
        service = keep.serve()
    with service:
        script = folder / "ours.lua"
        header = f'wrk.headers["Authorization"] = "Bearer {key}"'
        script.write_text(LUA.format(key=header, body=body()))
        side = Side("modelkeep", service.url, script, pids_of(service))
        yield World(side, metrics_key, keep_folder / "ca.pem")


def pids_of(service: Service) -> tuple[int, ...]:
    """Gateway, replicas, recorder, supervisor: whatever spends CPU on a call."""
    processes = service.processes()
    order = sorted(processes, key=lambda name: ("gateway", "replica", "recorder").index(
        name.partition("-")[0]
    ))  # fmt: skip
    return (*(processes[name] for name in order), service.pid)


@contextlib.contextmanager
def peer_side(folder: Path, model: Path) -> Iterator[Side]:
    """MLServer in its own environment."""
    make_peer_venv()
    home = folder / "mlserver"
    home.mkdir()
    shutil.copy(model, home / "digits.onnx")
    for name in ("model.py", "model-settings.json"):
        shutil.copy(PEER / name, home)
    settings = json.loads((PEER / "settings.json").read_text())
    settings |= {"http_port": free_port(), "grpc_port": free_port()}
    (home / "settings.json").write_text(json.dumps(settings))
    script = folder / "peer.lua"
    script.write_text(LUA.format(key="", body=body()))
    server = subprocess.Popen(
        [PEER_VENV / "bin" / "mlserver", "start", "."],
        cwd=home,
        env={"PATH": f"{PEER_VENV / 'bin'}:/usr/bin:/bin", "HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{settings['http_port']}"
    try:
        wait_for(f"{url}/v2/models/digits/ready", server)
        yield Side("mlserver", url, script, (server.pid,))
    finally:
        server.terminate()
        server.wait(timeout=20)


def make_peer_venv() -> None:
    """Install MLServer from its lock, once."""
    if (PEER_VENV / "bin" / "mlserver").exists():
        return
    lock = str(PEER / "requirements.lock")
    python = PEER_VENV / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(PEER_VENV)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    print("installing the peer into .venv-peers (once) ...", flush=True)
    install = [*pip, "--no-deps", "--require-hashes", "-r", lock]
    subprocess.run(install, check=True, stderr=subprocess.DEVNULL)


def measured(sides: list[Side], *, pairs: int, seconds: int) -> dict[str, list[Run]]:
    """Load the sides in turns, so that a change of the machine's mood meets both."""
    runs: dict[str, list[Run]] = {side.name: [] for side in sides}
    for side in sides:
        loaded(side, CONNECTIONS, seconds=1)
    for number in range(pairs):
        for side in sides if number % 2 == 0 else sides[::-1]:
            runs[side.name].append(loaded(side, CONNECTIONS, seconds=seconds))
            print(".", end="", flush=True)
    print()
    return runs


def loaded(side: Side, connections: int, *, seconds: int) -> Run:
    """One run of wrk."""
    before = [cpu_s(pid) for pid in side.pids]
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s"]
    done = subprocess.run(
        [*command, str(side.script), side.url], check=True, capture_output=True, text=True
    )
    spent = [cpu_s(pid) - start for pid, start in zip(side.pids, before, strict=True)]
    said = done.stdout
    calls = int(found(r"(\d+) requests in", said))
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    socket_errors = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
    failures = int(bad[1]) if bad else 0
    failures += sum(map(int, socket_errors.groups())) if socket_errors else 0
    return Run(
        calls_per_s=float(found(r"Requests/sec:\s+([\d.]+)", said)),
        p50_ms=milliseconds(found(r"50%\s+(\d\S+)", said)),
        p99_ms=milliseconds(found(r"99%\s+(\d\S+)", said)),
        calls=calls,
        failures=failures,
        cpu_us=tuple(each / max(calls, 1) * 1e6 for each in spent),
    )


def demand_records(world: World, runs: list[Run]) -> None:
    """The claim behind the figures: as many durable records as answers."""
    address = urllib.request.Request(  # noqa: S310  # ours
        f"{world.side.url}/metrics", headers={"Authorization": f"Bearer {world.metrics_key}"}
    )
    context = ssl.create_default_context(cafile=str(world.ca_path))
    with urllib.request.urlopen(address, context=context) as got:  # noqa: S310  # ours
        text = got.read().decode()
    kept = float(found(r"(?m)^modelkeep_journal_records_total ([\d.e+]+)", text))
    answered = sum(run.calls for run in runs)
    assert kept >= answered, f"{answered} answers but {kept} records"
    assert all(run.failures == 0 for run in runs), "a call failed under load"


def table(runs: dict[str, list[Run]], few: dict[int, dict[str, Run]]) -> None:
    """Print medians."""
    print(f"{'':12}{'conns':>6}{'calls/s':>10}{'p50 ms':>9}{'p99 ms':>9}  CPU us a call")
    for name, all_runs in runs.items():
        for count, one in [(count, few[count][name]) for count in few]:
            line(name, count, [one])
        line(name, CONNECTIONS, all_runs)


def line(name: str, connections: int, runs: list[Run]) -> None:
    """One line of the table."""
    cpu = [statistics.median(parts) for parts in zip(*(run.cpu_us for run in runs), strict=True)]
    parts = " + ".join(f"{each:.0f}" for each in cpu)
    print(
        f"{name:12}{connections:>6}{median(runs, 'calls_per_s'):>10.0f}"
        f"{median(runs, 'p50_ms'):>9.2f}{median(runs, 'p99_ms'):>9.2f}  {sum(cpu):.0f} = {parts}"
    )


def write_results(runs: dict[str, list[Run]], load: float) -> None:
    """Judge the bars and write them down."""
    pairs = list(zip(runs["modelkeep"], runs["mlserver"], strict=True))
    ratio = statistics.median(ours.calls_per_s / peer.calls_per_s for ours, peer in pairs)
    gateway_us = statistics.median(run.cpu_us[0] for run in runs["modelkeep"])
    all_us = statistics.median(sum(run.cpu_us) for run in runs["modelkeep"])
    how = f"wrk, {CONNECTIONS} connections, median of {len(pairs)} interleaved pairs, JSON, 1 row"
    is_quiet = load <= LOAD_MAX
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607
        cwd=ROOT, capture_output=True, text=True, check=False,
    ).stdout.strip()  # fmt: skip

    def bar(name: str, value: float, wanted: float, unit: str, *, is_least: bool) -> dict[str, Any]:
        holds = (value >= wanted if is_least else value <= wanted) if is_quiet else None
        return {
            "bar": name, "value": round(value, 3), "wanted": wanted, "holds": holds,
            "unit": unit, "how": how, "commit": commit, "load": round(load, 2),
        }  # fmt: skip

    bars = [
        bar("requests/s against MLServer bare", ratio, 1.0, "x", is_least=True),
        bar("CPU of the gateway a call", gateway_us, 100.0, "us", is_least=False),
        bar("CPU of all processes a call", all_us, 130.0, "us", is_least=False),
        bar("failed calls", sum(run.failures for run, _ in pairs), 0, "calls", is_least=False),
    ]  # fmt: skip
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(bars, indent=2) + "\n")
    for each in bars:
        mark = {True: "holds", False: "does not hold", None: "not judged: load over 1"}
        print(f"{each['bar']}: {each['value']} {each['unit']} ({mark[each['holds']]})")


def body() -> str:
    """One row, as an honest client would write it."""
    pixels = [n % 17 / 16 for n in range(64)]
    row = {"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": pixels}
    return json.dumps({"inputs": [row]})


def median(runs: list[Run], field: str) -> float:
    """The median of one field."""
    return statistics.median(getattr(run, field) for run in runs)


def milliseconds(text: str) -> float:
    """Wrk's `513.00us`, `3.10ms` or `1.02s`."""
    for unit, factor in (("us", 0.001), ("ms", 1.0), ("s", 1000.0)):
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    raise ValueError(text)


def found(pattern: str, text: str) -> str:
    """The one group of a pattern that must be there."""
    match = re.search(pattern, text)
    assert match is not None, f"{pattern} is not in:\n{text}"
    return match[1]


def cpu_s(pid: int) -> float:
    """CPU time of a process, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """A TCP port that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        return int(made.getsockname()[1])


def wait_for(url: str, process: subprocess.Popen[bytes], timeout_s: float = 60) -> None:
    """Wait until an address answers 200."""
    ends = time.monotonic() + timeout_s
    while time.monotonic() < ends:
        if process.poll() is not None:
            raise RuntimeError(f"the peer ended with {process.returncode}")
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=1):  # noqa: S310  # ours
            return
        time.sleep(0.2)
    raise TimeoutError(url)


if __name__ == "__main__":
    sys.exit(main())
