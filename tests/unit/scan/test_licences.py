"""Unit tests of scan.licences: expressions of SPDX and what a policy allows of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.scan.licences import is_licence, is_permitted, normal_licence

ALLOWED = ("MIT", "apache-2.0", "LicenseRef-ours", "GPL-2.0-or-later")


@pytest.mark.parametrize(
    ("text", "normal", "permitted"),
    [
        ("mit", "MIT", True),
        ("MIT OR GPL-3.0-only", "MIT OR GPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", "MIT AND GPL-3.0-only", False),
        ("(MIT AND GPL-3.0-only) OR Apache-2.0", "(MIT AND GPL-3.0-only) OR Apache-2.0", True),
        ("MIT AND (GPL-3.0-only OR Apache-2.0)", "MIT AND (GPL-3.0-only OR Apache-2.0)", True),
        ("GPL-3.0-only OR MIT AND AGPL-3.0-only", "GPL-3.0-only OR MIT AND AGPL-3.0-only", False),
        ("apache-2.0 with llvm-exception", "Apache-2.0 WITH LLVM-exception", True),
        ("Apache-2.0+", "Apache-2.0+", True),
        ("GPL-2.0-only", "GPL-2.0-only", False),
        ("licenseref-OURS", "LicenseRef-OURS", False),
        ("LicenseRef-ours", "LicenseRef-ours", True),
        ("Llama 3 Community License", "", False),
        ("MIT OR", "", False),
        ("(MIT", "", False),
        ("", "", False),
        ("(" * 100 + "MIT" + ")" * 100, "", False),
        ("MIT OR " * 100 + "MIT", "", False),
    ],
)
def test_an_expression_is_read_and_held_against_what_is_allowed(text, normal, permitted):
    assert normal_licence(text) == normal
    assert bool(normal and is_permitted(normal, ALLOWED)) is permitted


def test_one_licence_is_no_expression():
    assert is_licence("MIT")
    assert is_licence("LicenseRef-x")
    assert not is_licence("MIT OR Apache-2.0")
    assert not is_licence("(MIT)")
    assert not is_licence("mine")


@st.composite
def expressions(draw, depth=3):
    """An expression, and whether it is allowed, computed beside it."""
    if not depth or draw(st.booleans()):
        word = draw(st.sampled_from(["MIT", "Apache-2.0", "GPL-3.0-only", "BSD-3-Clause"]))
        return word, word in ("MIT", "Apache-2.0")
    left, right = draw(expressions(depth - 1)), draw(expressions(depth - 1))
    if draw(st.booleans()):
        return f"({left[0]}) AND ({right[0]})", left[1] and right[1]
    return f"({left[0]}) OR ({right[0]})", left[1] or right[1]


@given(expressions())
def test_and_needs_both_and_or_needs_one(found):
    text, permitted = found
    assert is_permitted(normal_licence(text), ["MIT", "Apache-2.0"]) is permitted


@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from(["MIT", "(", ")", "OR", "AND", "WITH", "+"])).map(" ".join)
)
def test_any_text_is_read_or_none(text):
    assert isinstance(is_licence(text), bool)
    normal = normal_licence(text)
    assert not normal or isinstance(is_permitted(normal, ALLOWED), bool)
