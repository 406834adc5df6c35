"""The ledger under load: durable records a second, acknowledgement times, proofs; peers beside it.

Ours, as a service runs it: four producer processes send batches over the recorder's socket; the
recorder process encrypts and syncs every batch before it answers, and meanwhile writes leaves,
bodies, tiles and signed checkpoints into a store. Afterwards the log is verified and every
acknowledged record is looked up in it.

Peers append the same bytes in the same batches with a sync for each batch: SQLite (WAL,
synchronous=FULL), which keeps no proof of anything; pymerkle's SQLite tree, which does. Neither
encrypts, signs or answers over a socket. Run it as `./run bench ledger`; the ten minutes of the bar
are `./run verify ledger-paced`.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import random
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelkeep.adapters.checkpoint_signer import MESSAGE_BYTES_MAX, NUMBER_BYTES, signing_pair
from modelkeep.adapters.disk import RealDisk
from modelkeep.adapters.journal_file import JournalFile
from modelkeep.adapters.recorder_client import RecorderClient
from modelkeep.adapters.store_folder import FolderStore
from modelkeep.adapters.store_settings import StoreSettings
from modelkeep.core.entry import Entry
from modelkeep.core.record import to_json
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import Signer
from modelkeep.flows.ledger import Sequencer
from modelkeep.flows.ledger_read import LogAccess, entry_proof, read_entries
from modelkeep.ledger.checkpoint import signed_checkpoint
from modelkeep.ledger.log import LogReader
from modelkeep.ledger.settings import LedgerSettings
from modelkeep.ledger.tiles import Place, checkpoint_name, log_prefix, place_name, tile_bytes
from modelkeep.ledger.tree import Edge, Tile, leaf_hash
from modelkeep.ledger.verify import verified_log
from modelkeep.wiring import system_entropy
from modelkeep.workers.keyholder import CheckpointKey
from modelkeep.workers.plan import RecorderPlan

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = HERE / "results" / "ledger.json"
# Beside the repository and not in /tmp, which may be memory: records must reach a disk.
PLACE = ROOT / ".venv-peers"

ORIGIN = "example.org/keep/bench"
SIGNER = Signer(Secret(b"s" * 32))
BODY_KEY = Secret(b"b" * 32)
PRODUCERS = 4
BATCH = 1024
PACED_PER_S = 10_000
PACED_BATCH = 25
LOAD_MAX = 1.0
# How long after the producers the last record may come under a checkpoint.
PUBLISHED_S_MAX = 120.0
FACTS: dict[str, Any] = {
    "model": "fraud", "version": 3, "principal": "alice", "status": 200, "latency_us": 1234,
}  # fmt: skip


def main() -> int:
    """Measure, print, write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="of the run at full speed")
    parser.add_argument("--paced-s", type=float, default=20.0, help="of the run at 10,000/s")
    parser.add_argument("--entries", type=int, default=10_000_000, help="of the log for proofs")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    PLACE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=PLACE) as name:
        folder = Path(name)
        limits = physical_limits(folder)
        rows = [alone(folder), sqlite_peer(folder)]
        peer = merkle_peer(folder)
        rows += [peer[0]] if peer else []
        paced = served(folder / "paced", seconds=options.paced_s, per_s=PACED_PER_S)
        full = served(folder / "full", seconds=options.seconds, per_s=0)
        both = served(folder / "both", seconds=options.seconds / 2, per_s=0, stores=2)
        proof = proofs(folder / "proofs", options.entries)
    table(limits, rows, full, both, paced)
    print(
        f"inclusion proof in a log of {options.entries:,} entries: {proof.median_ms:.2f} ms, "
        f"p99 {proof.p99_ms:.2f} ms, at most {proof.max_ms:.2f} ms of {proof.count}"
        + (f"; pymerkle's in one of {peer[2]:,}: {peer[1]:.2f} ms" if peer else "")
    )
    write_results(full, paced, proof, load=load, options=options)
    return 0


# ---- the machine --------------------------------------------------------------------------------


def physical_limits(folder: Path) -> dict[str, float]:
    """What nothing here can be faster than."""
    found = {}
    fd = os.open(folder / "sync", os.O_WRONLY | os.O_CREAT, 0o600)
    for name, size in (("8 KB", 8 * 1024), ("300 KB", 300 * 1024)):
        found[f"fdatasync of {name}"] = per_second(lambda size=size: synced(fd, size), 1.0)
    os.close(fd)
    (folder / "sync").unlink()
    leaf = b"\0" + bytes(33)
    found["SHA-256 of a leaf"] = 1000 * per_second(lambda: hashed(leaf, 1000), 0.5)
    return found


def synced(fd: int, size: int) -> None:
    """One append and its sync."""
    os.write(fd, bytes(size))
    os.fdatasync(fd)


def hashed(leaf: bytes, count: int) -> None:
    """As many hashes of one small thing."""
    for _ in range(count):
        hashlib.sha256(leaf).digest()


def per_second(act: Callable[[], None], seconds: float) -> float:
    """How often in a second."""
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        act()
        count += 1
    return count / (time.perf_counter() - started)


# ---- each alone, in one process -----------------------------------------------------------------


@dataclass(frozen=True)
class Rate:
    """Records a second of somebody who appends and syncs batches."""

    name: str
    per_s: float
    note: str


def entries_of(producer: int, start: int, count: int) -> list[Entry]:
    """Records as a gateway might write them, told apart by producer and number."""
    at_ns = time.time_ns()
    return [
        Entry(kind="model.called", at_ns=at_ns, actor=f"p{producer}", facts={**FACTS, "n": number})
        for number in range(start, start + count)
    ]


def bodies() -> list[bytes]:
    """The same records as bytes."""
    return [to_json(entry) for entry in entries_of(0, 0, BATCH)]


def alone(folder: Path, batches: int = 200) -> Rate:
    """Our sequencer in this process, without a socket: record and publish in turns."""
    journal = JournalFile(RealDisk(), folder / "alone-wal", writable=True)
    sequencer = Sequencer(
        origin=ORIGIN,
        journal=journal,
        stores=[FolderStore(folder / "alone", "alone")],
        signer=SIGNER,
        body_key=BODY_KEY,
        entropy=system_entropy(),
    )
    entries = entries_of(0, 0, BATCH)
    started = time.perf_counter()
    for number in range(batches):
        sequencer.append(entries)
        if number % 50 == 49:
            sequencer.publish()
    spent_s = time.perf_counter() - started
    journal.close()
    return Rate("modelkeep, one thread", BATCH * batches / spent_s, "recorded and published")


def sqlite_peer(folder: Path, batches: int = 200) -> Rate:
    """The same batches into a table, a sync for each."""
    with contextlib.closing(sqlite3.connect(folder / "peer.sqlite")) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE entry (number INTEGER PRIMARY KEY, body BLOB)")
        rows = [(body,) for body in bodies()]
        started = time.perf_counter()
        for _ in range(batches):
            with connection:
                connection.executemany("INSERT INTO entry (body) VALUES (?)", rows)
        spent_s = time.perf_counter() - started
    return Rate("SQLite, WAL, FULL", BATCH * batches / spent_s, "no proof, no encryption")


def merkle_peer(folder: Path, batches: int = 100) -> tuple[Rate, float, int] | None:
    """The same batches into pymerkle's tree; its rate, and what one of its proofs costs."""
    try:
        import pymerkle  # noqa: PLC0415  # a tool for developers
    except ImportError:
        print("pymerkle is not installed: left out (./run test installs it)")
        return None
    with pymerkle.SqliteTree(str(folder / "merkle.sqlite"), algorithm="sha256") as tree:
        rows = bodies()
        started = time.perf_counter()
        for _ in range(batches):
            tree.append_entries(rows)
        spent_s = time.perf_counter() - started
        size = BATCH * batches
        started = time.perf_counter()
        for number in range(5):
            tree.prove_inclusion(1 + number * size // 5, size)
        prove_ms = (time.perf_counter() - started) / 5 * 1000
    return Rate("pymerkle, SQLite", size / spent_s, "no tiles, no signature"), prove_ms, size


# ---- the recorder process and its producers -----------------------------------------------------


@dataclass(frozen=True)
class Run:
    """What one run of the service gave.

    Attributes:
        per_s: records until the last of them stood under a checkpoint in every store.
        acknowledged_per_s: records while the producers ran.
    """

    per_s: float
    acknowledged_per_s: float
    records: int
    lost: int
    waits_ms: tuple[float, ...]
    cpu_us: float

    def percentile(self, share: float) -> float:
        """The acknowledgement time that this share of all batches stays under."""
        return sorted(self.waits_ms)[min(int(len(self.waits_ms) * share), len(self.waits_ms) - 1)]


@contextlib.contextmanager
def recorder(folder: Path, stores: int) -> Iterator[subprocess.Popen[bytes]]:
    """A recorder process as the supervisor starts it; the keyholder's part is a thread here."""
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(folder / "recorder.sock"))
        listener.listen(64)
        lifeline, held = os.pipe()
        sign_fd, its = signing_pair()
        signs = stack.enter_context(socket.socket(fileno=its))
        threading.Thread(target=signing, args=(signs,), daemon=True).start()
        plan = RecorderPlan(
            listen_fd=listener.fileno(),
            lifeline_fd=lifeline,
            sign_fd=sign_fd,
            body_key_fd=memory_file(BODY_KEY.reveal()),
            origin=ORIGIN,
            wal_folder=str(folder / "wal"),
            journals_folder=str(folder / "journals"),
            stores=tuple(
                StoreSettings(label=f"store-{number}", path=str(folder / f"store-{number}"))
                for number in range(stores)
            ),
            settings=LedgerSettings(),
        )
        plan_fd = memory_file(to_json(plan))
        fds = (listener.fileno(), lifeline, sign_fd, plan.body_key_fd, plan_fd)
        process = subprocess.Popen(
            [sys.executable, "-m", "modelkeep.workers.recorder", "--plan-fd", str(plan_fd)],
            pass_fds=fds,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            signs.shutdown(socket.SHUT_RDWR)
            for fd in (lifeline, held, sign_fd, plan.body_key_fd, plan_fd):
                os.close(fd)


def memory_file(raw: bytes) -> int:
    """A descriptor to hand over."""
    fd = os.memfd_create("bench")
    os.write(fd, raw)
    return fd


def signing(signs: socket.socket) -> None:
    """Sign what the recorder asks for, as the keyholder does."""
    key = CheckpointKey(SIGNER)
    with contextlib.suppress(OSError):
        while packet := signs.recv(MESSAGE_BYTES_MAX):
            number, rest = packet[:NUMBER_BYTES], packet[NUMBER_BYTES:]
            signs.send(number + key.answer(rest[:1], rest[1:]))


def served(folder: Path, *, seconds: float, per_s: int, stores: int = 1) -> Run:
    """Load a recorder with four producers, flat out or at a pace; then look everything up."""
    os.sync()  # what others left to be written is not our wait
    with recorder(folder, stores) as process:
        RecorderClient(folder).record(entries_of(9, 0, 1))
        before = cpu_s(process.pid)
        context = multiprocessing.get_context("fork")
        said = context.SimpleQueue()
        producers = [
            context.Process(target=produced, args=(folder, number, seconds, per_s, said))
            for number in range(PRODUCERS)
        ]
        started = time.perf_counter()
        for each in producers:
            each.start()
        told = [said.get() for _ in producers]
        acknowledged_s = time.perf_counter() - started
        records = sum(sum(count for _, _, count in each[1]) for each in told)
        while published(folder, stores) < records:
            assert time.perf_counter() - started < seconds + PUBLISHED_S_MAX, "nothing is published"
            time.sleep(0.05)
        spent_s = time.perf_counter() - started
        cpu_us = (cpu_s(process.pid) - before) * 1e6
        for each in producers:
            each.join()
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0, "the recorder failed"
    lost = lost_in(folder / f"store-{stores - 1}", told)
    waits_ms = tuple(wait for _, _, waits in told for wait in waits)
    return Run(
        records / spent_s, records / acknowledged_s, records, lost, waits_ms, cpu_us / records
    )


def published(folder: Path, stores: int) -> int:
    """The size of the latest checkpoint in the slowest store."""
    logs = [LogReader(FolderStore(folder / f"store-{n}", "bench"), ORIGIN) for n in range(stores)]
    return min(log.latest(public=SIGNER.public).size for log in logs)


Told = tuple[int, list[tuple[int, int, int]], list[float]]


def produced(folder: Path, number: int, seconds: float, per_s: int, said: Any) -> None:
    """One producer: (index of the first, its own number, count) of each batch, and the waits.

    At a pace a wait counts from the instant at which the batch was due, so that a late batch does
    not hide its wait by starting late.
    """
    client = RecorderClient(folder, timeout_s=60)
    batch = PACED_BATCH if per_s else BATCH
    interval_s = batch * PRODUCERS / per_s if per_s else 0.0
    told: list[tuple[int, int, int]] = []
    waits_ms: list[float] = []
    begun = time.perf_counter()
    due_s = begun + interval_s * number / PRODUCERS
    sent = 0
    while due_s - begun < seconds if per_s else time.perf_counter() - begun < seconds:
        entries = entries_of(number, sent, batch)
        if per_s:
            time.sleep(max(due_s - time.perf_counter(), 0.0))
        started = due_s if per_s else time.perf_counter()
        told.append((client.record(entries), sent, batch))
        waits_ms.append((time.perf_counter() - started) * 1000)
        sent += batch
        due_s += interval_s
    said.put((number, told, waits_ms))


def lost_in(store: Path, told: list[Told]) -> int:
    """Acknowledged records that do not stand where they were said to, in a log that is whole."""
    log = FolderStore(store, "bench")
    report = verified_log(log, origin=ORIGIN, public=SIGNER.public, body_key=None)
    assert report.is_whole, report.findings
    batches = sorted(
        (first, number, start, count)
        for number, told_of, _ in told
        for first, start, count in told_of
    )
    entries = read_entries(LogAccess(log, ORIGIN, SIGNER.public, BODY_KEY))
    found = 0
    for first, number, start, count in batches:
        for index, entry in entries:
            at = index - first
            found += 0 <= at < count and (entry.actor, entry.facts["n"]) == (
                f"p{number}",
                start + at,
            )
            if at >= count - 1:
                break
    return sum(count for _, _, _, count in batches) - found


def cpu_s(pid: int) -> float:
    """CPU time of a process, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ---- proofs in a large log ----------------------------------------------------------------------


class LazyDisk(RealDisk):
    """Makes a large log quickly: nothing is synced, and nobody minds."""

    def sync(self, path: Path) -> None:
        """Do not."""

    def sync_folder(self, folder: Path) -> None:
        """Do not."""


@dataclass(frozen=True)
class Proofs:
    """What proofs in a large log cost."""

    count: int
    median_ms: float
    p99_ms: float
    max_ms: float


def proofs(folder: Path, entries: int, count: int = 300) -> Proofs:
    """Prove random entries of a log that has tiles and a checkpoint; bundles are not needed."""
    store = FolderStore(folder, "proofs", LazyDisk())
    edge, prefix = Edge(), log_prefix(ORIGIN)
    for start in range(0, entries, 65_536):
        numbers = range(start, min(start + 65_536, entries))
        tiles = edge.extend([leaf_hash(number.to_bytes(33, "big")) for number in numbers])
        for tile in tiles if numbers[-1] + 1 < entries else [*tiles, *edge.partials()]:
            put_tile(store, prefix, tile)
    head = signed_checkpoint(ORIGIN, size=entries, root=edge.root(), signer=SIGNER)
    store.put(checkpoint_name(prefix, entries), head.raw)
    chosen = random.Random(entries)  # noqa: S311  # it chooses what is proven, no key
    access = LogAccess(store, ORIGIN, SIGNER.public, BODY_KEY)
    assert LogReader(store, ORIGIN).edge(head).root() == head.root
    spent = []
    for _ in range(count):
        index = chosen.randrange(entries)
        started = time.perf_counter()
        entry_proof(access, index)
        spent.append((time.perf_counter() - started) * 1000)
    slow = sorted(spent)[int(count * 0.99)]
    return Proofs(count, statistics.median(spent), slow, max(spent))


def put_tile(store: FolderStore, prefix: str, tile: Tile) -> None:
    """Write one tile under its name."""
    place = Place(f"tile/{tile.level}", tile.index, len(tile.hashes))
    store.put(place_name(prefix, place), tile_bytes(tile.hashes))


# ---- what comes of it ---------------------------------------------------------------------------


def table(limits: dict[str, float], rows: list[Rate], full: Run, both: Run, paced: Run) -> None:
    """Print it all."""
    for name, value in limits.items():
        print(f"this machine: {name}: {value:,.0f} a second")
    print(f"\n{'':34}{'records/s':>12}{'ours is':>10}")
    services = [
        Rate(name, run.per_s, f"{run.acknowledged_per_s:,.0f}/s acknowledged; {run.cpu_us:.0f} us")
        for name, run in (("modelkeep, 4 producers, recorder", full), ("  with two stores", both))
    ]
    for row in (*services, *rows):
        print(f"{row.name:34}{row.per_s:>12,.0f}{full.per_s / row.per_s:>9.2f}x  {row.note}")
    print(f"\n{'acknowledged in ms':34}{'p50':>9}{'p99':>9}{'p99.9':>9}{'max':>9}")
    for name, run in (("full speed, batches of 1,024", full), ("10,000/s, batches of 25", paced)):
        times = "".join(f"{run.percentile(share):>9.2f}" for share in (0.5, 0.99, 0.999, 1.0))
        print(f"{name:34}{times}   {run.records:,} records, {run.lost} lost")


def write_results(
    full: Run, paced: Run, proof: Proofs, *, load: float, options: argparse.Namespace
) -> None:
    """Judge the bars and write them down."""
    is_quiet = load <= LOAD_MAX
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607
        cwd=ROOT, capture_output=True, text=True, check=False,
    ).stdout.strip()  # fmt: skip

    def bar(
        name: str, value: float, wanted: float, unit: str, how: str, *, least: bool = False
    ) -> dict[str, Any]:
        holds = (value >= wanted if least else value <= wanted) if is_quiet else None
        return {
            "bar": name, "value": round(value, 3), "wanted": wanted, "holds": holds,
            "unit": unit, "how": how, "commit": commit, "load": round(load, 2),
        }  # fmt: skip

    flat = f"4 processes, batches of {BATCH}, {options.seconds:g} s, one store"
    pace = f"4 processes, batches of {PACED_BATCH}, {options.paced_s:g} s"
    many = f"{proof.count} random entries of {options.entries:,}"
    bars = [
        bar("durable records/s", full.per_s, 50_000, "1/s", flat, least=True),
        bar(
            "pace that was kept",
            paced.acknowledged_per_s,
            PACED_PER_S * 0.99,
            "1/s",
            pace,
            least=True,
        ),
        bar("p99 acknowledgement at 10,000/s", paced.percentile(0.99), 20.0, "ms", pace),
        bar("acknowledged records lost", full.lost + paced.lost, 0, "records", f"{flat}; {pace}"),
        bar("inclusion proof, p99", proof.p99_ms, 10.0, "ms", many),
    ]
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(bars, indent=2) + "\n")
    for each in bars:
        mark = {True: "holds", False: "does not hold", None: "not judged: load over 1"}
        print(f"{each['bar']}: {each['value']} {each['unit']} ({mark[each['holds']]})")


if __name__ == "__main__":
    sys.exit(main())
