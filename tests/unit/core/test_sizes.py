"""Sizes as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import UsageError
from modelkeep.core.sizes import parsed_size, size_text


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("1 B", 1),
        ("8 GiB", 8 << 30),
        ("8GiB", 8 << 30),
        ("1.5 MB", 1_500_000),
        ("0.1 KiB", 102),
        ("2 TiB", 2 << 40),
        (" 3 KB ", 3000),
    ],
)
def test_a_size_is_read_as_it_is_meant(text, size):
    assert parsed_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1", "1 gib", "1e9", "1,5 GiB", "٣ GiB", "8  GiB"])
def test_what_is_no_size_is_refused_with_a_remedy(text):
    with pytest.raises(UsageError) as refused:
        parsed_size(text)
    assert refused.value.code == "size.text"
    assert "GiB" in refused.value.hint


@given(st.text(max_size=60))
def test_no_text_brings_anything_but_a_size_or_a_refusal(text):
    try:
        assert parsed_size(text) >= 0
    except UsageError as error:
        assert error.code == "size.text"  # noqa: PT017 - either outcome is fine


@given(st.integers(0, 1 << 60))
def test_what_is_shown_is_near_what_is_meant(size):
    assert abs(parsed_size(size_text(size)) - size) <= size * 0.06 + 1
