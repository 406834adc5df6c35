"""Tables, bars and results of benchmarks/gateway: losses are printed beside wins."""

from __future__ import annotations

import datetime
import ipaddress
import json
import statistics
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _gateway_load import Run, median_run

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "gateway.json"
LOAD_MAX = 1.0
LEAST, MOST = "least", "most"
OURS, NGINX, TRITON, MLSERVER = "modelkeep", "nginx+triton", "triton", "mlserver"
CPU_US_MAX = 130.0


@dataclass(frozen=True)
class Rows:
    """All runs of one payload at one number of connections."""

    label: str
    connections: int
    runs: Mapping[str, Sequence[Run]]

    def ratio(self, peer: str) -> float | None:
        """The median of the pairs' ratios of requests/s; None without that peer."""
        if peer not in self.runs:
            return None
        pairs = zip(self.runs[OURS], self.runs[peer], strict=True)
        return statistics.median(
            mine.calls_per_s / max(other.calls_per_s, 0.001) for mine, other in pairs
        )

    def over(self, peer: str, name: str) -> tuple[float, float] | None:
        """Our median of a figure and the peer's."""
        if peer not in self.runs:
            return None
        mine, other = median_run(self.runs[OURS]), median_run(self.runs[peer])
        return getattr(mine, name), getattr(other, name)


@dataclass
class Table:
    """One part of the benchmark."""

    part: str
    title: str
    rows: list[Rows] = field(default_factory=list)
    syncs_ms: list[float] = field(default_factory=list)

    def add(self, connections: int, runs: Mapping[str, Sequence[Run]], *, label: str = "") -> None:
        """Keep the runs of one line of the table."""
        self.rows.append(Rows(label, connections, runs))

    def calls(self, name: str) -> int:
        """Answers that a side gave in all."""
        return sum(run.calls for rows in self.rows for run in rows.runs[name])

    def at(self, connections: int, label: str = "") -> Rows:
        """One line."""
        return next(
            rows for rows in self.rows if (rows.connections, rows.label) == (connections, label)
        )


@dataclass(frozen=True)
class Bar:
    """One figure that was demanded, and what was found."""

    name: str
    value: float | None
    wanted: float
    unit: str
    bound: str  # least | most
    how: str

    def holds(self) -> bool:
        """Whether it is met; a figure that could not be had is not."""
        if self.value is None:
            return False
        return self.value >= self.wanted if self.bound == LEAST else self.value <= self.wanted


def finished(tables: Sequence[Table], load_average: float) -> int:
    """Print, judge, write; 1 when a bar was missed."""
    is_quiet = load_average <= LOAD_MAX
    written, missed = [], 0
    for table in tables:
        show(table)
        for bar in BARS[table.part](table):
            holds = bar.holds() if is_quiet else None
            missed += holds is False
            word = {True: "holds ", False: "MISSED", None: "not judged: load over 1"}[holds]
            sign, value = ">=" if bar.bound == LEAST else "<=", bar.value
            shown = "not measured" if value is None else f"{value:.3g}"
            print(f"  {word}  {bar.name:58} {shown} {bar.unit}, wanted {sign} {bar.wanted:.4g}")
            row = _row(bar.name, value, bar.unit, bar.how)
            written.append(row | {"wanted": bar.wanted, "holds": holds, "part": table.part})
        written += _figures(table)
    for row in written:
        row["load"] = round(load_average, 2)
    _write(written, {table.part for table in tables})
    print(f"\n{missed} bars missed")
    return 1 if missed else 0


def show(table: Table) -> None:
    """Print medians, and each peer's ratio to ours."""
    print(f"\n{table.title}")
    if table.syncs_ms:
        print(f"one fdatasync, p50: {statistics.median(table.syncs_ms):.3f} ms")
    print(
        f"{'conns':>6} {'':22}{'calls/s':>9}{'ours/it':>9}{'p50 ms':>9}{'p99 ms':>9}"
        "  CPU us a call: client, server"
    )
    for rows in table.rows:
        for name, runs in rows.runs.items():
            run, ratio = median_run(runs), rows.ratio(name)
            cpu = " + ".join(
                f"{process} {us:.0f}" for process, us in run.cpu_us.items() if us >= 0.5
            )
            bad = f"  {run.failures} FAILED" if run.failures else ""
            shown = f"{name} {rows.label}".strip()
            print(
                f"{rows.connections:>6} {shown:22}{run.calls_per_s:>9.0f}"
                f"{ratio or 0:>8.2f}x{run.p50_ms:>9.2f}{run.p99_ms:>9.2f}"
                f"  {run.client_us:.0f}, {run.all_cpu_us:.0f} = {cpu}{bad}"
            )


def _small_bars(table: Table) -> list[Bar]:
    busy, alone = table.at(32), table.at(1)
    tails, waits = busy.over(NGINX, "p99_ms"), alone.over(NGINX, "p50_ms")
    sync_ms = statistics.median(table.syncs_ms)
    how = f"wrk, {{}} connections, median of {len(busy.runs[OURS])} interleaved pairs, JSON, 1 row"
    many, one = how.format(32), how.format(1)
    return [
        Bar("requests/s against nginx + Triton", busy.ratio(NGINX), 1.0, "x", LEAST, many),
        Bar("requests/s against nginx + Triton, aim", busy.ratio(NGINX), 1.25, "x", LEAST, many),
        Bar("requests/s against Triton bare", busy.ratio(TRITON), 0.8, "x", LEAST, many),
        Bar("requests/s against MLServer bare", busy.ratio(MLSERVER), 3.0, "x", LEAST, many),
        Bar("p99 against nginx + Triton", tails and tails[0] / tails[1], 1.0, "x", MOST, many),
        Bar(
            "p50 of one connection over nginx + Triton's + fdatasync",
            waits and waits[0] / (waits[1] + sync_ms), 1.0, "x", MOST,
            f"{one}; fdatasync p50 {sync_ms:.3f} ms in the same run",
        ),
        Bar(
            "CPU of all processes a call", median_run(busy.runs[OURS]).all_cpu_us, CPU_US_MAX,
            "us", MOST, many,
        ),
        _failed(table, many),
    ]  # fmt: skip


def _large_bars(table: Table) -> list[Bar]:
    text, binary = (table.at(8, form) for form in ("json", "binary"))
    how = f"wrk, 8 connections, median of {len(text.runs[OURS])} interleaved pairs, 1x3x224x224"
    return [
        Bar("requests/s against Triton bare, JSON", text.ratio(TRITON), 1.0, "x", LEAST, how),
        Bar("requests/s against Triton bare, JSON, aim", text.ratio(TRITON), 1.5, "x", LEAST, how),
        Bar("requests/s against Triton bare, binary", binary.ratio(TRITON), 0.6, "x", LEAST, how),
        _failed(table, how),
    ]


def _grpc_bars(table: Table) -> list[Bar]:
    how = "h2load, 1 to 128 connections, one stream each"
    return [_failed(table, how)]


def _protection_bars(table: Table) -> list[Bar]:
    how = "wrk, 1 and 32 connections, one protection taken out"
    return [_failed(table, how, names=table.rows[0].runs)]


def _failed(table: Table, how: str, *, names: Iterable[str] = (OURS,)) -> Bar:
    failures = sum(run.failures for rows in table.rows for name in names for run in rows.runs[name])
    return Bar(f"failed calls ({table.part})", failures, 0, "calls", MOST, how)


BARS = {
    "small": _small_bars,
    "large": _large_bars,
    "grpc": _grpc_bars,
    "protections": _protection_bars,
}


def _figures(table: Table) -> list[dict[str, Any]]:
    """Every line of a table, as a row that nothing was demanded of."""
    made = []
    for rows in table.rows:
        for name, runs in rows.runs.items():
            run = median_run(runs)
            what = f"requests/s of {name}" + (f", {rows.label}" if rows.label else "")
            how = f"{table.title}, {rows.connections} connections, median of {len(runs)}"
            made.append(
                _row(what, run.calls_per_s, "1/s", how)
                | {
                    "part": table.part,
                    "wanted": None,
                    "holds": None,
                    "p50_ms": run.p50_ms,
                    "p99_ms": run.p99_ms,
                    "failures": run.failures,
                    "client_us": round(run.client_us, 1),
                    "cpu_us": {each: round(us, 1) for each, us in run.cpu_us.items()},
                }
            )
    return made


def _row(name: str, value: float | None, unit: str, how: str) -> dict[str, Any]:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607
        cwd=ROOT, capture_output=True, text=True, check=False,
    ).stdout.strip()  # fmt: skip
    return {
        "bar": name, "value": None if value is None else round(value, 3), "unit": unit, "how": how,
        "commit": commit,
    }  # fmt: skip


def _write(rows: list[dict[str, Any]], parts: set[str]) -> None:
    """Write the results; those of parts that were not measured stay."""
    former = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    kept = [row for row in former if "part" in row and row["part"] not in parts]
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(kept + rows, indent=2) + "\n")


def certificate(name: str) -> bytes:
    """A certificate of our kind (ECDSA P-256) for nginx, with its key, PEM."""
    from cryptography import x509  # noqa: PLC0415  # only with peers
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
    from cryptography.x509.oid import NameOID  # noqa: PLC0415

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
