"""The scanner's process: a child for each file, and whatever becomes of one denies its file."""

import ast
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command import wait_until

import modelkeep
from modelkeep.adapters import scan_process
from modelkeep.adapters.scan_process import Ask, Context, ProcessScanner, Reply, _few, _judgement
from modelkeep.adapters.worker_process import MESSAGE_BYTES_MAX, framed, received
from modelkeep.core.artifact import Port, Schema
from modelkeep.core.errors import UnavailableError
from modelkeep.core.record import to_msgpack
from modelkeep.core.verdict import Finding, Severity
from modelkeep.kernels.formats import EMPTY, UNKNOWN
from modelkeep.kernels.kinds import KINDS
from modelkeep.ports.sandbox import CALLS, FILES, LIMITS, MEASURES, NETWORK
from modelkeep.ports.scanner import Judged, Unjudged
from modelkeep.scan.rules import _PARSERS
from modelkeep.scan.settings import ScanSettings
from modelkeep.workers.scanner import Scanner

GOOD = pickle.dumps({"a": 1})
EVIL = b"cos\nsystem\n(S'x'\ntR."
SETTINGS = ScanSettings()


def judged(scanner, *raws, name="f.pkl", settings=SETTINGS):
    files = [Unjudged(f"{number}-{name}", memoryview(raw)) for number, raw in enumerate(raws)]
    return list(scanner.judge(files, sizes={}, settings=settings))


def rules(found):
    return {each.rule for each in found.findings}


@pytest.fixture(scope="module")
def scanner():
    made = ProcessScanner(lanes=3)
    yield made
    made.close()


def test_answers_come_in_the_order_of_the_files_whatever_each_takes(scanner):
    slow = pickle.dumps(list(range(100_000)))
    raws = [slow, EVIL, GOOD, EVIL, slow, GOOD, b"", EVIL]
    found = judged(scanner, *raws)
    assert [bool(each.findings) for each in found] == [raw in (EVIL, b"") for raw in raws]
    assert found[0].kind == found[2].kind == "pickle"


def test_settings_of_the_caller_hold_in_the_child(scanner):
    few = ScanSettings(pickle_opcodes_max=3)
    assert not judged(scanner, GOOD)[0].findings
    assert judged(scanner, GOOD, settings=few)[0].findings
    assert not judged(scanner, GOOD)[0].findings


def test_a_file_goes_as_a_descriptor_and_is_never_read_here(scanner, tmp_path):
    path = tmp_path / "evil.pkl"
    path.write_bytes(EVIL)
    with path.open("rb") as stream:
        file = Unjudged("evil.pkl", memoryview(b""), stream.fileno())
        (found,) = scanner.judge([file], sizes={}, settings=SETTINGS)
    assert rules(found) & {"scan.pickle.dangerous", "scan.pickle.global"}


def test_a_device_is_not_looked_into(scanner):
    with open("/dev/zero", "rb") as stream:  # noqa: PTH123
        (found,) = scanner.judge(
            [Unjudged("zero", memoryview(b""), stream.fileno())], sizes={}, settings=SETTINGS
        )
    assert rules(found) == {"scan.worker.crashed"}


def test_names_of_many_files_fit_into_a_message_or_stay_here():
    for chars in (100, 350):
        sizes = {f"{at:06}{'ä' * chars}": 1 << 40 for at in range(60_000)}
        context = Context(settings=to_msgpack(SETTINGS), sizes=_few(sizes))
        assert len(framed(Ask(call="context", context=context))) <= MESSAGE_BYTES_MAX
        assert context.sizes == (sizes if chars == 100 else {})


def test_a_file_for_which_there_is_no_room_is_not_called_special(tmp_path, monkeypatch):
    monkeypatch.setattr("modelkeep.workers.scanner.CHILDREN_MAX", 0)
    near, far = socket.socketpair()
    with near, far, (tmp_path / "f").open("wb") as stream:
        asking = Scanner(far, memory_bytes=1 << 28, cpu_s=1)
        asking._look(Ask(call="judge", number=1), os.dup(stream.fileno()))
        reply, _ = received(near, Reply)
    assert (reply.outcome, reply.text) == ("crashed", "0 files are being looked into already")


def test_every_measure_is_said(scanner):
    found = scanner.explain()
    assert [each.name for each in found] == list(MEASURES)
    assert all(each.why for each in found)
    on = {each.name for each in found if each.is_on}
    assert {NETWORK, FILES, LIMITS, CALLS} <= on


def test_a_file_that_changes_its_size_meanwhile_denies_itself(scanner, tmp_path):
    """The child is killed by SIGBUS, or finds what is left broken; it never allows."""
    path = tmp_path / "f.onnx"
    path.write_bytes(b"\x08\x07" + bytes(1 << 20))
    with path.open("r+b") as stream:
        answers = scanner.judge(
            [Unjudged("f.onnx", memoryview(b""), stream.fileno())], sizes={}, settings=SETTINGS
        )
        stream.truncate(0)
        (found,) = answers
    assert found.findings


def test_a_process_that_is_gone_refuses_and_the_next_use_starts_another():
    scanner = ProcessScanner()
    assert not judged(scanner, GOOD)[0].findings
    os.kill(scanner.pid, signal.SIGKILL)
    wait_until(lambda: scanner._process.poll() is not None)
    assert not judged(scanner, GOOD)[0].findings
    scanner.close()


def test_a_process_that_dies_under_way_is_unavailable_and_nothing_is_allowed():
    scanner = ProcessScanner()
    judged(scanner, GOOD)

    def files():
        yield Unjudged("a.pkl", memoryview(GOOD))
        os.kill(scanner.pid, signal.SIGKILL)
        scanner._process.wait()
        yield Unjudged("b.pkl", memoryview(GOOD))

    with pytest.raises(UnavailableError, match="does not answer"):
        list(scanner.judge(files(), sizes={}, settings=SETTINGS))
    scanner.close()


def test_who_asks_while_others_are_under_way_is_answered_too(scanner):
    files = (Unjudged(f"{number}.pkl", memoryview(GOOD)) for number in range(4))
    outer = scanner.judge(files, sizes={}, settings=SETTINGS)
    assert not next(outer).findings
    scanner.start()
    assert judged(scanner, EVIL)[0].findings
    assert [each.findings for each in outer] == [()] * 3


def test_it_ends_with_whoever_started_it():
    scanner = ProcessScanner()
    judged(scanner, GOOD)
    process = scanner._process
    scanner._socket.close()
    assert process.wait(10) == 0


def test_a_child_that_needs_too_much_memory_denies():
    big = pickle.dumps(["x" * 40 + str(number) for number in range(300_000)])
    tight = ProcessScanner(lanes=1, memory_bytes=1 << 20)
    assert rules(judged(tight, big)[0]) == {"scan.worker.crashed"}
    tight.close()


@pytest.mark.slow
def test_a_child_that_spins_is_killed_by_its_processor_time():
    wide = ScanSettings(pickle_opcodes_max=1 << 40, pickle_memo_max=1 << 40)
    spin = b"\x80\x02" + b"N0" * 30_000_000 + b"N."
    scanner = ProcessScanner(lanes=1, cpu_s=1)
    started_s = time.monotonic()
    found = judged(scanner, spin, GOOD, settings=wide)
    assert rules(found[0]) == {"scan.worker.timeout"}
    assert not found[1].findings
    assert time.monotonic() - started_s < 60
    scanner.close()


def done(raw):
    return Reply(number=0, outcome="done", judged=raw)


def says(**changes):
    facts = {"rule": "scan.x", "severity": Severity.NOTE, "subject": "f", "evidence": "e"}
    return done(to_msgpack(Judged(findings=(Finding(**{**facts, **changes}),), kind="zip")))


def takes(*, count=1, **changes):
    """A judgement of a graph that takes these."""
    port = Port(**{"name": "x", "dtype": "FP32", "shape": (-1, 4), **changes})
    schema = Schema(inputs=(port,) * count, outputs=())
    return done(to_msgpack(Judged(findings=(), kind="onnx", schema=schema)))


def test_a_sound_judgement_is_taken_as_it_is():
    for reply in (says(), takes(), takes(shape=(1,) * 64, dtype="RAW"), takes(name="x" * 400)):
        assert to_msgpack(_judgement(reply, "f")) == reply.judged


def test_every_kind_that_a_file_can_have_is_known_to_who_is_told_of_it():
    assert {UNKNOWN, EMPTY, *_PARSERS} == KINDS


@pytest.mark.parametrize(
    "reply",
    [
        Reply(number=0, outcome="crashed", text="died"),
        Reply(number=0, outcome="timeout"),
        Reply(number=0, outcome="answer"),
        Reply(number=0, outcome="allow everything"),
        done(b""),
        done(b"\x80"),
        done(b"\xc1" * 100),
        says(evidence="\x1b[2Jallow"),
        says(subject="x" * 10_000),
        done(to_msgpack(Judged(findings=(), kind="zip"))[:-1]),
        done(to_msgpack(Judged(findings=(), kind="\x1b[2J"))),
        done(to_msgpack(Judged(findings=(), kind="files"))),
        takes(name="a\x1b[2J"),
        takes(name="x" * 401),
        takes(dtype="FP33"),
        takes(shape=(1,) * 65),
        takes(shape=(-2,)),
        takes(shape=(1 << 63,)),
        takes(count=5000),
    ],
)
def test_whatever_a_child_says_that_is_no_judgement_denies_its_file(reply):
    found = _judgement(reply, "f\x1b.pkl")
    (finding,) = found.findings
    assert finding.severity is Severity.HIGH
    assert finding.rule.startswith("scan.worker.")
    assert finding.subject.isprintable()
    assert finding.evidence.isprintable()


def test_what_a_parser_imports_late_is_there_before_the_child_is_locked_in():
    """A child can open nothing: an import inside of a function has to have been done before."""
    package = Path(modelkeep.__file__).parent
    late = set()
    for path in [*(package / "scan").glob("*.py"), package / "kernels" / "formats.py"]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef):
                for node in ast.walk(function):
                    if isinstance(node, ast.Import):
                        late |= {each.name for each in node.names}
                    elif isinstance(node, ast.ImportFrom) and node.module:
                        late.add(node.module)
    program = (
        f"import sys; sys.path.insert(0, {str(package.parent)!r});"
        "import modelkeep.workers.scanner as s; s._prepare();"
        f"print([n for n in {sorted(late)!r} if n not in sys.modules])"
    )
    said = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == "[]", f"add them to {scan_process.WORKER}._LATE"
