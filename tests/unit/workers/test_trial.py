"""The process that asks models: without rights itself, and started anew when it is gone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_onnx import small_canary, small_onnx

import modelkeep
from modelkeep.adapters.replica_sandbox import trial_limits
from modelkeep.adapters.trial_process import (
    TEXT_CHARS_MAX,
    ProcessTrial,
    TrialReply,
    TrialTensor,
    _answer_of,
)
from modelkeep.core.artifact import Port, Schema
from modelkeep.core.errors import IntegrityError, UnavailableError
from modelkeep.core.record import from_msgpack
from modelkeep.flows.scanning import schema_of
from modelkeep.ports.sandbox import CALLS
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


def in_its_process(program):
    """Run as the process that forks: nothing else is loaded there."""
    package = Path(modelkeep.__file__).parents[1]
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-c",
            f"import sys; sys.path.insert(0, {str(package)!r})\n{program}",
        ],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


ASKED = """
import os, sys
from modelkeep.adapters.memory_file import sealed_bytes
from modelkeep.adapters.sandbox_linux import LinuxSandbox
from modelkeep.adapters.trial_process import TrialAsk
from modelkeep.core.artifact import Schema
from modelkeep.workers import trial

ask = TrialAsk(schema=Schema(inputs=(), outputs=()), inputs=())

def say(sandbox):
    sys.stdout.buffer.write(trial._asked(sandbox, ask, sealed_bytes("m", b"no model")))
    sys.stdout.flush()
"""


@pytest.mark.slow
def test_a_model_is_not_asked_where_it_cannot_be_locked_in():
    done = in_its_process(f"{ASKED}\nsay(LinuxSandbox(without=({CALLS!r},)))")
    reply = from_msgpack(TrialReply, done.stdout, what="it")
    assert reply.is_ours
    with pytest.raises(UnavailableError) as failed:
        _answer_of(reply, SCHEMA)
    assert failed.value.code == "trial.start"
    assert CALLS in failed.value.message


@pytest.mark.slow
def test_a_child_shows_nobody_a_text_and_whatever_ends_it_stays_there():
    program = f"""{ASKED}
def hijacked(fd, **options):
    options["lock_in"](1 << 20)
    os.write(2, b"\\x1b[2J")
    raise MemoryError
trial.open_runtime = hijacked
say(LinuxSandbox())
"""
    done = in_its_process(program)
    reply = from_msgpack(TrialReply, done.stdout, what="it")
    assert not reply.is_ours
    assert reply.failure == "its process ended with status 70"
    assert b"\x1b" not in done.stderr
    assert trial_limits(1 << 20, cpu_s=1).file_bytes == 0


SCHEMA = Schema(
    inputs=(),
    outputs=(
        Port(name="y", dtype="FP32", shape=(-1, 2)),
        Port(name="any", dtype="FP32", shape=()),
    ),
)


def given(shape, raw=b"", name="y", dtype="FP32"):
    return TrialReply(outputs=(TrialTensor(name=name, dtype=dtype, shape=shape, raw=raw),))


def test_an_answer_in_the_form_of_the_schema_is_taken():
    for reply in (given((3, 2), bytes(24)), given((0, 2)), given((2, 1), bytes(8), name="any")):
        (tensor,) = _answer_of(reply, SCHEMA)
        assert tensor.shape == reply.outputs[0].shape


@pytest.mark.parametrize(
    "reply",
    [
        given((3, 2), bytes(23)),
        given((3, 3), bytes(36)),
        given((6,), bytes(24)),
        given((-1, 2)),
        given((3, 2), bytes(24), name="z"),
        given((3, 2), bytes(24), dtype="INT32"),
        given((1 << 62,) * 1_000_000, name="any"),
        given((1 << 62,) * 60, name="any"),
        TrialReply(failure="\x1b[2J" + "x" * 10_000),
    ],
)
def test_an_answer_in_another_form_fails_at_once(reply):
    started_s = time.monotonic()
    with pytest.raises(IntegrityError) as failed:
        _answer_of(reply, SCHEMA)
    assert failed.value.code == "trial.failed"
    assert failed.value.message.isprintable()
    assert len(failed.value.message) <= TEXT_CHARS_MAX
    assert time.monotonic() - started_s < 5


def test_closing_twice_or_unused_is_harmless():
    made = ProcessTrial()
    made.close()
    made.close()
