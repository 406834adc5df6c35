"""Which version answers: the default, the one that is named, or a canary by its share."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.rows import LOTS, Traffic
from modelkeep.gate.traffic import ModelTable


@dataclass(frozen=True)
class Version:
    name: str
    version: int


SERVED = [Version("fraud", number) for number in (3, 4, 5)] + [Version("other", 1)]
DEFAULTS = {"fraud": 3, "other": 1}


def table(**rule):
    return ModelTable(SERVED, DEFAULTS, [Traffic(model="fraud", **rule)] if rule else [])


def test_a_call_that_names_a_version_gets_that_one_whatever_the_lot():
    made = table(canary=4, canary_lots=LOTS)
    assert made.pick("fraud", 5, 0) == Version("fraud", 5)
    assert made.pick("fraud", 9, 0) is None
    assert made.pick("nothing", None, 0) is None
    assert made.pick("nothing", 1, 0) is None


@given(st.integers(0, LOTS))
def test_a_canary_answers_exactly_its_share_of_all_lots(lots):
    made = table(canary=4, canary_lots=lots)
    picked = [made.pick("fraud", None, lot).version for lot in range(0, LOTS, 50)]
    assert picked.count(4) == len(range(0, lots, 50))
    assert set(picked) <= {3, 4}
    assert made.pick("other", None, 0).version == 1


def test_a_canary_that_is_not_served_takes_nothing():
    assert table(canary=9, canary_lots=LOTS).pick("fraud", None, 0).version == 3


def test_the_calls_of_one_principal_go_one_way_when_the_canary_is_sticky():
    made = table(canary=4, canary_lots=LOTS // 2, sticky=True)
    ways = {
        who: {made.pick("fraud", None, lot, who=who).version for lot in range(0, LOTS, 999)}
        for who in map(str, range(200))
    }
    assert all(len(way) == 1 for way in ways.values())
    share = sum(way == {4} for way in ways.values()) / len(ways)
    assert 0.35 < share < 0.65


def test_a_shadow_is_asked_by_its_share_and_never_answers():
    made = table(shadow=5, shadow_lots=100)
    assert made.shadow_of("fraud", 99) == Version("fraud", 5)
    assert made.shadow_of("fraud", 100) is None
    assert made.shadow_of("other", 0) is None
    assert {made.pick("fraud", None, lot).version for lot in range(0, LOTS, 10)} == {3}


def test_a_table_says_what_it_holds():
    made = table()
    assert made.names() == ("fraud", "other")
    assert made.versions_of("fraud") == (3, 4, 5)
    assert (made.default_of("fraud"), made.default_of("nothing")) == (3, 0)
    assert set(made) == set(SERVED)
    assert len(made) == len(SERVED)
    assert len(ModelTable()) == 0


@pytest.mark.parametrize("name", ["fraud", "other"])
def test_without_rules_the_default_answers_every_lot(name):
    picked = {table().pick(name, None, lot).version for lot in range(0, LOTS, 7)}
    assert picked == {DEFAULTS[name]}
