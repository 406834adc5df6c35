"""Who may change an anchor decides who is believed: its owner and root, and nobody else."""

import os

import pytest

from modelkeep.adapters.attestors import read_anchor
from modelkeep.adapters.evidence_eat import new_key
from modelkeep.core.errors import UnavailableError, UsageError


@pytest.fixture
def anchor(tmp_path):
    _, public = new_key("ES256")
    path = tmp_path / "host.pub"
    path.write_bytes(public)
    path.chmod(0o644)
    return path


def refusal(path):
    with pytest.raises(UsageError) as refused:
        read_anchor(str(path))
    return refused.value.code


def test_an_anchor_that_everybody_may_read_is_read(anchor):
    assert read_anchor(str(anchor)).ueid
    assert not read_anchor(f"fleet:{anchor}").ueid


@pytest.mark.parametrize("mode", [0o666, 0o664, 0o646, 0o622])
def test_an_anchor_that_others_may_change_is_refused(anchor, mode):
    anchor.chmod(mode)
    assert refusal(anchor) == "attest.anchor"


def test_a_pipe_in_the_place_of_an_anchor_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert refusal(tmp_path / "pipe") == "attest.anchor"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_an_anchor_of_another_user_is_refused(anchor):
    os.chown(anchor, 65534, -1)
    assert refusal(anchor) == "attest.anchor"


def test_an_anchor_that_is_not_there_is_said_to_be_missing(tmp_path):
    with pytest.raises(UnavailableError) as failed:
        read_anchor(str(tmp_path / "nothing"))
    assert failed.value.code == "attest.unavailable"
