"""Goal: no plaintext, and no file for somebody else, without an entry in the ledger before it.

Method: every way out of a keep is asked for; then again while the ledger takes nothing.
"""

from dataclasses import replace

import pytest
from command import CHEAP, PASSPHRASE
from small_onnx import small_onnx

from modelkeep.core.artifact import parsed_reference
from modelkeep.core.errors import UnavailableError
from modelkeep.crypto.locks import Passphrase
from modelkeep.crypto.secret import Secret
from modelkeep.flows import export
from modelkeep.sdk.interop import Interop
from modelkeep.sdk.keep import Keep
from modelkeep.sdk.transfer import Transfer

MODEL = "m:1"


class FullLedger:
    """Takes nothing."""

    def record(self, _entries):
        raise UnavailableError("ledger.full", "no room")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded")
    with Keep.create(folder / "keep", passphrase=PASSPHRASE, port=0, argon2=CHEAP) as keep:
        keep.admit(small_onnx(folder / "m.onnx"), name="m")
    return folder / "keep"


@pytest.fixture
def keep(prepared):
    with Keep(prepared, passphrase=PASSPHRASE) as found:
        yield found


def first_tensor(keep):
    return keep.files(MODEL)[0].tensors[0].name


# How plaintext gets out of an open keep, and what the ledger says then.
WAYS = {
    "read": (lambda keep, _: keep.read(MODEL, "", 0, 9), "model.loaded"),
    "tensor": (lambda keep, _: keep.tensor(MODEL, "", first_tensor(keep)), "model.loaded"),
    "load": (lambda keep, _: keep.load(MODEL).close(), "model.loaded"),
    "cat": (lambda keep, _: keep.stream(MODEL, "", bytes), "model.restored"),
    "restore": (lambda keep, to: keep.restore(MODEL, to), "model.restored"),
    "restore --tensor": (
        lambda keep, to: keep.restore(MODEL, to, tensor=first_tensor(keep)),
        "model.restored",
    ),
    "safetensors": (lambda keep, to: Interop(keep).safetensors(MODEL, to), "model.restored"),
    "export": (
        lambda keep, to: Transfer(keep).export(
            MODEL, to, passphrase=Secret(b"of the file"), argon2=CHEAP
        ),
        "model.exported",
    ),
}
each_way = pytest.mark.parametrize("way", WAYS)


@each_way
def test_whatever_gives_plaintext_out_is_in_the_ledger(keep, tmp_path, way):
    ask, kind = WAYS[way]
    before = len(list(keep.opened.history(0)))
    ask(keep, tmp_path / "out")
    (entry,) = [entry for _, entry in keep.opened.history(before)]
    assert (entry.kind, entry.facts["model"], entry.facts["version"]) == (kind, "m", 1)


@each_way
def test_what_the_ledger_does_not_take_does_not_get_out(keep, tmp_path, way):
    keep.adopt(replace(keep.opened, recorder=FullLedger()))
    with pytest.raises(UnavailableError) as refused:
        WAYS[way][0](keep, tmp_path / "out")
    assert refused.value.code == "ledger.full"
    assert not list(tmp_path.iterdir())


def test_many_reads_of_a_version_are_one_entry_while_the_keep_is_open(keep):
    before = len(list(keep.opened.history(0)))
    for start in range(9):
        keep.read(MODEL, "", start, 9)
        keep.tensor(MODEL, "", first_tensor(keep))
    assert len(list(keep.opened.history(before))) == 1


def test_an_export_is_durable_before_the_ledger_knows_of_it(keep):
    def unplugged():
        raise OSError(5, "the disk is gone")

    before = len(list(keep.opened.history(0)))
    lock = Passphrase(Secret(b"of the file"), CHEAP)
    with pytest.raises(OSError, match="gone"):
        export.exported(
            keep.opened, parsed_reference(MODEL), lambda *_: None, unplugged, locks=[lock]
        )
    assert len(list(keep.opened.history(0))) == before
