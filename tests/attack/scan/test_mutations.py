"""Goal: no damaged file crashes, hangs or bloats the worker that looks into it, as users have it.

Method: small valid files of every format (`test_fuzz.SEEDS`) are edited at random and handed to a
scanner's process, a fork each. What comes back are judgements about the files, never one about a
fork that crashed, ran out of time or said nonsense. A failure names the number of the file:
`mutated(seeds, number)` makes it again. `./run verify scan-mutations` takes 10,000.
"""

import random
import resource
import time

import pytest
from mutations import mutated

from modelkeep.adapters.scan_process import ProcessScanner
from modelkeep.ports.scanner import Unjudged
from modelkeep.scan.settings import ScanSettings
from tests.attack.scan.test_fuzz import SEEDS

BROKEN = {"scan.worker.crashed", "scan.worker.timeout", "scan.worker.answer"}
FILE_S_MAX = 10
MEMORY_BYTES_MAX = 200_000_000


def peak_bytes():
    """Of the largest process that this one started, or one of these started."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


@pytest.mark.verify("scan-mutations")
def test_a_damaged_file_is_judged_in_bounded_time_and_memory(count):
    names = list(SEEDS)
    seeds = {name: SEEDS[name]() for name in names}
    first = random.SystemRandom().randrange(1 << 48)
    numbers = range(first, first + count(200, full=10_000))
    asked, before = {}, peak_bytes()

    def damaged():
        for number in numbers:
            name = names[number % len(names)]
            asked[number] = time.monotonic()
            yield Unjudged(name, memoryview(mutated(seeds[name], number)))

    scanner = ProcessScanner()
    for number, found in zip(
        numbers, scanner.judge(damaged(), sizes={}, settings=ScanSettings()), strict=True
    ):
        rules = {each.rule for each in found.findings}
        assert not rules & BROKEN, f"file {number} of {names[number % len(names)]}: {rules}"
        assert time.monotonic() - asked.pop(number) < 6 * FILE_S_MAX, number  # others compute too
    scanner.close()
    # A process that was forked had all of ours for a moment, which counts as its own.
    ours = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert peak_bytes() <= max(before, ours, MEMORY_BYTES_MAX)
