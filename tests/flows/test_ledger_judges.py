"""The log is judged by an implementation that is not ours: Go's sumdb/tlog and sumdb/note."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from modelkeep.adapters.disk import RealDisk
from modelkeep.adapters.journal_file import JournalFile
from modelkeep.adapters.store_folder import FolderStore
from modelkeep.core.entry import Entry
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import Signer
from modelkeep.flows.ledger import Sequencer
from modelkeep.ledger.checkpoint import signed_checkpoint, verifier_key
from modelkeep.ledger.cosignature import Witness, cosigned
from modelkeep.ledger.log import LogReader
from modelkeep.ledger.proof import inclusion_proof
from modelkeep.ledger.tiles import log_prefix
from modelkeep.testing.memory import SeededEntropy

ORIGIN = "example.org/keep/main"
SIGNER = Signer(Secret(b"s" * 32))
SOURCE = Path(__file__).with_name("ledger_judge.go")
GOPATH = Path("/usr/share/gocode")
needs_go = pytest.mark.skipif(
    shutil.which("go") is None or not (GOPATH / "src/golang.org/x/mod/sumdb/tlog").is_dir(),
    reason="needs Debian's golang-go and golang-golang-x-mod-dev",
)


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judge")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "GO111MODULE": "off",
        "GOPATH": str(GOPATH),
        "GOCACHE": str(folder / "cache"),
        "GOFLAGS": "-p=2",
        "CGO_ENABLED": "0",
    }
    program = folder / "judge"
    command = ["go", "build", "-o", str(program), str(SOURCE)]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return program


def written_log(folder, sizes):
    store = FolderStore(folder / "store", "store")
    sequencer = Sequencer(
        origin=ORIGIN,
        journal=JournalFile(RealDisk(), folder / "wal", writable=True),
        stores=[store],
        signer=SIGNER,
        body_key=Secret(b"b" * 32),
        entropy=SeededEntropy(),
    )
    for size in sizes:
        fresh = range(sequencer.size, size)
        sequencer.append([Entry(kind="x", at_ns=n, actor="x") for n in fresh])
        sequencer.publish()
    return store, folder / "store" / log_prefix(ORIGIN)


def judged(judge, log, store, size):
    root = LogReader(store, ORIGIN).range_root(size)
    lines = []
    for index in sorted({0, size // 3, size // 2, size - 1}):
        proof = inclusion_proof(index, size=size, range_root=root)
        lines.append(" ".join([str(index), *(base64.b64encode(each).decode() for each in proof)]))
    proofs = log.parent / "proofs.txt"
    proofs.write_text("\n".join(lines))
    key = verifier_key(ORIGIN, SIGNER.public)
    return subprocess.run([judge, log, key, proofs], capture_output=True, text=True, check=False)


@needs_go
@pytest.mark.parametrize(
    "sizes",
    [
        (1,),
        (2, 255),
        (256,),
        (100, 256, 257, 700),
        pytest.param((65_536, 65_537, 65_800), marks=pytest.mark.slow),  # a third level of tiles
    ],
    ids=str,
)
def test_go_finds_the_log_whole(judge, tmp_path, sizes):
    store, log = written_log(tmp_path, sizes)
    verdict = judged(judge, log, store, sizes[-1])
    assert verdict.stdout == f"whole: {sizes[-1]}\n"


@needs_go
def test_go_refuses_what_we_refuse(judge, tmp_path):
    store, log = written_log(tmp_path, (300,))
    for name in ("tile/0/000", "tile/entries/001.p/44", "tile/1/000.p/1"):
        raw = (log / name).read_bytes()
        (log / name).write_bytes(raw[:20] + bytes([raw[20] ^ 1]) + raw[21:])
        assert judged(judge, log, store, 300).stdout.startswith("refused:")
        (log / name).write_bytes(raw)
    assert judged(judge, log, store, 300).stdout == "whole: 300\n"


@needs_go
def test_go_accepts_a_cosigned_checkpoint_and_refuses_a_changed_one(judge, tmp_path):
    """The witness's rule is written anew in Go; the note around it is opened by sumdb/note."""
    signer = Signer(Secret(b"w" * 32))
    witness = Witness("example.org/witness", signer.public)
    checkpoint = signed_checkpoint(ORIGIN, size=12, root=bytes(32), signer=SIGNER)
    raw = cosigned(checkpoint, name=witness.name, signer=signer, at_s=1_700_000_000)
    note = tmp_path / "note.txt"
    words = [judge, "cosigned", note, verifier_key(ORIGIN, SIGNER.public), witness.verifier_key]

    def said(text):
        note.write_bytes(text)
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout

    assert said(raw) == "signatures: 2 unknown: 0\n"
    assert said(checkpoint.raw) == "signatures: 1 unknown: 0\n"
    for at in range(len(raw) - 60, len(raw) - 3):  # within the cosignature
        assert said(
            raw[:at] + (b"B" if raw[at : at + 1] == b"A" else b"A") + raw[at + 1 :]
        ) != said(raw)
