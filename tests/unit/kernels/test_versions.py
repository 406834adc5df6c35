"""What is demanded of versions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import UsageError
from modelkeep.kernels.versions import demand_specifier, satisfies


@pytest.mark.parametrize(
    ("version", "specifier", "holds"),
    [
        ("2.1", ">=2,<3", True),
        ("3.0", ">=2,<3", False),
        ("3.0rc1", ">=2", True),  # it is installed, so it counts
        ("3.11.7", "~=3.11", True),
        ("2.4.6", "==2.4.*", True),
        ("2.4.6+cpu", "==2.4.6", True),
        ("6.1.0", ">=5.13", True),
        ("anything", "", True),
        ("", ">=1", False),
        ("not a version", ">=1", False),
    ],
)
def test_a_version_holds_or_does_not(version, specifier, holds):
    assert satisfies(version, specifier) is holds


@given(st.text(max_size=300))
def test_no_text_breaks_a_specifier(text):
    try:
        demand_specifier(text)
    except UsageError as error:
        assert error.code == "version.specifier"  # noqa: PT017 - either outcome is fine
    else:
        assert satisfies("1.0", text) in (True, False)
