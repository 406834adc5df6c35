"""What this machine can do at most: memcpy, AES-256-GCM, BLAKE3, the disk; and floors from them."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MIB = 1024 * 1024
BUFFER = 256 * MIB  # well over the last cache
CHUNK = 4 * MIB
FILE = 16 * MIB
ROUNDS = 5
CORES = len(os.sched_getaffinity(0))
NONCE = bytes(12)


@dataclass(frozen=True)
class Limits:
    """Bytes a second: by one core, by all cores, by the disk."""

    memcpy: float
    aes_gcm: float
    blake3: float
    memcpy_all: float
    aes_gcm_all: float
    blake3_all: float
    disk_write: float
    disk_read: float

    def floor_s(self, *, copied: int, hashed: int, ciphered: int, written: int = 0) -> float:
        """The least that a stage takes: all cores busy with nothing else, the disk beside them."""
        rates = (self.memcpy_all, self.blake3_all, self.aes_gcm_all)
        work_s = sum(
            size / rate for size, rate in zip((copied, hashed, ciphered), rates, strict=True)
        )
        return max(work_s, written / self.disk_write)


def measured(folder: Path) -> Limits:
    """Measure them, medians of a few rounds."""
    source = np.random.default_rng(1).integers(0, 255, BUFFER, np.uint8)
    view = memoryview(source).cast("B")
    written, read = disk(folder, view)
    one = [rate(work, view, threads=1) for work in (copier, cipher, hasher)]
    every = [rate(work, view, threads=CORES) for work in (copier, cipher, hasher)]
    return Limits(*one, *every, disk_write=written, disk_read=read)


def copier() -> Callable[[memoryview], object]:
    """Copies into a buffer that is used again."""
    target = np.zeros(CHUNK, np.uint8)
    return lambda piece: np.copyto(target, np.frombuffer(piece, np.uint8))


def cipher() -> Callable[[memoryview], object]:
    """Encrypts into a buffer that is used again."""
    aead, target = AESGCM(bytes(32)), bytearray(CHUNK + 16)
    return lambda piece: aead.encrypt_into(NONCE, piece, None, target)


def hasher() -> Callable[[memoryview], object]:
    """Hashes every chunk."""
    return lambda piece: blake3(piece).digest()


def rate(work: Callable[[], Callable[[memoryview], object]], view: memoryview, *, threads: int
) -> float:  # fmt: skip
    """Bytes a second over a buffer that no cache holds, each thread with its own part of it."""
    part = len(view) // threads
    found = []
    for _ in range(ROUNDS):
        workers = [
            threading.Thread(target=worked, args=(work(), view[n * part : (n + 1) * part]))
            for n in range(threads)
        ]
        started_s = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        found.append(part * threads / (time.perf_counter() - started_s))
    return statistics.median(found)


def worked(work: Callable[[memoryview], object], view: memoryview) -> None:
    """One thread's part, chunk by chunk."""
    for at in range(0, len(view), CHUNK):
        work(view[at : at + CHUNK])


def disk(folder: Path, view: memoryview) -> tuple[float, float]:
    """Files of 16 MiB, each synced, and read again from the disk and not from memory."""
    writing, reading = [], []
    piece = bytearray(FILE)
    os.sync()
    for number in range(ROUNDS):
        paths = [folder / f"limit-{number}-{at}" for at in range(0, len(view), FILE)]
        started_s = time.perf_counter()
        for at, path in enumerate(paths):
            with path.open("wb", buffering=0) as stream:
                stream.write(view[at * FILE : (at + 1) * FILE])
                os.fsync(stream.fileno())
        writing.append(len(view) / (time.perf_counter() - started_s))
        for path in paths:
            with path.open("rb") as stream:
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        started_s = time.perf_counter()
        for path in paths:
            with path.open("rb", buffering=0) as stream:
                stream.readinto(piece)
        reading.append(len(view) / (time.perf_counter() - started_s))
        for path in paths:
            path.unlink()
    return statistics.median(writing), statistics.median(reading)
