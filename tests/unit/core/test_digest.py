"""A digest has one form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.digest import checked_digest
from modelkeep.core.errors import IntegrityError
from modelkeep.kernels.digest import digest_of


@given(st.binary(max_size=64))
def test_what_is_made_is_accepted(raw):
    assert checked_digest(digest_of(raw)) == digest_of(raw)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "blake3:",
        "ab" * 32,
        "sha256:" + "ab" * 32,
        "blake3:" + "AB" * 32,
        "blake3:" + "ab" * 31,
        "blake3:" + "ab" * 33,
        "blake3:" + "ab" * 32 + "\n",
        " blake3:" + "ab" * 32,
        "x" * 10_000,
    ],
)
def test_anything_else_is_refused_without_being_repeated_at_length(text):
    with pytest.raises(IntegrityError) as refused:
        checked_digest(text)
    assert refused.value.code == "digest.form"
    assert len(refused.value.message) < 200
