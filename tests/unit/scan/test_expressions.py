"""Sizes of torch's exported programs: arithmetic passes, whatever else is evaluated does not."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.verdict import Decision, judged
from modelkeep.scan.rules import findings_of
from modelkeep.scan.settings import ScanSettings


def decision(**pairs):
    raw = json.dumps({"graph": {"sizes": [{"as_expr": pairs}], "guards_code": []}}).encode()
    return judged(findings_of("model.json", raw, ScanSettings())).decision


@pytest.mark.parametrize(
    "text",
    [
        "Mul(Integer(2), Symbol('s77', positive=True, integer=True))",
        "Add(FloorDiv(Symbol('s77', positive=True, integer=True), Integer(2)), Integer(1))",
        "Max(Integer(4), s77)",
        "2*s0 + u1 // 3",
        "-oo",
        "Mod(s0, 8)",
        "OpaqueUnaryFn_sqrt(ToFloat(s1))",
    ],
)
def test_arithmetic_is_what_torch_writes(text):
    assert decision(expr_str=text) is Decision.ALLOW


@pytest.mark.parametrize(
    "text",
    ["L['y'].size()[0] > 3", "1 + (L['x'].size()[0] // 2) <= L['y'].stride()[0]", "s0 % 8 == 0"],
)
def test_guards_over_sizes_are_what_torch_writes(text):
    assert decision(guards_code=[text]) is Decision.ALLOW


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "exec('1')",
        "().__class__",
        "L.__class__",
        "[c for c in (1,)]",
        "(lambda: 1)()",
        "Symbol('a').func(1)",
        "lambdify(s0, 'x')",
        "sympify('__import__')",
        "s0.free_symbols",
        "f'{s0}'",
        "Max(1, x := 2)",
        "torch.load('a')",
        "math.os.system('true')",
        "this is no expression",
    ],
)
def test_code_is_refused(text):
    assert decision(expr_str=text) is Decision.DENY
    assert decision(guards_code=["s0 > 1", text]) is Decision.DENY
    assert decision(range_constraints={"s0": {}, text: {"min_val": 1}}) is Decision.DENY


def test_a_function_that_nobody_knows_is_held():
    assert decision(expr_str="PreviewOf(s0)") is Decision.HOLD
    assert decision(expr_str=7) is Decision.HOLD


@given(st.text(max_size=60))
def test_any_text_is_judged(text):
    assert decision(expr_str=text) in Decision
