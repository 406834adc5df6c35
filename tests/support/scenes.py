"""A keep on a simulated disk, with a real State database beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from modelkeep.adapters.keyholder_local import local_keyholder
from modelkeep.adapters.state_sqlite import SqliteState
from modelkeep.crypto.kdf import Argon2Settings
from modelkeep.sdk.keep import Keep
from modelkeep.testing.memory import SeededEntropy, SteppingClock
from modelkeep.testing.power import CuttingState, Fuse, SimulatedDisk
from modelkeep.wiring import World

CHEAP = Argon2Settings(memory_kib=8, passes=1, lanes=1)
PASSPHRASE = "a passphrase for tests"  # noqa: S105 - of keeps that live for one test


@dataclass(frozen=True)
class Image:
    """What a power cut would leave: the durable disk, and the State database."""

    disk: SimulatedDisk
    state: dict[str, bytes]


class Scene:
    """A keep and its second store; every open is a new process on the same disk."""

    def __init__(self, folder: Path, *, seed: int = 0) -> None:
        self.folder = folder
        self.seed = seed
        self.disk = SimulatedDisk()
        self.keep_path = folder / "keep"
        self.main = self.keep_path / "stores" / "main"
        self.offsite = folder / "offsite"
        self.keep_path.mkdir(parents=True, exist_ok=True)

    def world(self, fuse: Fuse) -> World:
        self.disk.fuse = fuse
        return World(
            disk=self.disk,
            clock=SteppingClock(),
            entropy=SeededEntropy(self.seed + len(self.disk.walk(self.folder))),
            open_state=lambda path: CuttingState(SqliteState(path), fuse),
            keyholder=lambda means: local_keyholder(means, entropy=SeededEntropy(self.seed + 1)),
        )

    def open(self, fuse: Fuse | None = None) -> Keep:
        return Keep(self.keep_path, passphrase=PASSPHRASE, world=self.world(fuse or Fuse()))

    def create(self, fuse: Fuse | None = None) -> Keep:
        return Keep.create(
            self.keep_path,
            passphrase=PASSPHRASE,
            stores={"offsite": self.offsite},
            argon2=CHEAP,
            world=self.world(fuse or Fuse()),
        )

    def image(self) -> Image:
        state = {path.name: path.read_bytes() for path in self.keep_path.glob("state.db*")}
        return Image(self.disk.after_power_cut(), state)

    def show(self, image: Image) -> None:
        """Go on from an image; it can be shown again."""
        self.disk = image.disk.after_power_cut()
        for path in self.keep_path.glob("state.db*"):
            path.unlink()
        for name, raw in image.state.items():
            (self.keep_path / name).write_bytes(raw)
