"""Both halves of the memory that a gateway shares with a replica, in one process."""

import os

import pytest

from modelkeep.adapters.shared_memory import GatewayMemory, ReplicaMemory
from modelkeep.core.errors import IntegrityError

SIZE = 1 << 20


@pytest.fixture
def halves():
    gateway = GatewayMemory(SIZE)
    replica = ReplicaMemory(SIZE, [os.dup(fd) for fd in gateway.descriptors])
    gateway.close_descriptors()
    yield gateway, replica
    replica.close()


def test_what_one_side_writes_the_other_reads(halves):
    gateway, replica = halves
    spans = gateway.written(1, [b"first", memoryview(b"second" * 1000)])
    assert [bytes(each) for each in replica.read(spans)] == [b"first", b"second" * 1000]
    offset, lengths = replica.written([b"answer", b""])
    assert [bytes(each) for each in gateway.copied(offset, lengths)] == [b"answer", b""]


def test_an_answer_that_changes_after_it_was_copied_stays_as_it_was(halves):
    gateway, replica = halves
    offset, lengths = replica.written([b"true"])
    (copy,) = gateway.copied(offset, lengths)
    replica.freed(offset)
    replica.written([b"lies"])
    assert bytes(copy) == b"true"


def test_without_room_nothing_is_written_and_room_comes_back(halves):
    gateway, replica = halves
    assert gateway.written(1, [bytes(SIZE - 64)])
    assert gateway.written(2, [bytes(65)]) == ()
    gateway.freed(2)
    gateway.freed(1)
    assert gateway.written(3, [bytes(SIZE)])
    offset, _ = replica.written([bytes(SIZE)])
    assert replica.written([b"more"])[0] < 0
    replica.freed(offset)
    assert replica.written([b"more"])[0] >= 0


@pytest.mark.parametrize(
    ("offset", "lengths"),
    [(-64, (64,)), (SIZE, (1,)), (0, (SIZE + 1,)), (0, (-1,)), (0, (SIZE, SIZE)), (2**63, (1,))],
)
def test_a_place_outside_is_refused(halves, offset, lengths):
    with pytest.raises(IntegrityError):
        halves[0].copied(offset, lengths)


def test_what_nobody_wrote_cannot_be_freed(halves):
    with pytest.raises(IntegrityError):
        halves[1].freed(64)


def test_files_of_another_size_are_refused():
    gateway = GatewayMemory(SIZE)
    for size in (SIZE * 2, SIZE - 4096, 0):
        with pytest.raises(IntegrityError):
            ReplicaMemory(size, [os.dup(fd) for fd in gateway.descriptors])
    with pytest.raises(IntegrityError):
        ReplicaMemory(SIZE, [os.dup(gateway.descriptors[0])])
    gateway.close_descriptors()


def test_the_files_cannot_be_resized_by_whoever_has_them():
    gateway = GatewayMemory(SIZE)
    for fd in gateway.descriptors:
        for size in (0, SIZE // 2, SIZE * 2):
            with pytest.raises(PermissionError):
                os.ftruncate(fd, size)
    with pytest.raises(PermissionError):
        os.write(gateway.descriptors[0], b"x")
    gateway.close_descriptors()
