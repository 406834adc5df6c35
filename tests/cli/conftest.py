"""What the scripts share: a fresh keep for a test, and one with two models for a whole file."""

import pytest
from command import PASSPHRASE, Desk
from tensor_files import tensors, written

from modelkeep.sdk.keep import Keep


@pytest.fixture
def desk(tmp_path):
    return Desk.made(tmp_path)


@pytest.fixture
def one(desk):
    """A keep that holds digits:1."""
    desk.admit()
    return desk


@pytest.fixture
def three(desk):
    """A keep that holds lm:1, lm:2 and lm:3, each made from the one before."""
    with Keep(desk.keep, passphrase=PASSPHRASE) as keep:
        for number in (1, 2, 3):
            file = written(desk.folder / "lm.safetensors", tensors(number, count=1, items=4))
            keep.admit(file, name="lm", base=f"lm:{number - 1}" if number > 1 else "")
    return desk


@pytest.fixture
def running():
    """Starts processes; whatever a test forgets ends with it."""
    started = []

    def keep(process):
        started.append(process)
        return process

    yield keep
    for process in started:
        process.clean()
