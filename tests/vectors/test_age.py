"""The public test vectors of the age format (C2SP CCTV), each judged or counted with a reason.

The files are not part of this repository: see age/README.md for where they are from and how to run
this test. Each is a textual header, an empty line, and an age file that may be compressed. A last
vector is the example that age's own documentation opens.
"""

import hashlib
import os
import zlib
from collections import Counter
from pathlib import Path

import pyrage
import pytest

from modelkeep.adapters.age_files import decrypt_age
from modelkeep.core.errors import KeepError
from modelkeep.crypto.secret import Secret

VARIABLE = "MODELKEEP_AGE_VECTORS"
HEADER_KEYS = {
    "expect", "compressed", "payload", "identity", "passphrase", "armored", "file key", "comment",
}  # fmt: skip
# What pyrage cannot express, by reason; a vector for it is counted, not judged.
COSTLY = "passphrase that costs 8 GiB: the library has no bound, modelkeep opens none of this form"
POST_QUANTUM = "identity of the post-quantum kind: pyrage opens with X25519 and SSH keys only"


# At the commit that README.md names; another one may have more.
AT_THE_COMMIT = {
    "success, judged with modelkeep": 19,
    "no match, judged with modelkeep": 4,
    "HMAC failure, judged with modelkeep": 1,
    "header failure, judged with modelkeep": 33,
    "armor failure, judged with modelkeep": 22,
    "payload failure, judged with modelkeep": 19,
    "success, judged with the library alone": 2,
    "no match, judged with the library alone": 4,
    "header failure, judged with the library alone": 19,
    POST_QUANTUM: 19,
    COSTLY: 1,
}
# From Debian's golang-filippo-age-dev.
EXAMPLE = Path("/usr/share/gocode/src/filippo.io/age/testdata")
FOLDER = os.environ.get(VARIABLE)  # while this file is read: tests run without such variables
VECTORS = sorted(path for path in Path(FOLDER).iterdir() if path.is_file()) if FOLDER else []


def parsed(raw):
    """The header's fields, each a list, and the age file."""
    head, _, body = raw.partition(b"\n\n")
    fields = {}
    for line in head.decode().splitlines():
        key, _, value = line.partition(": ")
        fields.setdefault(key, []).append(value)
    assert set(fields) <= HEADER_KEYS
    return fields, zlib.decompress(body) if "compressed" in fields else body


def reason_to_leave_out(path, fields):
    if path.name == "scrypt_work_factor_23":
        return COSTLY
    if any(each.startswith("AGE-SECRET-KEY-PQ-") for each in fields.get("identity", [])):
        return POST_QUANTUM
    return ""


def outcome(fields, body):
    """What came of a file: nothing or an error's code, and all plaintext that was released."""
    released = []
    if "passphrase" in fields:  # the verb has no passphrase for this form; the library does
        try:
            released.append(pyrage.passphrase.decrypt(body, fields["passphrase"][0]))
        except pyrage.DecryptError:
            return "age.damaged", b""
        return "", b"".join(released)
    remaining = memoryview(body)

    def read(size):
        nonlocal remaining
        got, remaining = remaining[:size], remaining[size:]
        return bytes(got)

    identities = [Secret(each.encode()) for each in fields.get("identity", [])]
    try:
        decrypt_age(read, released.append, identities=identities)
    except KeepError as error:
        return error.code, b"".join(released)
    return "", b"".join(released)


@pytest.mark.skipif(not VECTORS, reason=f"{VARIABLE} names no folder: tests/vectors/age/README.md")
def test_every_vector_ends_as_it_must():
    counted, wrong = Counter(), []
    for path in VECTORS:
        fields, body = parsed(path.read_bytes())
        reason = reason_to_leave_out(path, fields)
        if reason:
            counted[reason] += 1
            continue
        expect = fields["expect"][0]
        code, released = outcome(fields, body)
        judge = "the library alone" if "passphrase" in fields else "modelkeep"
        counted[f"{expect}, judged with {judge}"] += 1
        is_right = (code == "") == (expect == "success")
        digest = hashlib.sha256(released).hexdigest()
        if expect in ("success", "payload failure"):
            is_right &= digest == fields["payload"][0]
        else:
            is_right &= not released
        if not is_right:
            wrong.append((path.name, expect, code))
    assert not wrong
    assert counted == AT_THE_COMMIT


@pytest.mark.skipif(not EXAMPLE.is_dir(), reason="golang-filippo-age-dev is not installed")
def test_the_example_of_ages_own_documentation_opens():
    lines = (EXAMPLE / "example_keys.txt").read_text(encoding="ascii").splitlines()
    identities = [line for line in lines if line and not line.startswith("#")]
    code, plain = outcome({"identity": identities}, (EXAMPLE / "example.age").read_bytes())
    assert (code, plain) == ("", b"Black lives matter.")
