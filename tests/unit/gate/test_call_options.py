"""What a call says beside its tensors is honoured or refused, never ignored."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import UsageError
from modelkeep.gate.call_options import (
    REQUEST_PARAMETERS,
    TIMEOUT_US_MAX,
    CallOptions,
    options_of,
)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({}, CallOptions()),
        ({"binary_data_output": True}, CallOptions(is_binary=True)),
        ({"timeout": 5}, CallOptions(timeout_us=5)),
        ({"timeout": TIMEOUT_US_MAX}, CallOptions(timeout_us=TIMEOUT_US_MAX)),
        ({"sequence_id": 0, "sequence_start": False, "sequence_end": False}, CallOptions()),
        ({"sequence_id": ""}, CallOptions()),
        ({"priority": 0}, CallOptions()),
        ({"triton_enable_empty_final_response": True}, CallOptions(marks_final=True)),
    ],
)
def test_what_is_taken(given, meant):
    assert options_of(given) == meant


@pytest.mark.parametrize(
    "given",
    [
        {"binary_data_output": 1},
        {"timeout": -1},
        {"timeout": TIMEOUT_US_MAX + 1},
        {"timeout": 1.5},
        {"timeout": True},
        {"timeout": "1"},
        {"sequence_id": 1},
        {"sequence_id": "a"},
        {"sequence_id": None},
        {"sequence_start": True},
        {"sequence_end": True},
        {"sequence_end": 0},
        {"priority": 1},
        {"priority": -1},
        {"triton_enable_empty_final_response": "yes"},
        {"shared_memory_region": "a"},
        {"": 1},
    ],
)
def test_what_is_refused(given):
    with pytest.raises(UsageError) as raised:
        options_of(given)
    assert raised.value.code == "schema.parameter"


@given(
    st.dictionaries(
        st.sampled_from(REQUEST_PARAMETERS) | st.text(max_size=9),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    )
)
def test_any_parameters_are_read_or_refused(parameters):
    try:
        options_of(parameters)
    except UsageError as error:
        assert error.code == "schema.parameter"  # noqa: PT017 - most are refused, some are not
