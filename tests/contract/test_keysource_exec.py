"""A program as a KeySource: the contract of its port, and what a bad program can do to us."""

import os
import subprocess
import sys
import time

import pytest

from modelkeep.adapters.keysource_exec import (
    OUTPUT_BYTES_MAX,
    ExecSource,
    program_output,
    secret_from_program,
)
from modelkeep.core.errors import IntegrityError, KeepError, MissingError, UnavailableError
from modelkeep.crypto.secret import Secret
from modelkeep.testing.keysource_contract import KEY, KeySourceContract, everything_said
from modelkeep.testing.memory import SeededEntropy

ENTROPY = SeededEntropy()
HEX, OTHER = "c0ffee00" * 8, "0badf00d" * 8


class TestExecSource(KeySourceContract):
    step = 7  # each try starts a program

    @pytest.fixture
    def sources(self):
        def source(*, other=False):
            words = ("/bin/echo", OTHER if other else HEX)
            return ExecSource(words, entropy=ENTROPY)

        return source

    @pytest.fixture
    def unavailable(self):
        return ExecSource(("/bin/false",), entropy=ENTROPY)


def script(text):
    return (sys.executable, "-S", "-E", "-c", text)


def failure(words, error=UnavailableError, **options):
    with pytest.raises(error) as failed:
        ExecSource(words, entropy=ENTROPY, **options).wrap(KEY)
    said = everything_said(failed.value)
    assert HEX.encode() not in said
    return failed.value


def test_no_shell_reads_the_words(tmp_path):
    trap = tmp_path / "trap"
    assert program_output(("/bin/echo", f"$(touch {trap}) `touch {trap}`; touch {trap}"))
    assert not trap.exists()


def test_it_gets_no_environment_of_ours_no_input_and_no_folder(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    told = program_output(
        script("import os; print(sorted(os.environ), os.getcwd(), os.read(0, 9))")
    )
    assert b"canary" not in told
    names = told.partition(b"]")[0]
    assert names.count(b"'") // 2 <= 4  # PATH, HOME, LC_ALL; Python may add LC_CTYPE
    assert b" / b''" in told


def test_it_gets_no_descriptor_of_ours(tmp_path):
    with (tmp_path / "open").open("wb") as ours:
        os.set_inheritable(ours.fileno(), True)  # noqa: FBT003
        told = program_output(("/bin/ls", "-l", "/proc/self/fd"))
    assert str(tmp_path).encode() not in told


def test_a_program_that_hangs_is_ended_with_its_children():
    started_s = time.monotonic()
    mark = f"61.{os.getpid()}"
    failed = failure(("/bin/sh", "-c", f"sleep {mark} & sleep {mark}"), timeout_s=0.2)
    assert failed.code == "keysource.unavailable"
    assert time.monotonic() - started_s < 5
    listed = subprocess.run(["/bin/ps", "ax"], capture_output=True, check=True).stdout
    assert mark.encode() not in listed


def test_a_program_that_closes_its_output_and_stays_is_ended():
    failed = failure(
        script("import os, time; os.close(1); os.close(2); time.sleep(60)"), timeout_s=0.3
    )
    assert "took longer" in failed.message


@pytest.mark.parametrize("stream", [1, 2])
def test_a_program_that_prints_without_end_is_ended(stream):
    failed = failure(script(f"import os\nwhile True: os.write({stream}, b'{HEX}')"), timeout_s=20)
    assert failed.message.endswith("printed too much")


def test_output_up_to_the_bound_is_taken():
    text = f"print('x' * {OUTPUT_BYTES_MAX - 1})"
    assert len(program_output(script(text))) == OUTPUT_BYTES_MAX


def test_a_failing_program_is_quoted_briefly_and_without_what_may_be_a_key():
    text = f"import sys; print('{HEX}'); sys.exit('no \\x1b[31m card: {HEX} ' + 'why ' * 1000)"
    failed = failure(script(text))
    assert "no" in failed.message
    assert "card" in failed.message
    assert "\x1b" not in failed.message
    assert len(failed.message) < 400


def test_what_it_prints_never_reaches_an_error():
    failed = failure(("/bin/echo", HEX + "00"), IntegrityError)
    assert failed.code == "keysource.key"


def test_a_program_that_is_not_there_is_missing(tmp_path):
    assert failure((str(tmp_path / "none"),), MissingError).code == "keysource.missing"
    (tmp_path / "plain").write_text("#!/bin/sh\n")
    assert failure((str(tmp_path / "plain"),)).code == "keysource.unavailable"


def test_a_secret_is_what_it_prints_without_the_line_end():
    assert secret_from_program(("/bin/echo", "hvs.token")) == Secret(b"hvs.token")
    with pytest.raises(KeepError):
        secret_from_program(("/bin/true",))


def test_the_key_is_in_no_repr(tmp_path):
    (tmp_path / "key").write_text(HEX)
    source = ExecSource(("/bin/cat", str(tmp_path / "key")), entropy=ENTROPY)
    source.wrap(KEY)
    assert HEX not in repr(source) + repr(vars(source))
