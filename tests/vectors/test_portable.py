"""Golden exported models, good and bad, through every way in: each ends as its file says.

They are made by `tests/vectors/portable/make.py`. Whatever a way in gives out is what was exported;
what failed gave out nothing.
"""

import io
import runpy
from pathlib import Path

import pytest
from portable_files import FILES, TENSORS

from modelkeep.core.errors import KeepError
from modelkeep.crypto.keytext import secret_key_seed, verifier_bytes, verifier_text
from modelkeep.crypto.locks import Passphrase
from modelkeep.crypto.recipients import Identity
from modelkeep.crypto.secret import Secret
from modelkeep.flows.portable import file_into, opened_model, range_into, tensor_into
from modelkeep.flows.portable_stream import received
from modelkeep.sdk.portable import PortableModel, outside_of

FOLDER = Path(__file__).parent / "portable"
FILES_V1 = sorted(FOLDER.glob("v1_*"))
MAKE = runpy.run_path(str(FOLDER / "make.py"))
WAYS = ("stream", "load", "tensor", "range", "inspect", "outside", "decrypt")


def parsed(raw):
    head, _, body = raw.partition(b"\n\n")
    return dict(line.split(": ", 1) for line in head.decode().splitlines()), body


class Vector:
    """One file, and the ways into it; each returns what it gave out."""

    def __init__(self, path, folder):
        self.fields, self.raw = parsed(path.read_bytes())
        self.path, self.out = folder / "sent.model", folder / "out"
        self.path.write_bytes(self.raw)
        self.room = []

    @property
    def keys(self):
        if "passphrase" in self.fields:
            return [Passphrase(Secret(self.fields["passphrase"].encode()))]
        return [self.identity]

    @property
    def identity(self):
        return Identity(secret_key_seed(Secret(self.fields["identity"].encode())))

    @property
    def signers(self):
        named = self.fields["signer"]
        return [verifier_bytes(named)] if named else None

    def allocate(self, size_bytes):
        self.room.append(memoryview(bytearray(size_bytes)))
        return self.room[-1]

    def read_at(self, start, target):
        got = self.raw[start : start + len(target)]
        target[: len(got)] = got
        return len(got)

    def opened(self):
        size_bytes = len(self.raw)
        return opened_model(self.read_at, size_bytes, keys=self.keys, signers=self.signers)

    def model(self):
        words = self.fields.get("passphrase")
        return PortableModel(
            self.path,
            identity=() if words else self.identity,
            passphrase=words,
            signed_by=[verifier_text(each) for each in self.signers] if self.signers else None,
        )

    def stream(self):
        read = io.BytesIO(self.raw).read
        found = received(read, keys=self.keys, trusted=self.signers or [], allocate=self.allocate)
        return {path: bytes(raw) for path, raw in found.files}

    def load(self):
        model, given = self.opened(), {}
        for number, each in enumerate(model.manifest.files):
            target = self.allocate(each.size_bytes)
            file_into(model, number, target)
            given[each.path] = bytes(target)
        return given

    def tensor(self):
        found = tensor_into(self.opened(), self.allocate, path="", name="last")
        assert found == TENSORS["last"]

    def range(self):
        target = self.allocate(40)
        range_into(self.opened(), 0, target, start=2170)
        assert target == FILES["model.bin"][2170:2210]

    def inspect(self):
        with self.model() as model:
            assert model.manifest.name == "digits"

    def outside(self):
        assert outside_of(self.path).table_bytes > 100

    def decrypt(self):
        with self.model() as model:
            model.unpack(self.out)
        if self.out.is_file():
            return {"model.bin": self.out.read_bytes()}
        assert (self.out / "sub").stat().st_mode & 0o777 == 0o750
        assert (self.out / "sub/up").resolve() == (self.out / "model.bin").resolve()
        return {
            str(each.relative_to(self.out)): each.read_bytes()
            for each in self.out.rglob("*")
            if each.is_file() and not each.is_symlink()
        }


@pytest.mark.parametrize("path", FILES_V1, ids=lambda path: path.name)
def test_a_golden_file_ends_as_it_says_at_every_way_in(path, tmp_path):
    ended = {}
    for way in WAYS:
        vector = Vector(path, tmp_path)
        try:
            given = getattr(vector, way)()
        except KeepError as error:
            ended[way] = error.code
            assert not vector.out.exists()
        else:
            ended[way] = "success"
            assert given is None or given == {name: FILES[name] for name in given}
    fields = vector.fields
    assert ended == {way: fields.get(way, fields["expect"]) for way in WAYS}


def test_what_format_v0_wrote_is_read(tmp_path):
    vector = Vector(FOLDER / "v0_folder", tmp_path)
    found = vector.stream()
    assert sorted(found) == ["m-0.safetensors", "m-1.safetensors"]
    for at in (60, 700, len(vector.raw) - 9):
        vector.raw = vector.raw[:at] + bytes([vector.raw[at] ^ 1]) + vector.raw[at + 1 :]
        with pytest.raises(KeepError):
            vector.stream()


def test_every_case_has_its_file_and_every_file_its_case():
    assert {f"v1_{case[0]}" for case in MAKE["cases"]()} == {path.name for path in FILES_V1}
    assert sum(path.stat().st_size for path in FOLDER.glob("v*")) < 200 * 1024


def test_the_same_bytes_are_written_as_ever():
    for case in MAKE["cases"]():
        if case[0] not in MAKE["random_names"]():
            assert MAKE["vector"](case) == (FOLDER / f"v1_{case[0]}").read_bytes(), case[0]
