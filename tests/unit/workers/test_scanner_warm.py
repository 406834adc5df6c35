"""The scanner's process outlives whoever asked it."""

from modelkeep.adapters.scan_process import ProcessScanner
from modelkeep.ports.scanner import Unjudged
from modelkeep.scan.settings import ScanSettings


def asked(scanner, *raws):
    files = [Unjudged(f"{number}.txt", memoryview(raw)) for number, raw in enumerate(raws)]
    return scanner.judge(files, sizes={}, settings=ScanSettings())


def test_the_process_stays_for_the_next_one_who_asks_for_as_many_as_they_gave():
    scanner = ProcessScanner()
    came = asked(scanner, b"one", b"two")
    assert next(came).kind == next(came).kind == "unknown"
    pid = scanner.pid
    came.close()  # without asking whether there is a third one
    assert [each.kind for each in asked(scanner, b"three")] == ["unknown"]
    assert scanner.pid == pid
    scanner.close()


def test_the_process_ends_with_answers_that_nobody_waits_for():
    scanner = ProcessScanner(lanes=2)
    came = asked(scanner, *[b"text"] * 4)
    next(came)
    came.close()
    assert scanner.pid == -1
    scanner.close()
