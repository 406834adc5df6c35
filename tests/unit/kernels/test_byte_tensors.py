"""Elements of any length come back as they were laid out, and nothing else is taken for one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import IntegrityError
from modelkeep.kernels.byte_tensors import divided_elements, joined_elements, texts_of
from modelkeep.kernels.wire import Tensor, array_of, is_whole, packed, tensor_of, values_of

TEXTS = st.lists(st.text(max_size=20), max_size=8)


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_elements_come_back(elements):
    raw = joined_elements(elements)
    assert divided_elements(raw, len(elements)) == elements
    assert divided_elements(memoryview(raw), len(elements)) == elements
    assert is_whole("BYTES", (len(elements),), raw)


@given(TEXTS)
def test_texts_come_back_as_values_and_as_an_array(texts):
    raw = packed("BYTES", texts)
    tensor = Tensor("t", "BYTES", (len(texts),), raw)
    assert list(values_of(tensor)) == texts
    assert array_of(tensor).tolist() == texts
    assert tensor_of("t", "BYTES", np.array(texts, np.object_)) == tensor


@given(st.lists(st.binary(max_size=9), max_size=5), st.integers(0, 9))
def test_another_number_of_elements_is_seen(elements, count):
    raw = joined_elements(elements)
    assert is_whole("BYTES", (count,), raw) is (count == len(elements))


@given(st.binary(max_size=64), st.integers(0, 2**60))
def test_any_bytes_are_elements_or_refused(raw, count):
    try:
        found = divided_elements(raw, count)
    except IntegrityError as error:
        assert error.code == "wire.bytes"  # noqa: PT017 - most are refused, some are not
    else:
        assert joined_elements(found) == raw
        assert len(found) == count


@pytest.mark.parametrize("element", [b"\xff", b"\xed\xa0\x80", b"a\xc3"])
def test_an_element_that_is_no_text_is_seen(element):
    with pytest.raises(IntegrityError) as raised:
        texts_of(joined_elements([element]), 1)
    assert raised.value.code == "wire.text"
