"""A policy's file never says more than its owner wrote, above all not that it never ends."""

import pytest

from modelkeep.core.errors import UsageError
from modelkeep.core.policy import Policy
from modelkeep.sdk.papers import policy_of


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("not_after = 1970-01-01", "paper.policy"),
        ("not_after = 1969-12-31T23:59:59Z", "paper.policy"),
        ("not_after = 1970-01-01T00:00:00.5Z", "paper.policy"),
        ("not_after = 2030-01-01T00:00:00", "paper.policy"),
        ("not_after = 9999-12-31", "policy.bounds"),
        ("decimals = 400", "policy.bounds"),
        ("replicas_max = -3", "policy.bounds"),
        ('hosts = [""]', "policy.bounds"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(tmp_path, line, code):
    (tmp_path / "policy.toml").write_text(f"{line}\n")
    with pytest.raises(UsageError) as refused:
        policy_of(tmp_path / "policy.toml")
    assert refused.value.code == code


def test_an_end_in_the_past_is_an_end(tmp_path):
    (tmp_path / "policy.toml").write_text("not_after = 1970-01-02\n")
    assert policy_of(tmp_path / "policy.toml").not_after_ns == 86_400 * 10**9


def test_a_policy_of_a_program_is_asked_the_same():
    with pytest.raises(UsageError) as refused:
        policy_of(Policy(decimals=400))
    assert refused.value.code == "policy.bounds"
    assert policy_of(Policy(decimals=15)) == Policy(decimals=15)
