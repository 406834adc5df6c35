"""Unit tests of scan.pickles: what would act is denied, its twin of the same form is allowed."""

import pickle
import struct

import attack_pickles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelkeep.core.verdict import Decision, judged
from modelkeep.scan.pickles import pickle_findings, probe_findings
from modelkeep.scan.rules import findings_of
from modelkeep.scan.settings import ScanSettings
from modelkeep.scan.symbols import is_allowed, is_dangerous, rewritten

SETTINGS = ScanSettings()
FORMS = attack_pickles.forms()


def decision(raw, name="m.pkl"):
    return judged(pickle_findings(name, memoryview(raw), SETTINGS)).decision


@pytest.mark.parametrize("gadget", attack_pickles.GADGETS, ids="{0[0]}.{0[1]}".format)
def test_a_name_that_acts_is_denied_whether_called_or_only_named(gadget):
    assert is_dangerous(rewritten(*gadget))
    assert not is_allowed(rewritten(*gadget))
    assert decision(attack_pickles.simple(*gadget)) is Decision.DENY
    as_data = attack_pickles.whole(b"]", attack_pickles.asked(*gadget), b"a")
    assert decision(as_data) is Decision.DENY
    assert decision(attack_pickles.line_call(*gadget)) is Decision.DENY


@pytest.mark.parametrize("name", FORMS)
def test_a_form_that_acts_is_denied_and_its_twin_allowed(name):
    attack, twin = FORMS[name]
    assert decision(attack) is Decision.DENY
    assert decision(twin) is Decision.ALLOW, pickle_findings("m", memoryview(twin), SETTINGS)


@pytest.mark.parametrize("name", FORMS)
def test_a_form_that_acts_is_never_allowed_under_another_name(name):
    attack, _ = FORMS[name]
    for given_name in ("model.bin", "weights.pt", "readme.txt", "m.joblib", "noextension"):
        assert judged(findings_of(given_name, attack, SETTINGS)).decision is not Decision.ALLOW


def test_an_attack_that_stops_before_its_end_acts_all_the_same():
    raw = attack_pickles.simple("os", "system")
    for cut in range(raw.index(b"R") + 1, len(raw)):
        findings = probe_findings("x", memoryview(raw[:cut]), SETTINGS)
        assert judged(findings).decision is Decision.DENY


def test_frames_that_loaders_read_differently_are_said():
    raw = attack_pickles.PROTO + b"\x95" + struct.pack("<Q", 3) + attack_pickles.text("long") + b"."
    assert [each.rule for each in pickle_findings("m", memoryview(raw), SETTINGS)] == [
        "scan.pickle.frame"
    ]


def test_a_protocol_that_no_loader_reads_holds():
    assert decision(b"\x80\x06N.") is Decision.HOLD


@given(
    st.sampled_from([raw for pair in FORMS.values() for raw in pair]),
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=4),
    st.integers(0, 4000),
)
@settings(deadline=None, max_examples=150)
def test_a_changed_or_cut_pickle_is_judged_without_an_error(raw, changes, cut):
    changed = bytearray(raw)
    for at, value in changes:
        changed[at % len(changed)] = value
    view = memoryview(bytes(changed[: cut % len(changed) + 1]))
    pickle_findings("m", view, SETTINGS)
    probe_findings("m", view, SETTINGS)


@given(st.binary(max_size=64), st.sampled_from([b"ZF0x", b"]\x00\x00", attack_pickles.STORAGE]))
@settings(deadline=None, max_examples=60)
def test_whatever_follows_a_magic_is_judged_without_an_error(tail, magic):
    for name in ("m.pkl", "m.tar!storages", "m.tar!tensors"):
        pickle_findings(name, memoryview(magic + tail), SETTINGS)


def test_depth_is_bounded():
    raw = attack_pickles.STORAGE
    for _ in range(SETTINGS.depth_max + 2):
        inner = b"B" + struct.pack("<I", len(raw)) + raw
        call = attack_pickles.called("torch.storage", "_load_from_bytes", inner)
        raw = attack_pickles._legacy(call)
    assert decision(raw) is Decision.DENY


def test_the_stack_and_a_number_without_end_are_bounded():
    many = b"\x80\x04" + b"N" * 500_000 + b"."
    assert decision(many) is Decision.HOLD
    assert decision(pickle.dumps(1 << 4096)) is Decision.ALLOW
