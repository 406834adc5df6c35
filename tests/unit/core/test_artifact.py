"""How a person names a model: one form, safe in URLs, object names and labels."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.artifact import ModelReference, checked_model_name, parsed_reference
from modelkeep.core.errors import UsageError
from modelkeep.core.limits import MODEL_NAME_CHARS_MAX
from modelkeep.core.names import checked_object_name

names = st.from_regex(r"\A[a-z0-9](?:[a-z0-9._-]{0,20}[a-z0-9])?\Z")


@given(names, st.none() | names)
def test_a_reference_comes_back_from_its_text(name, selector):
    reference = ModelReference(name=name, selector=selector or "")
    assert parsed_reference(str(reference)) == reference


@given(st.text(max_size=40))
def test_whatever_is_accepted_is_safe_everywhere(text):
    try:
        reference = parsed_reference(text)
    except UsageError:
        return
    assert checked_object_name(f"model/{reference.name}")
    assert str(reference) == text
    assert not {"/", ":", " ", "%", '"', "\\", "\n"} & set(reference.name + reference.selector)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "model.name"),
        (":", "model.reference"),
        ("a:", "model.reference"),
        (":1", "model.reference"),
        ("a:b:c", "model.reference"),
        ("A", "model.name"),
        ("a:B", "model.name"),
        ("a/b", "model.name"),
        ("../a", "model.name"),
        ("-a", "model.name"),
        ("a-", "model.name"),
        ("a\n", "model.name"),
        ("a b:1", "model.name"),
        ("é", "model.name"),
    ],
)
def test_what_names_no_model_is_refused(text, code):
    with pytest.raises(UsageError) as refused:
        parsed_reference(text)
    assert refused.value.code == code
    assert refused.value.hint


def test_the_longest_name_is_accepted_and_one_more_is_not():
    assert checked_model_name("x" * MODEL_NAME_CHARS_MAX)
    with pytest.raises(UsageError) as refused:
        checked_model_name("x" * (MODEL_NAME_CHARS_MAX + 1))
    assert len(refused.value.message) < 200
