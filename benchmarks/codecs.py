"""The codecs of chunks, timed on one core: ratio and speed per element type, and the limits.

Chunks of 4 MiB: Gaussian weights, fine-tunes of them (fp32 master weights moved by a part of their
sigma, rounded), integers, text. Beside ours: zstd on the same bytes, and blosc2 (shuffle, its own
codec) where it is installed. The limits are memcpy, AES-256-GCM and BLAKE3 of the same run, into
buffers that are used again. CPU time of this thread, medians. Run it as `./run bench codecs`.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import blake3
import numpy as np
import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from modelkeep.kernels import native
from modelkeep.kernels.chunker import chunk_lengths
from modelkeep.kernels.encoding import decode_into, encoded, sampled_cost

RESULTS = Path(__file__).resolve().parent / "results" / "codecs.json"
CHUNK = 4 * 1024 * 1024
SIGMA = 0.02
# Encoded size / raw size, encode and decode in MB/s of raw: what the vault was asked for.
BARS = {
    "bf16": (0.67, 700, 1000),
    "bf16 moved 0.001": (0.18, 250, 500),
    "bf16 moved 0.005": (0.28, 250, 500),
    "bf16 moved 0.02": (0.43, 250, 500),
}


@dataclass(frozen=True)
class Row:
    """One kind of chunk under one codec."""

    data: str
    codec: str
    ratio: float
    encode_mb_s: float
    decode_mb_s: float
    choose_ms: float = 0.0


@dataclass(frozen=True)
class Case:
    """A chunk, and what it may resemble."""

    name: str
    dtype: str
    plain: memoryview
    base: memoryview | None = None


def main() -> int:
    """Time everything, print, write the results; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    limits = limits_of(runs)
    rows = [row for case in cases() for row in measured(case, runs)]
    print(f"native kernels: {'yes' if native.LIBRARY else 'no (pure Python)'}")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; MB/s of raw bytes\n")
    print(f"{'limit':28s} {'MB/s':>9s}")
    for name, speed in limits.items():
        print(f"{name:28s} {speed:9.0f}")
    print(
        f"\n{'data':20s} {'codec':14s} {'ratio':>7s} {'encode':>8s} {'decode':>8s} {'choose':>9s}"
    )
    missed = []
    for row in rows:
        bar = BARS.get(row.data) if row.codec.startswith("ours") else None
        verdict = ""
        if bar:
            ratio, encode, decode = bar
            kept = row.ratio <= ratio and row.encode_mb_s >= encode and row.decode_mb_s >= decode
            verdict = f"   bar {ratio} / {encode} / {decode}: {'kept' if kept else 'MISSED'}"
            missed += [] if kept else [row.data]
        choose = f"{row.choose_ms:6.2f} ms" if row.choose_ms else ""
        print(
            f"{row.data:20s} {row.codec:14s} {row.ratio:7.4f} {row.encode_mb_s:8.0f} "
            f"{row.decode_mb_s:8.0f} {choose:>9s}{verdict}"
        )
    RESULTS.parent.mkdir(exist_ok=True)
    found = {"limits": limits, "rows": [asdict(row) for row in rows]}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    return 1 if missed else 0


def seconds(work: Callable[[], Any], runs: int) -> float:
    """The median CPU time of a call, after one to warm up."""
    work()
    times = []
    for _ in range(runs):
        started = time.thread_time()
        work()
        times.append(time.thread_time() - started)
    return max(statistics.median(times), 1e-9)


# ---- what is coded ---------------------------------------------------------------------------


def cases() -> list[Case]:
    """Every kind of chunk, from one seed."""
    random = np.random.default_rng(20_261_121)

    def normal(count: int, scale: float) -> np.ndarray:
        return random.standard_normal(count, dtype=np.float32) * np.float32(scale)

    master = normal(CHUNK // 2, SIGMA)
    base = view(bf16(master))
    found = [Case("bf16", "BF16", base)]
    for part in (0.001, 0.005, 0.02):
        tuned = view(bf16(master + normal(master.size, SIGMA * part)))
        found.append(Case(f"bf16 moved {part}", "BF16", tuned, base))
    half = view(master.astype(np.float16))
    moved = view((master + normal(master.size, SIGMA * 0.005)).astype(np.float16))
    found += [Case("fp16", "FP16", half), Case("fp16 moved 0.005", "FP16", moved, half)]
    single = master[: CHUNK // 4]
    moved = view(single + normal(single.size, SIGMA * 0.005))
    found += [
        Case("fp32", "FP32", view(single)),
        Case("fp32 moved 0.005", "FP32", moved, view(single)),
    ]
    double = random.standard_normal(CHUNK // 8)
    found += [
        Case("fp64", "FP64", view(double)),
        Case("int8 quantised", "INT8", view(np.round(normal(CHUNK, 30)).clip(-127, 127), np.int8)),
        Case("int64 positions", "INT64", view(np.arange(CHUNK // 8))),
        Case("text", "", memoryview(text(CHUNK))),
        Case("noise", "", memoryview(random.bytes(CHUNK))),
    ]
    return found


def bf16(values: np.ndarray) -> np.ndarray:
    """Round fp32 to bf16, ties to even."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def view(values: np.ndarray, kind: Any = None) -> memoryview:
    """The bytes of an array."""
    return memoryview(values.astype(kind or values.dtype).tobytes())


def text(count: int) -> bytes:
    """Records as JSON lines."""
    lines = (
        b'{"id": %d, "name": "user %d", "score": %.4f}\n' % (n, n * 7919 % 10007, n**0.5)
        for n in range(count // 40)
    )
    return b"".join(lines)[:count]


# ---- how ---------------------------------------------------------------------------------------


def measured(case: Case, runs: int) -> list[Row]:
    """One chunk under every codec, each result compared with what went in."""
    size = len(case.plain) / 1e6
    encoding, payload = encoded(case.plain, dtype=case.dtype, base=case.base)
    target = bytearray(len(case.plain))
    into = memoryview(target)
    coded = memoryview(payload)
    encode = seconds(lambda: encoded(case.plain, dtype=case.dtype, base=case.base), runs)
    decode = seconds(lambda: decode_into(encoding, coded, into, base=case.base), runs)
    choose = seconds(lambda: sampled_cost(case.plain, dtype=case.dtype, base=case.base), runs)
    assert target == case.plain
    name = f"ours {encoding.name.lower()}"
    rows = [
        Row(case.name, name, len(payload) / len(target), size / encode, size / decode, choose * 1e3)
    ]
    if case.base is not None:
        return rows
    for level in (1, 3, 9):
        one, other = zstandard.ZstdCompressor(level=level), zstandard.ZstdDecompressor()
        rows.append(peer(case, f"zstd {level}", one.compress, other.decompress, runs))
    if importlib.util.find_spec("blosc2"):
        blosc2 = importlib.import_module("blosc2")
        width = {"BF16": 2, "FP16": 2, "FP32": 4, "FP64": 8, "INT64": 8}.get(case.dtype, 1)

        def shuffled(plain: memoryview) -> bytes:
            packed: bytes = blosc2.compress(bytes(plain), typesize=width, clevel=5)
            return packed

        rows.append(peer(case, "blosc2", shuffled, blosc2.decompress, runs))
    return rows


def peer(
    case: Case, name: str, pack: Callable[..., bytes], unpack: Callable[..., bytes], runs: int
) -> Row:
    """The same chunk under another library."""
    payload = pack(case.plain)
    assert unpack(payload) == case.plain
    encode, decode = (
        seconds(lambda: pack(case.plain), max(3, runs // 3)),
        seconds(lambda: unpack(payload), max(3, runs // 3)),
    )
    size = len(case.plain) / 1e6
    return Row(case.name, name, len(payload) / len(case.plain), size / encode, size / decode)


def limits_of(runs: int) -> dict[str, float]:
    """What every byte costs besides, in MB/s of this core."""
    raw = np.random.default_rng(1).integers(0, 256, CHUNK, dtype=np.uint8)
    copy = np.empty_like(raw)
    cipher, nonce = AESGCM(bytes(32)), bytes(12)
    sealed = bytearray(CHUNK + 16)
    large = np.tile(raw, 8)
    large[:: 1 << 16] += np.arange(large[:: 1 << 16].size, dtype=np.uint8)
    cut = seconds(lambda: chunk_lengths(memoryview(large), key=bytes(32)), 3)
    return {
        "memcpy": CHUNK / 1e6 / seconds(lambda: np.copyto(copy, raw), runs),
        "AES-256-GCM": CHUNK
        / 1e6
        / seconds(lambda: cipher.encrypt_into(nonce, raw, None, sealed), runs),
        "BLAKE3, one thread": CHUNK / 1e6 / seconds(lambda: blake3.blake3(raw).digest(), runs),
        "our keyed chunker": large.size / 1e6 / cut,
    }


if __name__ == "__main__":
    sys.exit(main())
