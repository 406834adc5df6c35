"""After a full demo, nothing that must stay secret stands anywhere but in memory."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from command import Process, wait_until

from modelkeep.sdk.keep import Keep


def passphrase_of(pid: int) -> bytes:
    """The demo's passphrase, out of its memory file."""
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        if "memfd:passphrase" in str(fd.readlink()):
            return fd.read_bytes()
    raise AssertionError("the demo has no passphrase")


def canaries_of(folder: Path, passphrase: bytes, api_key: str) -> dict[str, bytes]:
    """Every secret of the keep that the demo left: typed, derived, random and weights."""
    found = {"passphrase": passphrase, "token": api_key.split("_", 2)[2].encode()}
    with Keep(folder / "keep", passphrase=passphrase.decode()) as keep:
        body, keys = keep.opened.ring.body, keep.opened.keys
        found["identity"] = body.identity
        found["authority"] = body.ca_key
        found |= {f"domain {each.name}": each.key for each in body.domains}
        found["ledger seed"] = keys.ledger_seed.reveal()
        found["ledger body"] = keys.ledger_body.reveal()
        found["commitments"] = keys.commitments.reveal()
        for model in keep.models():
            tensors = keep.manifest(f"{model.name}:{model.version}").files[0].tensors
            keep.restore(f"{model.name}:{model.version}", folder / "plain")
            raw = (folder / "plain").read_bytes()
            (folder / "plain").unlink()
            largest = max(tensors, key=lambda each: each.length)
            found[f"weights {model.version}"] = raw[largest.offset : largest.offset + 64]
    found |= {
        f"{name} in hex": secret.hex().encode()
        for name, secret in found.items()
        if not name.startswith(("weights", "passphrase", "token"))
    }
    assert min(map(len, found.values())) >= 32
    return found


@pytest.mark.slow
def test_no_canary_stands_in_any_file_log_core_or_process_after_a_full_demo(tmp_path, running):
    folder, temporary = tmp_path / "demo", tmp_path / "temporary"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary)}
    report, log = tmp_path / "report.html", tmp_path / "log"
    words = ("demo", "--serve", "--folder", folder, "--report", report)
    with log.open("wb") as stream:
        process = Process(*words, env=environment, cwd=tmp_path, into=stream)
    running(process)
    wait_until(lambda: b"API key: " in log.read_bytes(), 180)
    api_key = re.search(r"API key: (\S+)", log.read_text())[1]
    secrets = canaries_of(folder, passphrase_of(process.pid), api_key)
    pids = process.left()
    assert len(pids) >= 7  # demo, supervisor, keyholder, recorder, two replicas, gateway
    for pid in pids:
        for what in ("cmdline", "environ"):
            held = Path(f"/proc/{pid}/{what}").read_bytes()
            assert not [name for name, secret in secrets.items() if secret in held], (pid, what)
    inputs = {path for path in folder.iterdir() if path.is_file()}  # what the demo's user made
    searched = [path for path in tmp_path.rglob("*") if path.is_file() and path not in inputs]
    assert len(searched) > 50
    for path in searched:
        try:
            held = path.read_bytes()
        except FileNotFoundError:  # the service runs: a file of a moment
            continue
        shown = {"token"} if path == log else set()  # the demo prints it, for its user
        hits = [name for name, secret in secrets.items() if secret in held and name not in shown]
        assert not hits, (path, hits)
    assert not [path for path in tmp_path.rglob("core*") if path.is_file()]
