"""One process of `test_vault_writers`: admits, or prunes and backs up, until its time is over.

It prints a line of JSON for everything that was acknowledged to it, and for every error.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
import time
from pathlib import Path

from modelkeep.core.errors import KeepError
from modelkeep.flows import deposit
from modelkeep.flows.prune import PrunePolicy
from modelkeep.sdk.keep import Keep
from modelkeep.sdk.upkeep import Upkeep

deposit.KEPT_TURN_BYTES_MAX = 0  # whoever writes gives up its turn, however little it is


def said(**facts: object) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def write(path: Path, passphrase: str, name: str, rng: random.Random) -> None:
    """Admit a file that shares most of its chunks with others; say what it is."""
    parts = [bytes([rng.randrange(4)]) * 4096 for _ in range(3)]
    raw = b"".join(parts) + rng.randbytes(5000)
    file = path.parent / f"{name}.bin"
    file.write_bytes(raw)
    with Keep(path, passphrase=passphrase) as keep:
        done = keep.save(file, name=name)
    said(version=f"{name}:{done.version}", digest=hashlib.sha256(raw).hexdigest())


def tidy(path: Path, passphrase: str, rng: random.Random) -> None:
    """Remove an old version, drop old snapshots, prune, back up."""
    with Keep(path, passphrase=passphrase) as keep:
        upkeep = Upkeep(keep)
        newest: dict[str, int] = {}
        for each in keep.opened.reader().snapshot(keep.opened.state.applied().snapshot).artifacts:
            newest[each.name] = max(newest.get(each.name, 0), each.version)
            if each.version < newest[each.name] - 1 and rng.random() < 0.5:
                reference = f"{each.name}:{each.version}"
                said(removing=reference)
                upkeep.remove(reference)
                break
        report = upkeep.prune(PrunePolicy(keep_last=2, waste_max=0.0))
        said(pruned=report.dropped, freed=report.stores[0].freed_bytes)
        keep.backup()


def main() -> None:
    folder, role, seconds, seed = sys.argv[1:5]
    passphrase = sys.stdin.readline().strip()
    rng = random.Random(f"{role}/{seed}")  # noqa: S311 - it chooses what to write, no key
    until = time.monotonic() + float(seconds)
    while time.monotonic() < until:
        try:
            if role == "pruner":
                tidy(Path(folder), passphrase, rng)
            else:
                write(Path(folder), passphrase, role, rng)
        except KeepError as error:
            said(error=error.code, message=error.message)


if __name__ == "__main__":
    main()
