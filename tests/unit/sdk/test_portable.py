"""`PortableModel`: an exported model for programs, without a keep."""

import pytest
from portable_files import FILES, SENDER, STRANGER, TENSORS, WORDS, manifest_of, portable, table_of

from modelkeep.core.errors import MissingError, RefusedError, UsageError
from modelkeep.core.policy import Policy, Use
from modelkeep.crypto.keytext import verifier_text
from modelkeep.sdk.portable import PortableModel

SENT_BY = verifier_text(SENDER.public)


@pytest.fixture
def opened(tmp_path):
    """Opens files that are closed when the test ends."""
    models = []

    def opening(raw=None, signed_by=SENT_BY, **facts):
        path = tmp_path / "m.model"
        path.write_bytes(raw or portable(table=table_of(manifest_of(**facts))))
        models.append(PortableModel(path, passphrase=WORDS.secret, signed_by=signed_by))
        return models[-1]

    yield opening
    for each in models:
        each.close()


def test_tensors_ranges_and_files_are_what_was_exported(opened):
    model = opened()
    assert (model.manifest.name, model.sender) == ("digits", SENT_BY)
    assert model.tensor("zeros") == TENSORS["zeros"]
    assert model.read("model.bin", 100, 300) == FILES["model.bin"][100:400]
    assert model.read("sub/empty", 0, 0) == b""
    assert model.load("sub/words.txt") == FILES["sub/words.txt"]
    target = memoryview(bytearray(len(FILES["model.bin"])))
    done = []
    model.load_into(target, path="model.bin", progress=done.append)
    assert target == FILES["model.bin"]
    assert sum(done) == len(target)


@pytest.mark.parametrize(("start", "length"), [(-1, 2), (0, 1 << 60), (2224, 1), (5, -1)])
def test_a_range_lies_in_its_file(opened, start, length):
    with pytest.raises(UsageError):
        opened().read("model.bin", start, length)


def test_what_is_not_there_is_said(opened):
    model = opened()
    for ask in (lambda: model.tensor("none"), lambda: model.read("none", 0, 1), model.load):
        with pytest.raises(MissingError):
            ask()
    with pytest.raises(UsageError):
        model.load_into(memoryview(bytearray(3)), path="model.bin")


def test_the_sender_is_the_one_who_is_demanded(opened):
    assert opened(signed_by=None).sender == SENT_BY
    with pytest.raises(RefusedError):
        opened(signed_by=verifier_text(STRANGER.public))


@pytest.mark.parametrize(
    "policy",
    [
        Policy(uses=(Use.SERVE,)),
        Policy(not_after_ns=1),
        Policy(loaders=("cli:alice",)),
        Policy(hosts=("00",)),
    ],
)
def test_a_policy_binds_programs_too(opened, policy, tmp_path):
    model = opened(policy=policy)
    for ask in (
        lambda: model.tensor("last"),
        lambda: model.read("model.bin", 0, 1),
        lambda: model.load("model.bin"),
        lambda: model.unpack(tmp_path / "out"),
    ):
        with pytest.raises(RefusedError) as caught:
            ask()
        assert caught.value.code.startswith("policy.")


def test_a_file_that_does_not_open_is_no_model(opened):
    with pytest.raises(RefusedError):
        opened(raw=portable(signer=STRANGER))
