"""Who asks decides how much of an answer leaves, and a signed policy bounds everybody."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.artifact import Port, Schema
from modelkeep.core.policy import Output, Policy
from modelkeep.core.principal import Principal
from modelkeep.gate.disclosure import Disclosure, noise_seed
from modelkeep.gate.rule_settings import OutputRule
from modelkeep.kernels.outputs import blurred, topmost
from modelkeep.kernels.wire import array_of, tensor_of

SCHEMA = Schema(
    inputs=(Port(name="x", dtype="FP32", shape=(-1, 2)),),
    outputs=(Port(name="y", dtype="FP32", shape=(-1, 3)),),
)
SEED = bytes(range(32))


def caller(*roles, name="anna"):
    return Principal(name=name, tenant="default", scopes=("infer:*",), roles=roles)


def tensor(values):
    return tensor_of("y", "FP32", np.array(values, np.float32))


SCORES = tensor([[0.125, 0.5, 0.375], [0.25, 0.25, 0.5]])


def left(rules, principal, policy=None):
    limit = Disclosure(policy or Policy(), SCHEMA, rules).limit_for(principal)
    return array_of(limit([SCORES], SEED)[0]).tolist() if limit is not None else None


RULES = (
    OutputRule(model="m", roles=("auditor",)),
    OutputRule(model="m", roles=("clerk",), output=Output.ROUNDED, decimals=1),
    OutputRule(model="m", output=Output.LABELS),
)


def test_the_first_rule_that_fits_a_callers_roles_counts():
    assert left(RULES, caller("auditor", "clerk")) is None
    assert left(RULES, caller("clerk")) == np.float32([[0.1, 0.5, 0.4], [0.2, 0.2, 0.5]]).tolist()
    assert left(RULES, caller()) == [[0, 1, 0], [0, 0, 1]]
    assert left((), caller()) is None


def test_a_rule_lets_nothing_out_that_the_policy_keeps():
    labels = Policy(output=Output.LABELS)
    assert left(RULES, caller("auditor"), labels) == [[0, 1, 0], [0, 0, 1]]


def test_top_keeps_the_largest_of_each_row_and_of_equals_the_first():
    rule = OutputRule(model="m", top=1)
    assert left((rule,), caller()) == [[0, 0.5, 0], [0, 0, 0.5]]
    assert array_of(topmost(SCORES, 2)).tolist() == [[0, 0.5, 0.375], [0.25, 0, 0.5]]
    assert topmost(SCORES, 3) is SCORES


@given(st.lists(st.floats(width=32), min_size=1, max_size=6), st.integers(1, 6))
def test_top_makes_nothing_up(values, count):
    kept = array_of(topmost(tensor(values), count))
    assert sum(kept != 0) <= max(count, 0)
    for was, now in zip(np.float32(values), kept, strict=True):
        assert now in (0, was) or (np.isnan(was) and np.isnan(now))


def test_noise_has_the_scale_that_was_asked_for_and_repeats_only_under_its_seed():
    zeros = tensor(np.zeros(200_000))
    drawn = array_of(blurred(zeros, 0.1, seed=SEED)).astype(np.float64)
    # A Laplace variable of scale b: the mean of its size is b, its variance 2 b^2.
    assert abs(np.abs(drawn).mean() - 0.1) < 0.002
    assert abs(drawn.var() - 0.02) < 0.001
    assert abs(drawn.mean()) < 0.002
    assert (array_of(blurred(zeros, 0.1, seed=SEED)) == drawn.astype(np.float32)).all()
    assert (array_of(blurred(zeros, 0.1, seed=bytes(32))) != drawn.astype(np.float32)).any()


def test_noise_shows_nothing_of_a_values_last_bits():
    grid = 2.0 ** np.floor(np.log2(0.1 * 2.0**-10))
    moved = array_of(blurred(tensor_of("y", "FP64", np.array([1 / 3, 1e-9])), 0.1, seed=SEED))
    assert (np.rint(moved / grid) * grid == moved).all()


def test_the_same_question_gets_the_same_noise_and_another_caller_other_noise():
    inputs = [tensor([1, 2])]
    seed = noise_seed(SEED, caller(), "m", inputs)
    assert seed == noise_seed(SEED, caller(), "m", inputs)
    others = {
        noise_seed(SEED, caller(name="ben"), "m", inputs),
        noise_seed(SEED, caller(), "n", inputs),
        noise_seed(SEED, caller(), "m", [tensor([1, 3])]),
        noise_seed(bytes(32), caller(), "m", inputs),
    }
    assert len(others) == 4
    assert seed not in others


@pytest.mark.parametrize("values", [[np.nan, 1.0], [np.inf, -np.inf]])
def test_what_is_not_finite_stays_what_it_is(values):
    after = array_of(blurred(tensor(values), 0.5, seed=SEED))
    for was, now in zip(values, after, strict=True):
        assert np.isfinite(was) or np.array_equal(was, now, equal_nan=True)
