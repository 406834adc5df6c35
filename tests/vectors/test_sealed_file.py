"""Golden sealed files: what one version sealed, every later one opens, and what it wrote it writes.

They are made by `tests/vectors/sealed_file/make.py`; each says in its header what must happen.
"""

import hashlib
import io
import runpy
from pathlib import Path

import pytest

from modelkeep.core.errors import KeepError
from modelkeep.crypto.keytext import secret_key_seed, verifier_bytes
from modelkeep.crypto.locks import Passphrase
from modelkeep.crypto.recipients import Identity
from modelkeep.crypto.rsa_keys import rsa_identity
from modelkeep.crypto.sealed_file import opened_file
from modelkeep.crypto.secret import Secret

FOLDER = Path(__file__).parent / "sealed_file"
FILES = sorted(FOLDER.glob("v0_*"))
MAKE = runpy.run_path(str(FOLDER / "make.py"))


def parsed(raw):
    head, _, body = raw.partition(b"\n\n")
    return dict(line.split(": ", 1) for line in head.decode().splitlines()), body


def keys_of(fields):
    if "passphrase" in fields:
        yield Passphrase(Secret(fields["passphrase"].encode()))
    if "identity" in fields:
        yield Identity(secret_key_seed(Secret(fields["identity"].encode())))
    if "rsa" in fields:
        yield rsa_identity(Secret((FOLDER / fields["rsa"]).read_bytes()))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_golden_file_ends_as_it_says(path):
    fields, body = parsed(path.read_bytes())
    signers = [verifier_bytes(fields["signer"])] if "signer" in fields else None
    released, outcome = b"", "success"
    try:
        opened = opened_file(io.BytesIO(body).read, keys=keys_of(fields), signers=signers)
        for chunk in opened.chunks:
            released += chunk
    except KeepError as error:
        outcome = error.code
    assert outcome == fields["expect"]
    assert hashlib.sha256(released).hexdigest() == fields["plain"]


def test_every_case_has_its_file_and_every_file_its_case():
    assert {f"v0_{case[0]}" for case in MAKE["cases"]()} == {path.name for path in FILES}


@pytest.mark.parametrize("name", sorted(MAKE["REPEATABLE"]))
def test_the_same_bytes_are_written_as_ever(name):
    (case,) = (case for case in MAKE["cases"]() if case[0] == name)
    assert MAKE["vector"](case) == (FOLDER / f"v0_{name}").read_bytes()
