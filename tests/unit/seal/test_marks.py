"""Registrations, readings and claims: what is bound, and what numbers are possible."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.entry import Entry
from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.core.record import replaced
from modelkeep.seal.marks import (
    CLAIM_BYTES_MAX,
    REGISTERED,
    Claim,
    Reading,
    Registration,
    checked_mark,
    checked_method,
    claim_bytes,
    commitment_of,
    demand_committed,
    demand_reading,
    judged,
    parsed_claim,
    registration_facts,
    registration_in,
)

SEED = bytes(range(32))
MADE = Registration(
    mark="m1",
    method="weights",
    parameters='{"bits":64}',
    commitment=commitment_of("m1", "weights", '{"bits":64}', SEED),
    ordinal=3,
)
READING = Reading(hits=64, trials=64, chance=0.5)
CLAIM = Claim(seed=SEED, suspect="blake3:00", reading=READING, proof="{}")


def entry(**changes):
    return Entry(kind=REGISTERED, at_ns=1, actor="x", facts={**registration_facts(MADE), **changes})


def test_a_commitment_never_changes_its_form():
    assert MADE.commitment == "a3795964cd3baf87983238b5fa13b3b612fbf3c6347ff8236ea983942e598034"


def test_every_part_is_committed_to():
    demand_committed(MADE, SEED)
    for changes in ({"mark": "m2"}, {"method": "text"}, {"parameters": '{"bits": 64}'}):
        with pytest.raises(IntegrityError, match=r"mark\.commitment"):
            demand_committed(replaced(MADE, **changes), SEED)
    for seed in (b"", SEED[:31], SEED[::-1], SEED + b"\0"):
        with pytest.raises(IntegrityError, match=r"mark\.commitment"):
            demand_committed(MADE, seed)


def test_parts_cannot_be_shifted_into_one_another():
    assert commitment_of("ab", "c", "d", SEED) != commitment_of("a", "bc", "d", SEED)


def test_a_registration_is_read_back_from_its_entry():
    assert registration_in(entry()) == MADE


@pytest.mark.parametrize(
    "changes",
    [{"mark": "../x"}, {"method": "magic"}, {"commitment": "00"}, {"ordinal": 0},
     {"ordinal": True}, {"ordinal": None}, {"mark": None}],
)  # fmt: skip
def test_an_entry_that_is_none_is_refused(changes):
    with pytest.raises(IntegrityError, match=r"mark\.entry"):
        registration_in(entry(**changes))


def test_an_entry_of_another_kind_is_no_registration():
    with pytest.raises(IntegrityError, match=r"mark\.entry"):
        registration_in(replaced(entry(), kind="note.x"))


def test_the_p_value_is_multiplied_by_the_marks_that_might_have_been_meant():
    assert judged(MADE, READING, tests=3).p_value == pytest.approx(2.0**-64)
    assert judged(MADE, READING, tests=3).corrected_p == pytest.approx(3 * 2.0**-64)
    many = judged(MADE, READING, tests=10**14)
    assert many.corrected_p == pytest.approx(1e14 * 2.0**-64)
    assert not many.is_found
    assert judged(MADE, replaced(READING, hits=0), tests=9).corrected_p == 1.0
    assert judged(MADE, READING, tests=3).tries_log2 == pytest.approx(64)


@given(st.integers(1, 500), st.integers(0, 500), st.sampled_from([0.5, 0.1]))
def test_a_judgement_of_possible_numbers_is_consistent(trials, hits, chance):
    reading = Reading(hits=min(hits, trials), trials=trials, chance=chance)
    found = judged(MADE, reading, tests=3)
    assert 0.0 < found.p_value <= found.corrected_p <= 1.0
    assert found.is_found == (found.corrected_p < 1e-6)


@pytest.mark.parametrize(("hits", "trials", "chance"), [(-1, 5, 0.5), (6, 5, 0.5), (1, 5, 0.0),
                                                        (1, 5, 1.0), (1, 2**50, 0.5)])  # fmt: skip
def test_impossible_numbers_are_refused(hits, trials, chance):
    with pytest.raises(IntegrityError, match=r"mark\.reading"):
        demand_reading(Reading(hits=hits, trials=trials, chance=chance))


def test_a_claim_is_read_back():
    assert parsed_claim(claim_bytes(CLAIM)) == CLAIM


@given(st.binary(max_size=200))
def test_noise_is_no_claim(noise):
    with pytest.raises(IntegrityError, match=r"mark\.claim"):
        parsed_claim(noise)


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_changed_claim_is_refused_or_says_something_else(at, value):
    raw = bytearray(claim_bytes(CLAIM))
    before = bytes(raw)
    raw[at % len(raw)] = value
    try:
        found = parsed_claim(bytes(raw))
    except IntegrityError:
        found = None
    if found is not None:
        assert (found == CLAIM) == (bytes(raw).split() == before.split())


def test_a_claim_of_another_form_or_without_end_is_refused():
    for bad in (
        claim_bytes(replaced(CLAIM, format="modelkeep/mark-claim/v9")),
        claim_bytes(replaced(CLAIM, seed=b"short")),
        b" " * (CLAIM_BYTES_MAX + 1),
    ):
        with pytest.raises(IntegrityError, match=r"mark\.claim"):
            parsed_claim(bad)


@pytest.mark.parametrize("name", ["", "A", "../x", "a/b", "x" * 101])
def test_a_mark_has_a_name_that_is_safe_everywhere(name):
    with pytest.raises(UsageError, match=r"mark\.name"):
        checked_mark(name)


def test_only_known_methods_are_registered():
    with pytest.raises(UsageError, match=r"mark\.method"):
        checked_method("magic")
