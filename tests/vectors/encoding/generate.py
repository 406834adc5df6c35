"""Write the golden vectors of the encodings: `python tests/vectors/encoding/generate.py`.

A vector that is there keeps its bytes for ever: what one release wrote, every later one reads. The
script refuses to change one, and only adds what is missing.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

import blake3
import numpy as np

from modelkeep.kernels.encoding import encoded

FILE = Path(__file__).resolve().parent / "vectors.json"


def noise(seed: str, count: int, scale: float) -> np.ndarray:
    """Bell-shaped float32 numbers, the same on every machine: sums of eight 16-bit numbers."""
    raw = blake3.blake3(seed.encode()).digest(length=16 * count)
    sums = np.frombuffer(raw, "<u2").reshape(count, 8).astype(np.int64).sum(axis=1)
    return ((sums - 8 * 32768) / 2**16 * scale).astype(np.float32)


def bf16(values: np.ndarray) -> np.ndarray:
    return (values.view(np.uint32) >> 16).astype(np.uint16)


def cases() -> dict[str, tuple[str, bytes, bytes | None]]:
    """Name: element type, plain, base."""
    base, step = noise("base", 2000, 0.02), noise("step", 2000, 0.0002)
    long, longer = (noise(name, 6000, 0.02).astype(np.float64) * 1.1 for name in ("base", "step"))
    counts = np.frombuffer(blake3.blake3(b"counts").digest(length=4000), np.uint8)
    small = np.minimum(counts & -counts.astype(np.int16), 9).astype(np.uint8)
    text = b"".join(b'{"id": %d, "label": "row %d"}\n' % (n, n * 7) for n in range(100))
    large = np.minimum(np.abs(noise("large", 2**18 + 999, 40)), 255).astype(np.uint8)
    doubles = base.astype(np.float64) * 1.1
    farther = doubles + step.astype(np.float64) * 0.37
    return {
        "raw": ("", blake3.blake3(b"raw").digest(length=99), None),
        "text": ("", text, None),
        "zeros": ("FP32", bytes(1003), None),
        "bytes": ("UINT8", small.tobytes(), None),
        "int32": ("INT32", np.cumsum(small[:999]).astype("<i4").tobytes(), None),
        "bf16": ("BF16", bf16(base).tobytes(), None),
        "fp16": ("FP16", base.astype("<f2").tobytes(), None),
        "fp32": ("FP32", base.tobytes() + b"end", None),
        "fp64": ("FP64", farther.tobytes(), None),
        "bf16-difference": ("BF16", bf16(base + step).tobytes(), bf16(base).tobytes()),
        "fp16-difference": ("FP16", (base + step).astype("<f2").tobytes(),
                            base.astype("<f2").tobytes()),
        "fp32-difference": ("FP32", (base + step).tobytes() + b"!", base.tobytes() + b"?"),
        "fp64-difference": ("FP64", (long + longer * 0.01).tobytes(), long.tobytes()),
        "int16-difference": ("INT16", (np.arange(3000) * 37 + small[:3000]).astype("<i2").tobytes(),
                             (np.arange(3000) * 37).astype("<i2").tobytes()),
        "xor": ("", (counts ^ (small > 8)).astype(np.uint8).tobytes(), counts.tobytes()),
        "two-blocks": ("UINT8", large.tobytes(), None),
    }  # fmt: skip


def vector(dtype: str, plain: bytes, base: bytes | None) -> dict[str, object]:
    """A vector as it is written; of a long one only digests."""
    encoding, payload = encoded(
        memoryview(plain), dtype=dtype, base=None if base is None else memoryview(base)
    )
    found: dict[str, object] = {"dtype": dtype, "encoding": encoding.name}
    for name, raw in (("plain", plain), ("base", base), ("payload", bytes(payload))):
        if raw is not None and len(raw) > 2**14:
            found[name] = "blake3:" + blake3.blake3(raw).hexdigest()
        elif raw is not None:
            found[name] = base64.b64encode(raw).decode()
    return found


def main() -> None:
    """Add what is missing."""
    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    for name, case in cases().items():
        known.setdefault(name, vector(*case))
    FILE.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
