"""Room that is given back is there again, and no two parts ever overlap."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from modelkeep.kernels.extents import ALIGNMENT, Extents

SIZE = 64 * ALIGNMENT


class Room(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.extents = Extents(SIZE)
        self.taken = {}

    @rule(length=st.integers(0, SIZE + 1))
    def take(self, length):
        offset = self.extents.take(length)
        if offset >= 0:
            assert offset % ALIGNMENT == 0
            self.taken[offset] = length

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def give(self, data):
        offset = data.draw(st.sampled_from(sorted(self.taken)))
        assert self.extents.give(offset)
        del self.taken[offset]
        assert not self.extents.give(offset)

    @invariant()
    def parts_lie_within_and_apart(self):
        end = 0
        for offset, length in sorted(self.taken.items()):
            assert offset >= end
            end = offset + max(length, 1)
        assert end <= SIZE
        assert self.extents.taken_count == len(self.taken)

    def teardown(self):
        for offset in self.taken:
            self.extents.give(offset)
        assert self.extents.take(SIZE) == 0  # all of it is one part again


TestRoom = Room.TestCase


def test_what_was_not_taken_cannot_be_given_back():
    extents = Extents(SIZE)
    assert not extents.give(0)
    assert not extents.give(-64)
    assert Extents(0).take(1) == -1
