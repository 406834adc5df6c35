"""The process that asks models: without rights itself, and started anew when it is gone."""

import os
import signal
from pathlib import Path

import pytest
from small_onnx import small_canary, small_onnx

from modelkeep.adapters.trial_process import ProcessTrial
from modelkeep.core.errors import IntegrityError
from modelkeep.flows.scanning import schema_of
from modelkeep.ports.scanner import Unjudged


@pytest.fixture(scope="module")
def trial():
    made = ProcessTrial()
    yield made
    made.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return small_onnx(tmp_path_factory.mktemp("trial") / "m.onnx")


@pytest.fixture(scope="module")
def ask(trial, file):
    canary = small_canary()
    raw = memoryview(file.read_bytes())
    schema = schema_of(raw, "onnx")

    def asked(*, bytes_of=raw, fd=-1):
        return trial.answered(Unjudged("m", bytes_of, fd), schema, canary.inputs)

    return asked


@pytest.mark.slow
def test_it_has_no_rights_when_it_answers(trial, ask):
    assert {each.name for each in ask()} == {each.name for each in small_canary().outputs}
    lines = Path(f"/proc/{trial._process.pid}/status").read_text().splitlines()
    facts = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert facts["NoNewPrivs"] == "1"
    assert int(facts["CapEff"], 16) == 0
    if os.geteuid() == 0:
        assert facts["Uid"].split()[0] != "0"


@pytest.mark.slow
def test_a_model_that_is_a_file_is_mapped_and_not_copied(ask, file):
    with file.open("rb") as stream:
        assert ask(bytes_of=memoryview(b""), fd=stream.fileno()) == ask()


@pytest.mark.slow
def test_an_empty_model_is_a_failure_of_the_model(ask):
    with pytest.raises(IntegrityError) as failed:
        ask(bytes_of=memoryview(b""))
    assert failed.value.code == "trial.failed"


@pytest.mark.slow
def test_a_process_that_was_killed_is_started_anew(trial, ask):
    ask()
    os.kill(trial._process.pid, signal.SIGKILL)
    trial._process.wait()
    assert ask()


def test_closing_twice_or_unused_is_harmless():
    made = ProcessTrial()
    made.close()
    made.close()
