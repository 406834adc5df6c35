"""What decides that a pickle is harmless must stand in it: made keys, sizes and states do not."""

import pickle

import numpy as np
import pytest
from attack_pickles import asked, called, text
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.verdict import Decision, judged
from modelkeep.scan.rules import findings_of
from modelkeep.scan.settings import ScanSettings

PROTO = b"\x80\x04"
WRAPPER = asked("joblib.numpy_pickle", "NumpyArrayWrapper") + b")\x81"
OLD_WRAPPER = asked("joblib.numpy_pickle_compat", "NDArrayWrapper") + b")\x81"
NORMAL = asked("scipy.stats._continuous_distns", "norm_gen") + b")\x81"
NDARRAY = asked("numpy", "ndarray")
ACTS = b"0cos\nsystem\n\x8c\x04true\x85R."


def decision(*parts):
    return judged(findings_of("m.joblib", b"".join((PROTO, *parts, b".")), ScanSettings())).decision


def made(value):
    """A text that a call returns."""
    return called("builtins", "str", text(value))


def state(*pairs):
    return b"}(" + b"".join(part for pair in pairs for part in pair) + b"u"


def dtype(name, told=None):
    base = asked("numpy", "dtype") + text(name) + b"\x89\x88\x87R"
    return base if told is None else base + b"(K\x03" + text("|") + b"NNN" + told + b"K\x01K\x00tb"


def wrapped(*pairs, of, shape=b"K\x27\x85"):
    plain = (
        (text("subclass"), NDARRAY),
        (text("shape"), shape),
        (text("order"), text("C")),
        (text("dtype"), of),
        (text("allow_mmap"), b"\x88"),
    )
    return WRAPPER + state(*plain, *pairs) + b"b"


TEMPLATE = text("_parse_arg_template")


@pytest.mark.parametrize(
    "key", [made("_parse_arg_template"), asked("string", "digits"), made("a") + b"\x85"]
)
def test_an_entry_under_a_key_that_is_made_is_not_overlooked(key):
    """A distribution executes what stands under one of its keys, whoever spells it."""
    code = text("open('x', 'w')")
    assert decision(NORMAL, state((TEMPLATE, code)), b"b") is Decision.DENY
    assert decision(NORMAL, state((key, code)), b"b") is Decision.DENY
    assert decision(NORMAL, state((text("name"), text("norm"))), b"b") is Decision.ALLOW


def test_a_made_key_does_not_change_how_long_an_array_is():
    raw = bytes(39)
    assert decision(wrapped(of=dtype("u1")), raw) is Decision.ALLOW
    hidden = wrapped((made("shape"), b"K\x08\x85"), of=dtype("u1"))
    assert decision(hidden, (bytes(8) + ACTS).ljust(39, b".")) is not Decision.ALLOW


@pytest.mark.parametrize("kind", ["S", "V"])
def test_a_type_is_as_long_as_it_says(kind):
    honest = dtype(f"{kind}39", b"K\x27")
    assert decision(wrapped(of=honest, shape=b"K\x01\x85"), bytes(39)) is Decision.ALLOW
    for told in (b"K\x08", b"J\xff\xff\xff\xff"):
        lying = dtype(f"{kind}39", told)
        raw = (bytes(8) + ACTS).ljust(39, b".")
        assert decision(wrapped(of=lying, shape=b"K\x01\x85"), raw) is not Decision.ALLOW
    twice = honest + b"(K\x03" + text("|") + b"NNNK\x08K\x01K\x00tb"
    assert decision(wrapped(of=twice, shape=b"K\x01\x85"), bytes(39)) is not Decision.ALLOW


ELSEWHERE = (
    (text("filename"), text("/elsewhere/e.npy")),
    (text("subclass"), NDARRAY),
    (text("allow_mmap"), b"\x89"),
)


@pytest.mark.parametrize(
    "told",
    [
        state(*ELSEWHERE),
        b"N" + state(*ELSEWHERE) + b"\x86",
        called("collections", "OrderedDict") + b"(" + b"".join(map(b"".join, ELSEWHERE)) + b"u",
        asked("_operator", "or_") + state(*ELSEWHERE) + state() + b"\x86R",
        state((made("filename"), text("/elsewhere/e.npy")), *ELSEWHERE[1:]),
    ],
)
def test_a_wrapper_of_old_versions_does_not_hide_which_file_it_reads(told):
    assert decision(OLD_WRAPPER, told, b"b") is Decision.DENY


@pytest.mark.parametrize("key", [text("__class__"), made("__class__")])
@pytest.mark.parametrize("slots", ["map", "ordered"])
def test_no_object_is_given_another_class(key, slots):
    entry = (key, asked("collections", "OrderedDict"))
    told = state(entry) if slots == "map" else called("collections", "OrderedDict") + b"("
    told = told if slots == "map" else told + b"".join(entry) + b"u"
    assert decision(asked("argparse", "Namespace") + b")\x81N", told, b"\x86b") is Decision.DENY


def test_what_a_loader_calls_may_not_stand_under_a_made_name():
    hook = state((made("__setstate__"), asked("collections", "OrderedDict")))
    assert decision(asked("argparse", "Namespace") + b")\x81", hook, b"b") is Decision.DENY


@given(
    st.dictionaries(st.sampled_from([np.int64(1), np.str_("a"), (1, "b"), 2.5, None]), st.text())
)
def test_honest_keys_of_every_kind_pass(held):
    raw = pickle.dumps({"classes": held}, 4)
    assert judged(findings_of("m.pkl", raw, ScanSettings())).decision is Decision.ALLOW
