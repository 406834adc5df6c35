"""Unit tests of scan.assessments: what is not assessed is never clean."""

import datetime
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from osv_records import DAY_NS, NOW_NS, known, ranged, record

from modelkeep.scan.admission_settings import AdvisorySettings, Tolerated
from modelkeep.scan.assessments import Standing, assessed
from modelkeep.scan.packages import Package
from modelkeep.scan.requirements import ELSEWHERE, UNPINNED

SETTINGS = AdvisorySettings()
OLD = ranged(("introduced", "0"), ("fixed", "6.1"))
CHANGED_NS = 1_799_928_000 * 10**9  # when the records of tests were changed
LATER = datetime.date(2027, 2, 1)


def judged(package, *records, settings=SETTINGS, now_ns=NOW_NS):
    names = (package.name,)
    found = known(*(records or (record("tornado", OLD),)), names=names)
    return assessed([package], found, settings, now_ns=now_ns).packages[0]


def tornado(version="6.0", **more):
    return Package(name="tornado", version=version, place="r.txt:1", **more)


def test_a_package_is_vulnerable_or_clean_and_says_by_what():
    found = judged(tornado())
    assert (found.standing, found.flaws[0].ids, found.flaws[0].fixed) == (
        Standing.VULNERABLE,
        ("GHSA-1",),
        ("6.1",),
    )
    assert not found.is_passed
    clean = judged(tornado("6.1"))
    assert (clean.standing, clean.flaws, clean.is_passed) == (Standing.CLEAN, (), True)
    assert clean.why == "against 1 advisories of 2027-01-14"
    assert judged(Package(name="numpy", version="2.0")).standing is Standing.CLEAN


@pytest.mark.parametrize(
    ("package", "records", "why"),
    [
        (tornado("", why_not=UNPINNED), (), "no single version"),
        (tornado(""), (), "it has no version"),
        (tornado("bulbasaur"), (), "PEP 440"),
        (tornado("6.1+local"), (), "own build"),
        (tornado("6.1", why_not="it comes from a path"), (), "from a path"),
        (tornado("6.1"), (record("tornado", ranged(("introduced", "x"))),), "GHSA-1"),
        (tornado("6.1"), (record("tornado", OLD, ecosystem="npm"),), "no advisories"),
        (tornado("6.1"), (record("tornado", OLD, withdrawn="2026-01-01T00:00:00Z"),), "no adv"),
        (tornado("6.1"), (record("tornado", OLD, modified="2999-01-01T00:00:00Z"),), "no adv"),
        (tornado("6.1"), (record("tornado", OLD, modified="2026-01-01T00:00:00Z"),), "too old"),
    ],
)
def test_what_cannot_be_assessed_is_said_with_its_reason(package, records, why):
    found = judged(package, *records)
    assert found.standing is Standing.NOT_ASSESSED
    assert why in found.why
    assert not found.is_passed


def test_what_comes_from_elsewhere_is_vulnerable_by_its_version_and_never_clean():
    affected = judged(tornado(why_not=ELSEWHERE), record("tornado", OLD))
    assert (affected.standing, len(affected.flaws)) == (Standing.VULNERABLE, 1)
    other = judged(tornado("6.1", why_not=ELSEWHERE), record("tornado", OLD))
    assert (other.standing, other.why) == (Standing.NOT_ASSESSED, ELSEWHERE)


def test_old_advisories_still_say_what_they_know():
    at = "2020-01-01T00:00:00Z"
    assert judged(tornado("6.0"), record("tornado", OLD, modified=at)).flaws
    assert judged(tornado("6.0+x"), record("tornado", OLD, modified=at)).flaws


def test_the_age_counts_to_the_second():
    edge = CHANGED_NS + 7 * DAY_NS
    assert judged(tornado("6.1"), now_ns=edge).standing is Standing.CLEAN
    past = edge + 10**9
    assert judged(tornado("6.1"), now_ns=past).standing is Standing.NOT_ASSESSED
    few = AdvisorySettings(count_min=2)
    assert "only 1 adv" in judged(tornado("6.1"), settings=few).why


def test_advisories_that_share_a_name_are_one_flaw():
    records = [
        record("tornado", OLD, id="PYSEC-1", aliases=["CVE-1"], summary="two\nlines"),
        record("tornado", OLD, id="GHSA-9", aliases=["CVE-9"]),
        record("tornado", OLD, id="GHSA-1", aliases=["CVE-1", "CVE-2"]),
        record("tornado", OLD, id="X-1", aliases=["CVE-2", "CVE-9"]),
        record("tornado", OLD, id="OTHER-1"),
    ]
    one, other = judged(tornado(), *records).flaws
    assert one.ids == ("GHSA-1", "GHSA-9", "PYSEC-1", "X-1")
    assert one.aliases == ("CVE-1", "CVE-2", "CVE-9")
    assert one.summary == "two lines"
    assert other.ids == ("OTHER-1",)


def test_what_is_tolerated_stays_what_it_is_until_its_date():
    def settings(**more):
        return AdvisorySettings(tolerated=(Tolerated(why="no server here", until=LATER, **more),))

    aliased = record("tornado", OLD, aliases=["CVE-1"])
    for more in ({"id": "GHSA-1"}, {"id": "CVE-1"}, {"id": "CVE-1", "package": "Tornado"}):
        found = judged(tornado(), aliased, settings=settings(**more))
        assert (found.standing, found.is_passed) == (Standing.VULNERABLE, True)
        assert found.flaws[0].tolerated == "no server here (until 2027-02-01)"
    for more in ({"id": "GHSA-2"}, {"id": "CVE-1", "package": "numpy"}, {"package": "tornado"}):
        assert not judged(tornado(), aliased, settings=settings(**more)).is_passed
    unpinned = tornado("", why_not=UNPINNED)
    found = judged(unpinned, settings=settings(package="tornado"))
    assert (found.standing, found.is_passed) == (Standing.NOT_ASSESSED, True)
    assert not judged(unpinned, settings=settings(id="GHSA-1")).is_passed


def test_a_tolerance_ends_on_its_date():
    ends = AdvisorySettings(
        tolerated=(Tolerated(id="GHSA-1", why="x", until=datetime.date(2027, 1, 15)),)
    )
    found = known(record("tornado", OLD))
    report = assessed([tornado()], found, ends, now_ns=NOW_NS)
    assert not report.is_passed
    assert report.ended == ("GHSA-1 since 2027-01-15",)
    before = replace(found, now_ns=NOW_NS - DAY_NS)
    assert assessed([tornado()], before, ends, now_ns=NOW_NS - DAY_NS).is_passed


VERSIONS = st.sampled_from(["6.0", "6.1", "6.1+x", "", "odd", "1!0"])
REASONS = st.sampled_from(["", "", "it comes from a path"])
RANGES = st.sampled_from(
    [OLD, ranged(("introduced", "x")), ranged(("introduced", "0"), kind="GIT"), ranged()]
)
TIMES = st.sampled_from(["2027-01-14T00:00:00Z", "2020-01-14T00:00:00Z", "2999-01-14T00:00:00Z"])
ECOSYSTEMS = st.sampled_from(["PyPI", "npm"])


@given(
    VERSIONS,
    REASONS,
    st.lists(
        st.builds(
            lambda *words: record(words[0], words[1], modified=words[2], ecosystem=words[3]),
            st.sampled_from(["tornado", "numpy"]),
            RANGES,
            TIMES,
            ECOSYSTEMS,
        ),
        max_size=4,
    ),
)
def test_clean_is_said_only_where_all_of_it_holds(version, why_not, records):
    found = judged(tornado(version, why_not=why_not), *(records or [record("x", ecosystem="npm")]))
    mine = [each for each in records if each["affected"][0]["package"]["name"] == "tornado"]
    about = [each for each in mine if each["affected"][0]["package"]["ecosystem"] == "PyPI"]
    if found.standing is Standing.CLEAN:
        assert version in ("6.1", "1!0") or (version == "6.0" and not about)
        assert not why_not
        assert any(each["modified"] == "2027-01-14T00:00:00Z" for each in records)
        assert all(each["affected"][0]["ranges"] == [OLD] for each in about)
    assert (found.standing is Standing.VULNERABLE) == bool(found.flaws)
    assert found.why
