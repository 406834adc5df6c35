"""Goal: two writers and one who prunes, all at once, lose nothing that was acknowledged.

Method: three real processes on one keep, on a real disk. The writers save files that share most of
their chunks, and give up their turn while they write; the pruner removes old versions, drops old
snapshots, prunes at the least waste, and backs up. Afterwards every version that was acknowledged
and that the pruner did not set out to remove comes back bit for bit, and both stores are whole.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from command import CHEAP, PASSPHRASE

from modelkeep.flows.keep import current_head
from modelkeep.sdk.keep import Keep
from modelkeep.sdk.upkeep import Upkeep
from tests.flows.test_vault_power_cuts import demand_snapshots

WRITER = Path(__file__).parents[1] / "support" / "vault_writer.py"
# What may come of being several: a lock that was not got in time, a prune that came between.
PATIENCE = {"lock.held", "vault.pruned", "vault.conflict"}


@pytest.mark.slow
@pytest.mark.verify("vault-writers")
def test_two_writers_and_a_pruner_at_once_lose_nothing(tmp_path, count):
    path = tmp_path / "keep"
    stores = {"offsite": tmp_path / "offsite"}
    Keep.create(path, passphrase=PASSPHRASE, stores=stores, port=0, argon2=CHEAP).close()
    with (path / "modelkeep.toml").open("a") as config:
        config.write("\n[vault]\nsegment_bytes = 4096\npack_bytes = 16384\n")
    seconds = count(6, full=60)
    processes = [
        subprocess.Popen(
            [sys.executable, WRITER, path, role, str(seconds), "1"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for role in ("first", "second", "pruner")
    ]
    said = []
    for each in processes:
        assert each.stdin is not None
        each.stdin.write(PASSPHRASE + "\n")
        each.stdin.close()
        each.stdin = None
    for each in processes:
        out, _ = each.communicate(timeout=seconds + 120)
        assert each.returncode == 0
        said += [json.loads(line) for line in out.splitlines()]
    written = {each["version"]: each["digest"] for each in said if "version" in each}
    removed = {each["removing"] for each in said if "removing" in each}
    errors = [each for each in said if "error" in each]
    assert {each["error"] for each in errors} <= PATIENCE, errors
    assert len(written) > seconds / 2
    assert [each for each in said if each.get("pruned")]
    with Keep(path, passphrase=PASSPHRASE) as keep:
        for version in sorted(written.keys() - removed):
            out_path = tmp_path / "out"
            keep.restore(version, out_path, force=True)
            assert hashlib.sha256(out_path.read_bytes()).hexdigest() == written[version]
        keep.backup()
        report = Upkeep(keep).check(read_data=1.0)
        assert report.is_whole, report.findings
        opened = keep.opened
        for store in opened.stores:
            demand_snapshots(keep, opened.reader_of((store,)), current_head(opened).snapshot)
