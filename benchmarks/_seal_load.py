"""Loading a sealed model into memory beside a plain read, and beside those who encrypt weights.

Ours and the plain read run in one fresh process, into memory whose pages are there already; peers
run in processes of their own, into memory that they take. Everyone loads in turns. `first` hashes
the plaintext against the signed manifest; `later` leans on AES-GCM, as the second load on a host
does. Warm means that all pages of the file and of the store's packs are in the page cache, cold
that none is; mincore confirms both before each load. The cold plain file is a copy, which was
written once, like the packs, and never read: what lies below this machine may cache what it read.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
PASSPHRASE = "a passphrase for a benchmark"  # noqa: S105 - of keeps that live for one run
MIB = 1024 * 1024
PEERS = ("cryptotensors", "tensorizer")
# What may stay in memory of what was evicted: a read-ahead that was under way.
RESIDENT_MAX = 0.01
COPY = "copy.safetensors"


@dataclass(frozen=True)
class Form:
    """How large the model is: a decoder in bf16."""

    layers: int
    width: int
    inner: int
    vocabulary: int


FULL = Form(layers=14, width=2048, inner=8192, vocabulary=32_000)  # 1.36 GB
QUICK = Form(layers=6, width=1024, inner=4096, vocabulary=16_000)  # 0.16 GB


def make(path: Path, form: Form) -> None:
    """Write the model: Gaussian weights in bf16, as a safetensors file."""
    shapes = {"embed": (form.vocabulary, form.width)}
    for layer in range(form.layers):
        for name, shape in (
            ("q", (form.width, form.width)),
            ("k", (form.width // 4, form.width)),
            ("v", (form.width // 4, form.width)),
            ("o", (form.width, form.width)),
            ("up", (form.inner, form.width)),
            ("down", (form.width, form.inner)),
            ("norm", (form.width,)),
        ):
            shapes[f"layers.{layer}.{name}"] = shape
    header, at = {}, 0
    for name, shape in shapes.items():
        end = at + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    random = np.random.default_rng(20_261_121)
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for _ in range(0, at, 8 * MIB):
            drawn = random.standard_normal(min(8 * MIB, at) // 2, dtype=np.float32)
            bits = (drawn * np.float32(0.02)).view(np.uint32) >> np.uint32(16)
            stream.write(bits.astype(np.uint16)[: (at + 8 + len(text) - stream.tell()) // 2])


def measured(work: Path, form: Form, rounds: int, python: Path | None) -> dict[str, Any]:
    """Make the model and everybody's form of it, load it in turns, say what it took."""
    plain = work / "model.safetensors"
    make(plain, form)
    admit(work / "keep", plain)
    shutil.copyfile(plain, work / COPY)
    peers: list[Peer] = []
    if python is not None:
        for name in PEERS:
            Peer.make(python, name, plain, work / name)
            peers.append(Peer(python, name, work / name))
    ours = Child([sys.executable, __file__, str(work)])
    kinds = ["plain", "later", "first", *(each.name for each in peers)]
    found: dict[str, list[float]] = {kind: [] for kind in (*kinds, "cold plain", "cold later")}
    rose: dict[str, int] = {}
    for each in (ours, *peers):
        each.ask("first")  # warms up what is loaded once a process, and the page cache
    for number in range(rounds):
        for kind in kinds[number % 2 :] + kinds[: number % 2]:
            peer = next((each for each in peers if each.name == kind), None)
            answer = (peer or ours).ask(kind)
            found[kind].append(answer["seconds"])
            rose[kind] = max(rose.get(kind, 0), answer.get("rose", 0))
    for _ in range(rounds):  # always in this order: a host below may keep what was read last
        for kind in ("cold plain", "cold later"):
            found[kind].append(ours.ask(kind)["seconds"])
    fresh = ours.ask("fresh")
    for each in (ours, *peers):
        each.end()
    return {
        "model_bytes": plain.stat().st_size,
        "rounds": rounds,
        "seconds": found,
        "median_s": {kind: statistics.median(each) for kind, each in found.items() if each},
        "ratio": {
            "later": ratio(found["later"], found["plain"]),
            "first": ratio(found["first"], found["plain"]),
            "cold": ratio(found["cold later"], found["cold plain"]),
            **{each.name: ratio(found[each.name], found["plain"]) for each in peers},
        },
        "rose_bytes": rose,
        "fresh": fresh,
    }


def ratio(ours: list[float], plain: list[float]) -> float:
    """The median over the pairs."""
    return statistics.median(one / other for one, other in zip(ours, plain, strict=True))


def admit(keep: Path, plain: Path) -> None:
    """Admit the model into a new keep."""
    from modelkeep.sdk.keep import Keep  # noqa: PLC0415

    with Keep.create(keep, passphrase=PASSPHRASE) as made:
        made.admit(plain, name="model")


class Child:
    """A process that loads once for each line that it is given."""

    def __init__(self, words: list[str]) -> None:
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._line() == "ready"

    def ask(self, what: str) -> dict[str, Any]:
        """Have it load."""
        assert self.process.stdin is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        answer = json.loads(self._line())
        assert isinstance(answer, dict)
        return answer

    def end(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args} ended with {self.process.wait()}")
        return line.strip()


class Peer(Child):
    """One of those who encrypt weights."""

    def __init__(self, python: Path, name: str, encrypted: Path) -> None:
        self.name = name
        super().__init__([str(python), str(script()), "load", name, str(encrypted)])

    @staticmethod
    def make(python: Path, name: str, plain: Path, encrypted: Path) -> None:
        """Encrypt the model."""
        words = [str(python), str(script()), "make", name, str(plain), str(encrypted)]
        subprocess.run(words, check=True)


def script() -> Path:
    """What runs in the peers' environment."""
    return HERE / "peers" / "sealed" / "load.py"


# ---- in the process that loads -------------------------------------------------------------------


class Proofs:
    """Says what it is told to: that this is the first load on this host, or a later one."""

    is_known = False

    def knows(self, what: bytes) -> bool:  # noqa: ARG002 - the port's signature
        return self.is_known

    def note(self, what: bytes) -> None:
        """Forget it."""


def serve(work: Path) -> None:
    """Answer each line on stdin: plain, first, later, cold plain, cold later, fresh."""
    from modelkeep.adapters.memory_file import OwnMemory  # noqa: PLC0415
    from modelkeep.core.artifact import parsed_reference  # noqa: PLC0415
    from modelkeep.core.policy import Use  # noqa: PLC0415
    from modelkeep.flows.load import loaded  # noqa: PLC0415
    from modelkeep.sdk.keep import Keep  # noqa: PLC0415

    path, proofs = work / "model.safetensors", Proofs()
    size_bytes = path.stat().st_size
    packs = [each for each in (work / "keep" / "stores").rglob("pack/**/*") if each.is_file()]
    with Keep(work / "keep", passphrase=PASSPHRASE) as keep, OwnMemory(size_bytes) as memory:
        opened = replace(keep.opened, load_proofs=proofs)
        reference = parsed_reference("model")

        def sealed() -> None:
            target = memory.view
            loaded(opened, reference, use=Use.LOAD, allocate=lambda size: target[:size])

        print("ready", flush=True)
        for line in sys.stdin:
            words = line.split()
            proofs.is_known = words[-1] == "later"
            is_cold = words[0] == "cold"
            source = work / COPY if is_cold else path
            (evict if is_cold else warm)([source, *packs])
            if words[0] == "fresh":
                print(json.dumps(fresh(keep, path)), flush=True)
                continue
            plain = partial(read_plain, source, memory.view)
            answer = timed(plain if words[-1] == "plain" else sealed)
            print(json.dumps(answer), flush=True)


def fresh(keep: Any, path: Path) -> dict[str, Any]:
    """The whole of `Keep.load`, memory and ledger entry included, and a read into fresh memory."""
    keep.load("model").close()
    one = timed(lambda: keep.load("model").close)
    size_bytes = path.stat().st_size

    def plain() -> None:
        read_plain(path, memoryview(bytearray(size_bytes)))

    other = timed(plain)
    return {"load": one, "plain": other, "model_bytes": size_bytes}


def timed(act: Callable[[], object]) -> dict[str, float]:
    """Seconds, and how much the peak of resident memory rose."""
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_bytes()
    started = time.perf_counter()
    kept = act()
    seconds = time.perf_counter() - started
    rose = peak_bytes() - before
    if callable(kept):
        kept()
    return {"seconds": seconds, "rose": rose}


def read_plain(path: Path, target: memoryview) -> None:
    """Read a file into memory that is there."""
    with path.open("rb", buffering=0) as stream:
        at = 0
        while at < len(target) and (count := stream.readinto(target[at:])):
            at += count


def peak_bytes() -> int:
    """VmHWM: the highest resident memory since it was last reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def evict(paths: Iterable[Path]) -> None:
    """Take files out of the page cache, and see that they are out."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            size_bytes = os.fstat(fd).st_size
            if size_bytes and resident(fd, size_bytes) > RESIDENT_MAX:
                raise RuntimeError(f"{path.name} stays in the page cache")
        finally:
            os.close(fd)


def warm(paths: Iterable[Path]) -> None:
    """Bring files into the page cache, and see that they are there."""
    for path in paths:
        with path.open("rb", buffering=0) as stream:
            size_bytes = path.stat().st_size
            if size_bytes and resident(stream.fileno(), size_bytes) < 1:
                while stream.read(8 * MIB):
                    pass
                if resident(stream.fileno(), size_bytes) < 1:
                    raise RuntimeError(f"{path.name} does not stay in the page cache")


def resident(fd: int, size_bytes: int) -> float:
    """What share of a file's pages is in the page cache (mincore)."""
    libc = ctypes.CDLL(None, use_errno=True)
    pages = -(-size_bytes // mmap.PAGESIZE)
    found = (ctypes.c_ubyte * pages)()
    with mmap.mmap(fd, size_bytes, flags=mmap.MAP_PRIVATE) as mapped:
        address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        if libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(size_bytes), found) != 0:
            raise OSError(ctypes.get_errno(), "mincore")
    return sum(each & 1 for each in found) / pages


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
