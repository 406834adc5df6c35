"""The form that an owner declares, and the answer that he expects."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_onnx import small_canary, small_onnx

from modelkeep.adapters.trial_process import ProcessTrial
from modelkeep.core.artifact import Port, Schema
from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.core.record import replaced
from modelkeep.core.verdict import Severity
from modelkeep.flows.canary import canary_findings, parsed_canary
from modelkeep.flows.sanity import (
    Declared,
    DeclaredTensor,
    closer_findings,
    declared_findings,
    parsed_declared,
)
from modelkeep.flows.scanning import schema_of
from modelkeep.kernels.tensors import TensorPlace
from modelkeep.ports.scanner import Unjudged
from modelkeep.vault.streams import Plain

SCHEMA = Schema(inputs=(Port(name="x", dtype="FP32", shape=(-1, 4)),), outputs=())
TENSORS = (TensorPlace("w", "FP32", (4, 8), 0, 128), TensorPlace("b", "FP32", (8,), 128, 32))


@pytest.fixture(scope="module")
def trial():
    made = ProcessTrial()
    yield made
    made.close()


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return memoryview(small_onnx(tmp_path_factory.mktemp("sanity") / "m.onnx").read_bytes())


@pytest.fixture(scope="module")
def canary():
    return small_canary()


def plain_of(path, raw):
    return Plain(path, len(raw), lambda _at, _into: None, raw)


def told(declared, *, schema=SCHEMA, tensors=TENSORS):
    found = declared_findings(declared, schema, tensors, subject="m")
    return [each.evidence for each in found if each.severity is Severity.HIGH]


def test_what_is_as_declared_passes():
    declared = Declared(
        inputs=SCHEMA.inputs,
        tensors=(
            DeclaredTensor(name="w", dtype="FP32", shape=(-1, 8)),
            DeclaredTensor(name="b", dtype="FP32", shape=(8,)),
        ),
        is_complete=True,
        parameters=40,
    )
    assert told(declared) == []
    assert told(Declared()) == []


@pytest.mark.parametrize(
    ("declared", "word"),
    [
        (Declared(inputs=(Port(name="y", dtype="FP32", shape=(4,)),)), "'y' is not there"),
        (Declared(inputs=(Port(name="x", dtype="FP16", shape=(-1, 4)),)), "FP16[-1, 4]"),
        (Declared(outputs=(Port(name="p", dtype="FP32", shape=()),)), "'p' is not there"),
        (Declared(tensors=(DeclaredTensor(name="w", dtype="FP32", shape=(4, 9)),)), "[4, 9]"),
        (Declared(tensors=(DeclaredTensor(name="v", dtype="FP32", shape=(4,)),)), "not there"),
        (
            Declared(
                tensors=(DeclaredTensor(name="w", dtype="FP32", shape=(4, 8)),), is_complete=True
            ),
            "'b' that is not declared",
        ),
        (Declared(parameters=41), "41 parameters are declared, its tensors have 40"),
    ],
)
def test_what_differs_is_denied_and_named(declared, word):
    assert word in told(declared)[0]


def test_a_format_that_does_not_say_what_it_takes_is_not_as_declared():
    assert told(Declared(inputs=SCHEMA.inputs), schema=None)


def test_packed_tensors_are_not_counted_and_that_is_said():
    packed = (TensorPlace("q", "RAW", (18,), 0, 18),)
    (finding,) = declared_findings(Declared(parameters=32), None, packed, subject="m")
    assert finding.severity is Severity.NOTE


@given(st.binary(max_size=200))
def test_no_declaration_breaks_its_reader(raw):
    try:
        parsed_declared(raw, what="it")
    except UsageError as error:
        assert error.code == "schema.declared"  # noqa: PT017 - either outcome is fine


@pytest.mark.slow
def test_a_model_that_answers_its_canary_is_let_in(trial, raw, canary):
    schema = schema_of(raw, "onnx")
    assert canary_findings(canary, schema, Unjudged("m", raw), trial) == ()
    plain = [plain_of("m", raw)]
    ask = {"declared": None, "canary": canary, "trial": trial}
    assert closer_findings(plain, {"m": "onnx"}, schema, **ask) == ()


@pytest.mark.slow
def test_another_answer_is_denied(trial, raw, canary):
    wrong = tuple(
        replaced(each, values=tuple(value + 1 for value in each.values)) for each in canary.outputs
    )
    found = canary_findings(
        replaced(canary, outputs=wrong), schema_of(raw, "onnx"), Unjudged("m", raw), trial
    )
    assert {each.rule for each in found} == {"sanity.canary.answer"}
    assert {each.severity for each in found} == {Severity.HIGH}


@pytest.mark.slow
def test_what_does_not_load_is_denied_and_the_next_model_is_asked_all_the_same(trial, raw, canary):
    schema = schema_of(raw, "onnx")
    for bad in (raw[: len(raw) // 2], memoryview(bytes(3000))):
        (found,) = canary_findings(canary, schema, Unjudged("m", bad), trial)
        assert found.rule == "sanity.canary.failed"
    assert canary_findings(canary, schema, Unjudged("m", raw), trial) == ()


@pytest.mark.slow
def test_an_answer_of_another_form_than_the_schema_is_a_failure(trial, raw, canary):
    schema = schema_of(raw, "onnx")
    other = replaced(
        schema, outputs=tuple(replaced(each, name=each.name + "x") for each in schema.outputs)
    )
    with pytest.raises(IntegrityError) as failed:
        trial.answered(Unjudged("m", raw), other, canary.inputs)
    assert failed.value.code == "trial.failed"


def test_a_canary_of_a_folder_is_not_asked_and_that_is_said():
    files = [plain_of(name, memoryview(b"")) for name in ("a", "b")]
    canary = parsed_canary(b'{"inputs": [], "outputs": []}', what="it")
    ask = {"declared": None, "canary": canary, "trial": ProcessTrial()}
    (found,) = closer_findings(files, {"a": "x", "b": "x"}, SCHEMA, **ask)
    assert (found.rule, found.severity) == ("sanity.canary.unasked", Severity.NOTE)
    assert np.isfinite(canary.tolerance)
