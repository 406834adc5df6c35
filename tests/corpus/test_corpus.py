"""Every dangerous file of the corpus is refused, no twin is; and the danger is real.

Goal: the scanner is measured on files that really do what they are refused for. Method: each case
(`cases.Case`) names its natural loader; here the scanner judges it and its twin, and a loader that
is at hand loads both, in a child that has no network and a trap to step into (`proving`). `./run
verify corpus` loads all of them, with loaders in environments that it makes (`environments`).
"""

from __future__ import annotations

from collections import Counter

import pytest

from modelkeep.core.verdict import Decision, judged
from modelkeep.flows.scanning import judged_file
from modelkeep.scan.settings import ScanSettings
from tests.corpus.cases import Harm
from tests.corpus.corpus import RECIPES, corpus
from tests.corpus.environments import FIRST, OWN, WARM, home_of, python_of
from tests.corpus.proving import proofs

SETTINGS = ScanSettings()
CASES_MIN = 380
# These take seconds each.
_LONG = (Harm.MEMORY, Harm.DISK, Harm.TIME)
_HEAVY = ("joblib_transform",)
# Programs in a package of torch are code, which holds whatever it does: somebody has to approve it.
HELD_BY_DESIGN = {"torch-package-pickle"}


def decision(files):
    """What the scanner says of a folder: the gravest that it says of one of its files."""
    sizes = {name: len(raw) for name, raw in files.items()}
    order = list(Decision)
    found = (
        judged(judged_file(name, memoryview(raw), sizes, SETTINGS).findings)
        for name, raw in files.items()
    )
    return max((each.decision for each in found), key=order.index)


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """Those of every recipe; their traps are not laid."""
    traps = tmp_path_factory.mktemp("corpus")
    return {recipe: tuple(corpus(traps, recipe)) for recipe in RECIPES}


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_dangerous_file_is_refused_as_its_case_says(recipe, cases):
    enough = {Decision.DENY: (Decision.DENY,), Decision.HOLD: (Decision.HOLD, Decision.DENY)}
    wrong = {
        case.name: found
        for case in cases[recipe]
        if (found := decision(case.dangerous)) not in enough[case.wanted]
    }
    assert not wrong


@pytest.mark.parametrize("recipe", RECIPES)
def test_no_twin_is_held_or_denied(recipe, cases):
    wrong = {
        case.name: found
        for case in cases[recipe]
        if (found := decision(case.twin)) is not Decision.ALLOW
    }
    assert wrong == dict.fromkeys(
        HELD_BY_DESIGN & {each.name for each in cases[recipe]}, Decision.HOLD
    )


def test_a_twin_differs_from_its_case_and_every_case_has_a_name_of_its_own(cases):
    every = [case for of_recipe in cases.values() for case in of_recipe]
    assert len(every) >= CASES_MIN
    names = Counter(case.name for case in every)
    assert [name for name, count in names.items() if count > 1] == []
    assert [case.name for case in every if case.dangerous == case.twin] == []
    assert [case.name for case in every if case.main and case.main not in case.dangerous] == []


def test_a_case_of_every_loader_at_hand_really_acts_and_its_twin_does_nothing(tmp_path):
    chosen = {}
    for case in corpus(tmp_path / "traps"):
        if home_of(case.loader) == OWN and case.harm not in _LONG and case.loader not in _HEAVY:
            chosen.setdefault((case.loader, case.harm), case)
    assert proven(OWN, list(chosen.values()), tmp_path) == []


@pytest.mark.verify("corpus")
@pytest.mark.slow
@pytest.mark.parametrize("home", [OWN, *FIRST])
def test_every_case_really_acts_and_its_twin_does_nothing(home, count, tmp_path):
    if not count(0, full=1):
        pytest.skip("needs environments of 4 GB: ./run verify corpus")
    cases = [case for case in corpus(tmp_path / "traps") if home_of(case.loader) == home]
    faults = proven(home, cases, tmp_path)
    total = Counter(case.format for case in cases)
    for name, of in sorted(total.items()):
        failed = sum(case_format == name for case_format, _ in faults)
        print(f"{home:12} {name:18} {of - failed} proven of {of}")  # noqa: T201 - the figures
    assert faults == []


def proven(home, cases, place):
    """Load the cases in an environment; the format and the faults of what proves nothing."""
    found = proofs(str(python_of(home)), cases, place / "files", place / "traps", WARM[home])
    return [(each.case.format, (each.case.name, *each.faults)) for each in found if each.faults]
