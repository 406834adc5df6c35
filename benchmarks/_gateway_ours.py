"""Our side: a keep with both models, served as `modelkeep serve` serves it, everything on."""

from __future__ import annotations

import contextlib
import re
import secrets
import ssl
import statistics
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import O_CREAT, O_WRONLY, close, fdatasync, write
from os import open as open_fd
from pathlib import Path

import _gateway_variant as variant
from _gateway_load import Side
from _gateway_models import Model
from _gateway_peers import free_port

from modelkeep.sdk.keep import Keep
from modelkeep.sdk.service import Service

# Limits that count every call and refuse none.
LIMITS = """
[[limits]]
name = "benchmark"
each = ["principal", "model"]
calls_per_second = 1_000_000
calls_per_day = 1_000_000_000
bytes_per_second = 1_000_000_000_000
concurrent = 100_000
"""
RECORD_BYTES = 200  # of one call, with its frame
SYNCS = 200


@dataclass(frozen=True)
class World:
    """A running service and what is needed to ask it."""

    side: Side
    service: Service
    metrics_key: str
    folder: Path

    def records(self) -> float:
        """Records that the call journals of this service have taken."""
        return self.metric("modelkeep_journal_records_total")

    def metric(self, name: str) -> float:
        """One counter of `/metrics`, over all its labels."""
        address = urllib.request.Request(  # noqa: S310  # ours
            f"{self.side.url}/metrics", headers={"Authorization": f"Bearer {self.metrics_key}"}
        )
        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        with urllib.request.urlopen(address, context=context) as got:  # noqa: S310  # ours
            text = got.read().decode()
        values = re.findall(rf"(?m)^{name}(?:{{.*}})? ([\d.e+]+)", text)
        assert values, f"{name} is not a metric"
        return sum(map(float, values))


@dataclass(frozen=True)
class Options:
    """How the service runs."""

    gateways: int = 0  # as [serve] gateways
    without: str = ""  # a protection


@contextlib.contextmanager
def ours(folder: Path, models: Sequence[Model], options: Options) -> Iterator[World]:
    """The service, with supervisor, keyholder, recorder, gateways and two replicas a model."""
    folder.mkdir()
    keep_folder = folder / "keep"
    grpc_port = free_port()
    passphrase = secrets.token_urlsafe()
    with Keep.create(keep_folder, passphrase=passphrase, port=0) as keep:
        for each in models:
            keep.admit(each.path, name=each.name)
        key = keep.access.new_token("load")[1].reveal().decode()
        metrics_key = keep.access.new_token("scraper", scopes=("metrics",))[1].reveal().decode()
    settings = keep_folder / "modelkeep.toml"
    settings.write_text(
        configured(settings.read_text(), gateways=options.gateways, grpc_port=grpc_port)
    )
    with Keep(keep_folder, passphrase=passphrase) as keep, python_of(folder, options.without):
        service = keep.serve()
    with service:
        url = service.url
        if options.without == "tls":
            url = url.replace("https:", "http:")
        name = f"without {options.without}" if options.without else "modelkeep"
        side = Side(
            name, url, processes_of(service), f"https://127.0.0.1:{grpc_port}", f"Bearer {key}"
        )
        yield World(side, service, metrics_key, keep_folder)


def configured(text: str, *, gateways: int, grpc_port: int) -> str:
    """The keep's configuration with the benchmark's settings in it."""
    lines = f"gateways = {gateways}\ngrpc_port = {grpc_port}\n"
    made = re.sub(r"(?m)^\[serve\]\n", f"[serve]\n{lines}", text)
    if made == text:
        made += f"\n[serve]\n{lines}"
    return made + LIMITS


@contextlib.contextmanager
def python_of(folder: Path, protection: str) -> Iterator[None]:
    """Have the service started by a Python whose gateways lack a protection."""
    python = sys.executable
    if protection:
        sys.executable = str(variant.launcher(folder, protection))
    try:
        yield
    finally:
        sys.executable = python


def processes_of(service: Service) -> dict[str, list[int]]:
    """Everything of the service that runs, by what it is."""
    processes: dict[str, list[int]] = {"gateway": [], "replica": []}
    for name, pid in service.processes().items():
        processes.setdefault(name.partition("-")[0], []).append(pid)
    return processes | {"supervisor": [service.pid]}


def fdatasync_ms(folder: Path) -> float:
    """The p50 of one fdatasync after an append, on the journal's file system, now."""
    path = folder / "sync.probe"
    fd = open_fd(path, O_CREAT | O_WRONLY, 0o600)
    times = []
    try:
        for _ in range(SYNCS):
            started = time.perf_counter()
            write(fd, b"x" * RECORD_BYTES)
            fdatasync(fd)
            times.append(time.perf_counter() - started)
    finally:
        close(fd)
        path.unlink()
    return statistics.median(times) * 1000


def demand_records(world: World, answered: int) -> None:
    """The claim behind the figures: as many durable records as answers."""
    kept = world.records()
    assert kept >= answered, f"{answered} answers but {kept:.0f} records"


def gateway_count(world: World) -> int:
    """How many gateways there are."""
    return len(world.side.processes["gateway"])
