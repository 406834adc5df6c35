"""Keeps with a fast and a small store, deltas and several packs, on a simulated disk."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

import numpy as np
from scenes import Scene

from modelkeep.sdk.keep import Keep
from modelkeep.testing.power import Fuse

TENSORS = 3
TENSOR_ITEMS = 4096


def safetensors(arrays: dict[str, np.ndarray]) -> bytes:
    """A safetensors file of BF16 tensors, given as uint16."""
    header, at = {}, 0
    for name, array in arrays.items():
        end = at + array.nbytes
        header[name] = {"dtype": "BF16", "shape": [array.size], "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    raw = b"".join(array.tobytes() for array in arrays.values())
    return struct.pack("<Q", len(text)) + text + raw


def family(folder: Path, *, members: int = 3, seed: int = 7) -> list[Path]:
    """A base, and fine-tunes of it: files that are stored as deltas to the first."""
    rng = np.random.default_rng(seed)
    weights = {f"w{n}": rng.normal(0, 0.02, TENSOR_ITEMS) for n in range(TENSORS)}
    paths = []
    for member in range(members):
        path = folder / f"member-{member}.safetensors"
        shifted = {
            name: (each + member * rng.normal(0, 0.0001, each.size)).astype(np.float32)
            for name, each in weights.items()
        }
        path.write_bytes(
            safetensors(
                {
                    name: (each.view(np.uint32) >> 16).astype(np.uint16)
                    for name, each in shifted.items()
                }
            )
        )
        paths.append(path)
    return paths


class VaultScene(Scene):
    """A keep whose chunks and packs are small; every open is a new process on the same disk."""

    def __init__(self, folder: Path, *, seed: int = 0) -> None:
        super().__init__(folder, seed=seed)
        self.models = family(folder)

    def create(self, fuse: Fuse | None = None) -> Keep:
        """Make it, and let it write chunks of 4 KiB in packs of 16 KiB."""
        super().create(fuse).close()
        path = self.keep_path / "modelkeep.toml"
        settings = b"\n[vault]\nsegment_bytes = 4096\npack_bytes = 16384\n"
        self.disk.rewrite(path, self.disk.read(path) + settings)
        return self.open(fuse)

    def show_after_cut(self, chance: random.Random | None = None) -> None:
        """Go on with what a power cut leaves; where chance decides, what was not synced may be."""
        self.disk = self.disk.after_power_cut(chance=chance)

    def admit(self, keep: Keep, number: int, *, name: str = "family") -> int:
        """Admit a member of the family; its version."""
        return int(keep.admit(self.models[number], name=name).version)

    def demand_whole(self, keep: Keep, wanted: dict[str, int]) -> None:
        """Every version of this map (reference -> member) comes back bit for bit."""
        out = self.folder / "out.safetensors"
        for reference, member in wanted.items():
            keep.restore(reference, out, force=True)
            assert self.disk.read(out) == self.models[member].read_bytes(), reference

    def objects(self, root: Path) -> list[Path]:
        """Objects of one store but for what others judge."""
        return [
            path
            for path, _ in self.disk.walk(root)
            if {".tmp", "alive", "ledger"}.isdisjoint(path.relative_to(root).parts)
        ]


def damaged(raw: bytes, kind: str, other: bytes, rng: random.Random) -> bytes | None:
    """What an object of these bytes becomes; None where it is gone."""
    if kind == "flip":
        at = rng.randrange(len(raw))
        return raw[:at] + bytes([raw[at] ^ (1 << rng.randrange(8))]) + raw[at + 1 :]
    if kind == "truncate":
        return raw[: rng.randrange(len(raw))]
    return other if kind == "swap" else None
