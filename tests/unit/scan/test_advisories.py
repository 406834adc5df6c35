"""Unit tests of scan.advisories: the evaluation of OSV, and its third answer."""

import json
from bisect import bisect_right

import pytest
from hypothesis import given
from hypothesis import strategies as st
from osv_records import ranged, record

from modelkeep.core.record import from_json
from modelkeep.scan.advisories import Advisory, Answer, fixes, names_of, says, severity
from modelkeep.scan.pep_rules import ordered

# In the order of PEP 440, written down by hand: its summary of permitted suffixes and epochs.
ORDER = [
    *("0.0.dev1", "0.1.dev2", "0.1a1.dev1", "0.1a1", "0.1a2", "0.1b1", "0.1rc1", "0.1"),
    *("0.1.post1.dev1", "0.1.post1", "0.2", "0.9.9", "0.10", "1.0.dev0", "1.0a0", "1.0", "1.0.1"),
    *("1.1.dev1", "1.1", "2.0rc2", "2.0", "10.0", "2024.1", "1!0.1", "1!0.2a1", "1!0.2"),
]


def advisory(plain):
    return from_json(Advisory, json.dumps(plain).encode(), what="it")


def answer(version, *ranges, name="tornado", **more):
    found = ordered(version)
    assert found is not None
    return says(advisory(record("tornado", *ranges, **more)), name, found)


# The examples of the schema's page (OSV 1.6, "Examples"), each with versions on both sides.
EXAMPLES = [
    ("everything", [("introduced", "0")], ["0.0.1", "99"], []),
    ("before a fix", [("introduced", "0"), ("fixed", "1.0.2")], ["0", "1.0.1"], ["1.0.2", "3"]),
    (
        "two ranges in one",
        [("introduced", "1.0.0"), ("fixed", "1.0.2"), ("introduced", "3.0.0"), ("fixed", "3.2.5")],
        ["1.0.0", "1.0.1", "3.0.0", "3.2.4"],
        ["0.9", "1.0.2", "2.9", "3.2.5"],
    ),
    (
        "in any order",
        [("fixed", "3.2.5"), ("introduced", "3.0.0"), ("fixed", "1.0.2"), ("introduced", "1.0.0")],
        ["1.0.0", "3.2.4"],
        ["0.9", "1.0.2", "2.9", "3.2.5"],
    ),
    (
        "last affected",
        [("introduced", "0"), ("last_affected", "2.1.214")],
        ["2.1.214", "1"],
        ["2.1.215", "2.1.214.post1"],
    ),
    ("a limit", [("introduced", "1.0"), ("limit", "2.0")], ["1.0", "1.9"], ["0.9", "2.0", "3"]),
    ("no limit", [("introduced", "1.0"), ("limit", "*")], ["1.0", "9"], ["0.9"]),
    ("limits", [("introduced", "0"), ("limit", "1"), ("limit", "2")], ["1.5"], ["2"]),
    ("pre-releases", [("introduced", "0"), ("fixed", "2.0")], ["2.0rc1", "2.0.dev1"], ["2.0"]),
    ("fixed and again", [("introduced", "0"), ("fixed", "1"), ("introduced", "1")], ["1"], []),
]


@pytest.mark.parametrize(
    ("pairs", "affected", "others"), [each[1:] for each in EXAMPLES], ids=[e[0] for e in EXAMPLES]
)
@pytest.mark.parametrize("kind", ["ECOSYSTEM", "SEMVER"])
def test_ranges_are_evaluated_as_the_schema_says(pairs, affected, others, kind):
    within = ranged(*pairs, kind=kind)
    assert {answer(each, within) for each in affected} <= {Answer.YES}
    assert {answer(each, within) for each in others} <= {Answer.NO}


def test_a_listed_version_is_affected_however_it_is_written():
    versions = ("1.0", "2.0-rc1", "bulbasaur")
    assert answer("1.0.0", versions=versions) is Answer.YES
    assert answer("2.0c1", versions=versions) is Answer.YES
    assert answer("2.0", versions=versions) is Answer.NO
    both = answer("3.0", ranged(("introduced", "3")), versions=versions)
    assert both is Answer.YES


def test_another_package_is_not_meant_and_a_name_has_many_spellings():
    within = ranged(("introduced", "0"))
    assert answer("1", within, name="other") is Answer.NO
    plain = record("Zope.Interface__x", within)
    assert names_of(advisory(plain)) == {"zope-interface-x"}
    assert says(advisory(plain), "zope-interface-x", ordered("1")) is Answer.YES
    npm = advisory(record("tornado", within, ecosystem="npm"))
    assert (names_of(npm), says(npm, "tornado", ordered("1"))) == (set(), Answer.NO)


@pytest.mark.parametrize(
    "ranges",
    [
        [],
        [ranged(("introduced", "a" * 40), kind="GIT")],
        [ranged(("introduced", "0"), ("fixed", "bulbasaur"))],
        [ranged(("fixed", "2.0"))],
        [ranged(("introduced", "0"), kind="LUNAR")],
        [{"type": "ECOSYSTEM", "events": [{"introduced": "0", "fixed": "9"}]}],
        [{"type": "ECOSYSTEM", "events": [{}]}],
        [ranged(("introduced", "5")), ranged(("introduced", "x"))],
    ],
)
def test_what_cannot_be_evaluated_is_unclear_and_never_a_no(ranges):
    assert answer("1.0", *ranges) is Answer.UNCLEAR
    assert answer("1.0", *ranges, versions=("1.0",)) is Answer.YES
    assert answer("1.0", *ranges, ranged(("introduced", "1"))) is Answer.YES


def test_commits_say_nothing_where_versions_are_listed():
    git = ranged(("introduced", "0"), kind="GIT")
    assert answer("1.0", git, versions=("2.0",)) is Answer.NO


def test_a_build_of_ones_own_is_affected_with_the_version_it_is_made_from():
    fixed = ranged(("introduced", "0"), ("fixed", "2.0"))
    assert answer("1.9+cpu", fixed) is Answer.YES
    assert answer("2.0+cpu", fixed) is Answer.NO
    assert answer("2.0+cpu", ranged(("introduced", "0"), ("last_affected", "2.0"))) is Answer.YES


def test_it_says_where_it_is_fixed_and_how_bad_it_is():
    within = ranged(("introduced", "0"), ("fixed", "2.0"), ("introduced", "3"), ("fixed", "3.10"))
    other = ranged(("introduced", "0"), ("fixed", "3.9"), ("fixed", "x"))
    found = advisory(record("tornado", within, other))
    assert fixes(found, "tornado", ordered("1.0")) == ("2.0", "3.9", "3.10")
    assert fixes(found, "tornado", ordered("3.9")) == ("3.10",)
    vector = {"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}
    newer = {"type": "CVSS_V4", "score": "CVSS:4.0/AV:N"}
    scored = advisory(record("tornado", within, severity=[newer, vector]))
    assert severity(scored, "tornado") == "critical"
    assert severity(advisory(record("tornado", within, severity=[newer])), "tornado") == (
        "CVSS:4.0/AV:N"
    )
    worded = advisory(
        record("tornado", within, severity=[vector], database_specific={"severity": "HIGH"})
    )
    assert severity(worded, "tornado") == "high"
    assert severity(found, "tornado") == ""


@given(
    st.lists(st.integers(0, len(ORDER) - 1), min_size=1, max_size=8, unique=True),
    st.booleans(),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_ranges_are_those_of_a_ruler(marks, from_zero, with_last, random):
    """The oracle knows no versions: marks on a ruler, of which every second one begins a range."""
    marks.sort()
    pairs = []
    for at, mark in enumerate(marks):
        kind = "introduced" if at % 2 == 0 else ("last_affected" if with_last else "fixed")
        pairs.append((kind, ORDER[mark]))
    if from_zero:
        pairs[0] = ("introduced", "0")
    random.shuffle(pairs)
    for place, version in enumerate(ORDER):
        begun = bisect_right(marks, place)
        on_last = with_last and begun and begun % 2 == 0 and marks[begun - 1] == place
        is_in = begun % 2 == 1 or on_last or (from_zero and place <= marks[0])
        assert answer(version, ranged(*pairs)) is (Answer.YES if is_in else Answer.NO), version
