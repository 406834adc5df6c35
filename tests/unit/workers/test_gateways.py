"""What a supervisor knows of its gateways."""

import subprocess
import sys

import pytest

from modelkeep.core.record import to_json
from modelkeep.workers.control import LOAD, End, Load, Table, control_pair
from modelkeep.workers.gateways import Gateways
from modelkeep.workers.process import Child

NUMBER = 3


@pytest.fixture
def running():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


@pytest.fixture
def two(running):
    """Two gateways as the supervisor has them, and their own ends."""
    ends, theirs = [], []
    for number in range(2):
        end, fd = control_pair()
        theirs.append(End(fd))
        child = Child(f"gateway-{number}", "gateway", Table(number=1, models=()), ())
        child.process = running
        ends.append((child, end))
    gateways = Gateways.of(ends)
    yield gateways, theirs
    for each in (gateways, *theirs):
        each.close()


@pytest.mark.parametrize(
    ("load", "missing"),
    [
        (None, "gateway-1 says nothing"),
        (Load(table=2, is_ready=True), "gateway-1 does not take the table of models"),
        (Load(table=3), "gateway-1 knows no replica of some model that answers"),
        (Load(table=3, is_ready=True), ""),
    ],
    ids=["silent", "an older table", "no replica", "ready"],
)
def test_why_they_are_not_ready_is_known(load, missing, two):
    gateways, theirs = two
    theirs[0].send(LOAD, to_json(Load(table=NUMBER, is_ready=True)))
    if load is not None:
        theirs[1].send(LOAD, to_json(load))
    heard = list(gateways.listen())
    assert len(heard) == 1 + (load is not None)
    assert gateways.missing(NUMBER) == missing
    assert gateways.are_ready(NUMBER) == (not missing)


def test_a_replica_is_silent_that_every_gateway_misses(two):
    gateways, theirs = two
    assert gateways.silent() == frozenset()
    for silent, found in (("ab", "ab"), ("bc", "b"), ("", "")):
        theirs[0].send(LOAD, to_json(Load(table=NUMBER, silent=tuple("ab"))))
        theirs[1].send(LOAD, to_json(Load(table=NUMBER, silent=tuple(silent))))
        assert len(list(gateways.listen())) == 2
        assert gateways.silent() == frozenset(found)
