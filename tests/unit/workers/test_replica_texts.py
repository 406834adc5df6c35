"""Calls with texts are joined and their answers split like those with numbers."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.artifact import Port
from modelkeep.kernels.byte_tensors import joined_elements, texts_of
from modelkeep.kernels.replica_frames import CallFrame
from modelkeep.workers.replica import joined_inputs, misfit, split_answers

PORTS = (
    Port(name="t", dtype="BYTES", shape=(-1, 2)),
    Port(name="n", dtype="INT64", shape=(-1, 2)),
)
ROWS = st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), min_size=1, max_size=4)


def call(number, rows):
    texts = joined_elements([each.encode() for row in rows for each in row])
    numbers = np.array([[len(each) for each in row] for row in rows], np.int64)
    shape = (len(rows), 2)
    return CallFrame(number, (shape, shape), (memoryview(texts), memoryview(numbers.tobytes())))


@given(st.lists(ROWS, min_size=1, max_size=4))
def test_each_call_gets_its_own_rows(asked):
    calls = [call(number, rows) for number, rows in enumerate(asked)]
    assert not any(misfit(PORTS, each) for each in calls)
    inputs = joined_inputs(calls, PORTS)
    assert inputs["t"].tolist() == [list(row) for rows in asked for row in rows]
    answers = split_answers(calls, [inputs["t"], inputs["n"]], PORTS)
    for rows, each in zip(asked, answers, strict=True):
        flat = [text for row in rows for text in row]
        assert texts_of(bytes(each.tensors[0]), len(flat)) == flat
        assert np.frombuffer(each.tensors[1], np.int64).tolist() == [len(text) for text in flat]


def test_texts_of_another_count_are_seen():
    good = call(1, [("a", "b")])
    bad = CallFrame(1, good.shapes, (memoryview(joined_elements([b"a"])), good.tensors[1]))
    assert misfit(PORTS, bad) == "input t has another size"
