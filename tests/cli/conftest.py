"""What the scripts share: a fresh keep for a test, and one with two models for a whole file."""

import pytest
from command import Desk


@pytest.fixture
def desk(tmp_path):
    return Desk.made(tmp_path)


@pytest.fixture
def one(desk):
    """A keep that holds digits:1."""
    desk.admit()
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
