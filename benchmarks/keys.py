"""The life of keys, timed: what an owner waits for, and how soon what is taken away is refused.

Ours, as a person runs it: keeps on disk with a second store, the keyholder in a process of its own,
Argon2id at its default cost, every change in the ledger and synced in both stores before it counts.

Peer: `age` (pyrage) re-encrypts the same bytes, file to synced file, under a new recipient. It
keeps no signature, no chunks, no second copy and no record of what was done; a rekey of ours proves
every byte against the signed manifest on the way. Run it as `./run bench keys`.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import secrets
import ssl
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
from urllib.parse import urlsplit

import pyrage

from modelkeep.adapters.shares_slip39 import joined_words, split_words
from modelkeep.cli.demo_data import digits, trained
from modelkeep.crypto.secret import Secret
from modelkeep.sdk.keep import Keep

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "keys.json"
LOAD_MAX = 1.0
MIB = 1024 * 1024
POLL_S = 0.005
WAIT_S = 10.0


@dataclass(frozen=True)
class Row:
    """One figure; `wanted` is the bar, where there is one, and the most that it may be."""

    name: str
    value: float
    unit: str
    how: str
    wanted: float | None = None


def main() -> int:
    """Time everything, print, write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--domains", type=int, default=1_000)
    parser.add_argument("--mib", type=int, default=256, help="size of what is rekeyed")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    # Beside the repository and not in /tmp, which may be memory: a sync must reach a disk.
    base = ROOT / ".venv-peers"
    base.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=base) as name:
        folder = Path(name)
        rows = [
            *of_domains(folder / "many", options.domains, options.runs),
            *of_rekey(folder / "large", options.mib),
            *of_revocation(folder / "served", options.runs),
            *of_shares(options.runs),
        ]
    report(rows, load)
    return 0


def of_domains(folder: Path, count: int, runs: int) -> Iterator[Row]:
    """Making, rotating and opening a keep with many domains."""
    passphrase = secrets.token_urlsafe()
    how = f"{count} domains, 2 stores"
    with created(folder, passphrase) as keep:
        name = f"make {count} domains at once"
        yield Row(name, seconds(lambda: keep.keys.new(*numbered(count))), "s", how)
        one = [seconds(lambda n=n: keep.keys.new(f"late-{n}")) for n in range(runs)]
        yield Row("make one more domain", statistics.median(one), "s", how)
    opening = []
    for _ in range(runs):
        started_s = time.perf_counter()
        keep = Keep(folder / "keep", passphrase=passphrase)
        opening.append(time.perf_counter() - started_s)
        keep.close()
    median_s = statistics.median(opening)
    yield Row("open the keep", median_s, "s", f"{how}, keyholder started, Argon2id 64 MiB")
    with Keep(folder / "keep", passphrase=passphrase) as keep:
        rotating = []
        for _ in range(runs):
            passphrase = secrets.token_urlsafe()
            rotating.append(seconds(lambda new=passphrase: keep.keys.rotate(passphrase=new)))
    Keep(folder / "keep", passphrase=passphrase).close()
    yield Row(f"rotate {count} domains", max(rotating), "s", f"worst of {runs}, {how}", 10.0)


def of_rekey(folder: Path, mib: int) -> Iterator[Row]:
    """A domain encrypted anew, and what a plain re-encryption of the same bytes takes."""
    model = weights(folder, mib)
    with created(folder, secrets.token_urlsafe()) as keep:
        keep.keys.new("large", "small")
        keep.admit(model, name="large", domain="large")
        keep.backup()
        ours_s = seconds(lambda: keep.keys.rekey("large"))
        yield Row("rekey", mib / ours_s, "MiB/s", f"{mib} MiB, 2 stores, proven and checked")
        destroyed_s = seconds(lambda: keep.keys.destroy("large"))
        yield Row("destroy", destroyed_s, "s", f"{mib} MiB in 2 stores")
    alone = folder / "alone"
    with created(alone, secrets.token_urlsafe(), second=False) as keep:
        keep.keys.new("large")
        keep.admit(model, name="large", domain="large")
        one_s = seconds(lambda: keep.keys.rekey("large"))
        yield Row(
            "rekey, one store", mib / one_s, "MiB/s", f"{mib} MiB, proven against its manifest"
        )
    peer_s = age_seconds(folder, model)
    yield Row("age: decrypt and encrypt", mib / peer_s, "MiB/s", f"{mib} MiB, pyrage, file to file")
    yield Row("rekey, one store, against age", peer_s / one_s, "x", "over 1: ours is faster")


def age_seconds(folder: Path, model: Path) -> float:
    """Re-encrypt a file under another age recipient, durably."""
    old, new = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
    sealed, plain, again = folder / "old.age", folder / "plain", folder / "new.age"
    pyrage.encrypt_file(str(model), str(sealed), [old.to_public()])

    def act() -> None:
        pyrage.decrypt_file(str(sealed), str(plain), [old])
        pyrage.encrypt_file(str(plain), str(again), [new.to_public()])
        with again.open("rb") as stream:
            os.fsync(stream.fileno())
        plain.unlink()
        sealed.unlink()

    return seconds(act)


def of_revocation(folder: Path, runs: int) -> Iterator[Row]:
    """From the moment the owner says so to the first refusal of a running gateway."""
    passphrase = secrets.token_urlsafe()
    folder.mkdir()
    model = trained(digits(), folder)[1].file
    with created(folder, passphrase) as keep:
        keep.keys.new("acme")
        keep.admit(model, name="digits", domain="acme")
        service = keep.serve()
    found: dict[str, list[float]] = {"domain": [], "token": [], "principal": []}
    with service, Keep(folder / "keep", passphrase=passphrase) as keep:
        for number in range(runs):
            token_id, key = keep.access.new_token("caller", scopes=("infer:digits",))
            caller = Caller(service.url, key.reveal().decode(), folder / "keep" / "ca.pem")
            keep.access.new_principal(f"person-{number}", roles=("caller",))
            held = keep.access.new_token(f"person-{number}", scopes=("infer:digits",))[1]
            person = Caller(service.url, held.reveal().decode(), folder / "keep" / "ca.pem")
            found["domain"].append(caller.refused_after(lambda: keep.keys.revoke("acme")))
            keep.keys.restore("acme")
            found["token"].append(
                caller.refused_after(lambda of=token_id: keep.access.revoke_token(of))
            )
            found["principal"].append(
                person.refused_after(lambda n=number: keep.access.disable_principal(f"person-{n}"))
            )
    for what, times in found.items():
        how = f"worst of {runs}, median {statistics.median(times):.3f} s, with its ledger entry"
        yield Row(f"a revoked {what} is refused", max(times), "s", how, 1.0)


class Caller:
    """Asks for a model's metadata over one connection, all the time."""

    def __init__(self, url: str, key: str, ca: Path) -> None:
        address = urlsplit(url)
        assert address.hostname is not None
        context = ssl.create_default_context(cafile=str(ca))
        self._connection = http.client.HTTPSConnection(
            address.hostname, address.port, context=context, timeout=WAIT_S
        )
        self._key = key
        self._until(is_allowed=True)

    def refused_after(self, act: Callable[[], object]) -> float:
        """Seconds from the beginning of an act to the first refusal."""
        self._until(is_allowed=True)
        refused_s: list[float] = []

        def poll() -> None:
            self._until(is_allowed=False)
            refused_s.append(time.perf_counter())

        polling = threading.Thread(target=poll)
        started_s = time.perf_counter()
        polling.start()
        act()
        polling.join()
        return refused_s[0] - started_s

    def _until(self, *, is_allowed: bool) -> None:
        ends_s = time.perf_counter() + WAIT_S
        while (self._status() == http.HTTPStatus.OK) != is_allowed:
            assert time.perf_counter() < ends_s, "the gateway does not change its mind"
            time.sleep(POLL_S)

    def _status(self) -> int:
        headers = {"Authorization": f"Bearer {self._key}"}
        self._connection.request("GET", "/v2/models/digits", headers=headers)
        answer = self._connection.getresponse()
        answer.read()
        return answer.status


def of_shares(runs: int) -> Iterator[Row]:
    """SLIP-39 by itself: 3 of 5 shares of a 32-byte key."""
    key = Secret(secrets.token_bytes(32))
    splitting, joining = [], []
    for _ in range(runs):
        started_s = time.perf_counter()
        words = split_words(key, threshold=3, total=5)
        middle_s = time.perf_counter()
        assert joined_words(words[2:]) == key
        splitting.append(middle_s - started_s)
        joining.append(time.perf_counter() - middle_s)
    yield Row("split 3 of 5", statistics.median(splitting), "s", "SLIP-39, shamir-mnemonic")
    yield Row("join 3 of 5", statistics.median(joining), "s", "SLIP-39, shamir-mnemonic")


@contextlib.contextmanager
def created(folder: Path, passphrase: str, *, second: bool = True) -> Iterator[Keep]:
    """A keep with its second store beside it, at the default cost of a passphrase."""
    stores = {"offsite": folder / "offsite"} if second else {}
    with Keep.create(folder / "keep", passphrase=passphrase, stores=stores, port=0) as keep:
        yield keep


def weights(folder: Path, mib: int) -> Path:
    """A safetensors file of random weights: nothing in it deduplicates."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"layer-{number}": {
            "dtype": "F32",
            "shape": [MIB // 4],
            "data_offsets": [number * MIB, (number + 1) * MIB],
        }
        for number in range(mib)
    }
    head = json.dumps(tensors).encode()
    head += b" " * (-len(head) % 8)
    path = folder / "model.safetensors"
    with path.open("wb") as stream:
        stream.write(len(head).to_bytes(8, "little") + head)
        for _ in range(mib):
            stream.write(os.urandom(MIB))
    return path


def numbered(count: int) -> list[str]:
    """Names of domains."""
    return [f"tenant-{number:04d}" for number in range(count)]


def seconds(act: Callable[[], object]) -> float:
    """How long something takes."""
    started_s = time.perf_counter()
    act()
    return time.perf_counter() - started_s


def report(rows: list[Row], load: float) -> None:
    """Print every figure, judge the bars, write them down."""
    is_quiet = load <= LOAD_MAX
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607
        cwd=ROOT, capture_output=True, text=True, check=False,
    ).stdout.strip()  # fmt: skip
    facts: list[dict[str, Any]] = []
    for row in rows:
        holds = row.value <= row.wanted if row.wanted is not None and is_quiet else None
        facts.append({
            "bar": row.name, "value": round(row.value, 4), "wanted": row.wanted, "holds": holds,
            "unit": row.unit, "how": row.how, "commit": commit, "load": round(load, 2),
        })  # fmt: skip
        mark = {True: "holds", False: "does not hold", None: "not judged: load over 1"}[holds]
        said = f" (at most {row.wanted:g}: {mark})" if row.wanted is not None else ""
        print(f"{row.name:32}{row.value:>10.3f} {row.unit:<6}{said}  {row.how}")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
