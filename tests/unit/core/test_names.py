"""What may name an object can neither leave its folder nor be taken for something else."""

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import UsageError
from modelkeep.core.limits import OBJECT_NAME_BYTES_MAX, SERIES_DIGITS
from modelkeep.core.names import checked_object_name, content_name, series_name, series_number


@given(st.text(st.sampled_from("ab01._-/\\ \0\nA~é"), max_size=30))
def test_whatever_is_accepted_stays_below_its_folder_and_is_ascii(name):
    try:
        checked_object_name(name)
    except UsageError:
        return
    path = PurePosixPath("/store") / name
    assert path.is_relative_to("/store")
    assert str(path) == f"/store/{name}"
    assert not any(part.startswith(".") for part in path.parts)
    assert name.isascii()
    assert name == name.lower()


def test_the_longest_name_is_accepted_and_one_more_is_not():
    assert checked_object_name("x" * OBJECT_NAME_BYTES_MAX)
    with pytest.raises(UsageError):
        checked_object_name("x" * (OBJECT_NAME_BYTES_MAX + 1))


def test_names_of_content_and_series_can_name_objects():
    assert checked_object_name(content_name("pack", "12", "ab" * 32)) == f"pack/12/ab/{'ab' * 32}"
    assert checked_object_name(series_name("head", 42)) == "head/000000000042"


@given(st.integers(0, 10**SERIES_DIGITS - 1))
def test_a_series_number_comes_back_from_its_name(number):
    assert series_number(series_name("head", number)) == number


@given(st.lists(st.integers(0, 10**SERIES_DIGITS - 1)))
def test_names_of_a_series_sort_like_their_numbers(numbers):
    names = [series_name("head", number) for number in numbers]
    assert sorted(names) == [series_name("head", number) for number in sorted(numbers)]


@pytest.mark.parametrize(
    "name",
    [
        "head",
        "head/",
        "head/42",
        "head/0000000000042",
        "head/-00000000042",
        "head/00000000004x",
        "head/٠٠٠٠٠٠٠٠٠٠٤٢",
        "head/00000000 042",
        "head/0x0000000042",
    ],
)
def test_what_is_no_number_of_a_series_is_none(name):
    """Digits of other scripts are digits to Python, and would name one member twice."""
    assert series_number(name) == -1
