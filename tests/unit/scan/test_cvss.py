"""Unit tests of scan.cvss: base scores as the published examples have them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.scan.cvss import base_score, severity_word

# Scores that FIRST and the NVD published for these vectors.
PUBLISHED = [
    ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", 9.8, "critical"),
    ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:C/C:H/I:H/A:H", 10.0, "critical"),
    ("CVSS:3.1/AV:N/AC:L/PR:L/UI:N/S:C/C:H/I:H/A:H", 9.9, "critical"),
    ("CVSS:3.0/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N", 7.5, "high"),
    ("CVSS:3.1/AV:L/AC:L/PR:L/UI:N/S:U/C:H/I:H/A:H", 7.8, "high"),
    ("CVSS:3.1/AV:N/AC:L/PR:N/UI:R/S:U/C:H/I:H/A:H", 8.8, "high"),
    ("CVSS:3.0/AV:N/AC:L/PR:N/UI:R/S:C/C:L/I:L/A:N", 6.1, "medium"),
    ("CVSS:3.1/AV:P/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", 6.8, "medium"),
    ("CVSS:3.0/AV:N/AC:H/PR:N/UI:R/S:U/C:L/I:N/A:N", 3.1, "low"),
    ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:N", 0.0, "none"),
    ("CVSS:3.1/A:H/I:H/C:H/S:U/UI:N/PR:N/AC:L/AV:N/E:P/RL:O", 9.8, "critical"),
]


@pytest.mark.parametrize(("vector", "score", "word"), PUBLISHED)
def test_scores_are_the_published_ones(vector, score, word):
    assert (base_score(vector), severity_word(vector)) == (score, word)


@pytest.mark.parametrize(
    "vector",
    [
        "",
        "CVSS:4.0/AV:N/AC:L/AT:N/PR:H/UI:N/VC:L/VI:L/VA:N/SC:N/SI:N/SA:N",
        "AV:L/AC:M/Au:N/C:N/I:P/A:C",
        "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H",
        "CVSS:3.1/AV:N/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H",
        "CVSS:3.1/AV:X/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H",
    ],
)
def test_what_is_no_vector_of_version_3_has_no_score(vector):
    assert base_score(vector) is None
    assert severity_word(vector) == vector


LETTERS = ("NALP", "LH", "NLH", "NR", "UC", "HLN", "HLN", "HLN")


@given(st.tuples(*map(st.sampled_from, LETTERS)))
def test_every_vector_has_a_score_with_one_decimal(letters):
    names = ("AV", "AC", "PR", "UI", "S", "C", "I", "A")
    pairs = zip(names, letters, strict=True)
    score = base_score("CVSS:3.1/" + "/".join(":".join(each) for each in pairs))
    assert score is not None
    assert 0 <= score <= 10
    assert round(score, 1) == score
    assert (score == 0) == (set(letters[5:]) == {"N"})
