"""Names that are called in one shape: indexes of pandas, packed weights, classes with arguments."""

import pytest
from attack_pickles import asked, called, text, whole

from modelkeep.core.verdict import Decision, judged
from modelkeep.scan.rules import findings_of
from modelkeep.scan.settings import ScanSettings

ENTRIES = b"}" + text("data") + b"]s"
DATED = ("pandas.core.indexes.datetimes", "_new_DatetimeIndex")
SPANNED = ("pandas.core.indexes.interval", "_new_IntervalIndex")


def decision(*parts):
    return judged(findings_of("m.pkl", whole(*parts), ScanSettings())).decision


@pytest.mark.parametrize("maker", [DATED, SPANNED])
def test_an_index_of_pandas_is_made_by_its_own_class_only(maker):
    assert decision(called(*maker, asked("pandas", "DatetimeIndex"), ENTRIES)) is Decision.ALLOW
    other = called("argparse", "Namespace", by=b"\x81")
    other += b"}" + text("from_arrays") + asked("lightgbm.basic", "Booster") + b"sb"
    for cls in (other, asked("lightgbm.basic", "Booster"), text("x")):
        assert decision(called(*maker, cls, ENTRIES)) is not Decision.ALLOW
    assert decision(called(*maker, asked("pandas", "DatetimeIndex"))) is not Decision.ALLOW


@pytest.mark.parametrize(
    "raw",
    [
        b"(clightgbm.basic\nBooster\nNNS'/etc/passwd'\no.",
        b"(NNS'/etc/passwd'\nilightgbm.basic\nBooster\n.",
    ],
)
def test_a_class_with_arguments_is_a_call_whatever_opcode_makes_it(raw):
    verdict = judged(findings_of("m.pkl", raw, ScanSettings()))
    assert verdict.decision is not Decision.ALLOW


def test_packed_weights_are_the_only_object_of_torchs_own_language():
    made = called("torch", "ScriptObject", by=b"\x81")
    for name, is_known in (
        ("quantized.LinearPackedParamsBase", True),
        ("quantized.Conv2dPackedParamsBase", True),
        ("_nnapi.Compilation", False),
        ("quantized.os", False),
    ):
        state = b"N" + text(f"__torch__.torch.classes.{name}") + b"\x86b"
        assert (decision(made, state) is Decision.ALLOW) is is_known
    assert decision(made, b"}b") is not Decision.ALLOW
