"""Our own dangerous files and their benign twins (`tests/corpus`), judged by everybody.

That each of them acts when its loader loads it, and its twin does not, is proven where they are
kept; here they are only scanned.
"""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from _admit_anchors import GRAVER, TOOLS, python_of, served

from modelkeep.scan.settings import ScanSettings
from modelkeep.sdk.scanning import scanned_paths

ROOT = Path(__file__).resolve().parent.parent
CASES_LEAST = 150
FILE_S = 20.0  # of a tool for one case
SETTINGS = ScanSettings()
Written = tuple[str, str, Path]  # format, name, what is scanned


def measured(folder: Path, *, is_quick: bool) -> dict[str, Any]:
    """What everybody says of each case and of its twin."""
    try:
        sets = written(folder)
    except ImportError as error:
        return {"missing": f"tests/corpus cannot be made here: {error}"}
    found: dict[str, Any] = {"tools": {}}
    for kind, cases in sets.items():
        decisions = {name: decision_of(path) for _, name, path in cases}
        found[kind] = {"cases": len(cases), **Counter(decisions.values())}
        wrong = ("allow",) if kind == "dangerous" else ("hold", "deny")
        found[f"{kind}, wrong"] = {k: v for k, v in decisions.items() if v in wrong}
        found[f"{kind}, formats"] = Counter(form for form, _, _ in cases)
        for tool in () if is_quick else TOOLS:
            python = python_of(tool)
            if python is not None:
                count = sum(alarms(python, tool, cases))
                found["tools"].setdefault(tool, {})[kind] = count
    return found


def written(folder: Path) -> dict[str, list[Written]]:
    """Write all cases and all twins."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]
    from tests.corpus.corpus import corpus  # noqa: PLC0415  # it needs what tests need
    from tests.corpus.proving import written as write  # noqa: PLC0415

    sets: dict[str, list[Written]] = {"dangerous": [], "twins": []}
    for case in corpus(folder / "traps"):
        for kind, files in (("dangerous", case.dangerous), ("twins", case.twin)):
            place = folder / kind / case.name
            write(place, files)
            path = place / case.main if len(files) == 1 and case.main else place
            sets[kind].append((case.format, case.name, path))
    return sets


def decision_of(path: Path) -> str:
    """The gravest decision over the files of a case."""
    found = (each.verdict.decision for each in scanned_paths([path], SETTINGS))
    return str(max(found, key=GRAVER.__getitem__))


def alarms(python: Path, tool: str, cases: list[Written]) -> Iterator[bool]:
    """Whether a tool raises an alarm; a case that it hangs on, or that ends it, gives no word."""
    left = deque(path for _, _, path in cases)
    while left:
        with (
            suppress(TimeoutError, RuntimeError),
            served(python, "scan.py", tool, answer_s=FILE_S) as ask,
        ):
            while left:
                path = left.popleft()
                yield ask(path=str(path), is_folder=path.is_dir())["alarm"]


def bars(found: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    """What the issue demands of the corpus."""
    if "missing" in found:
        return [("our own corpus", "not measured", "all", False)]
    count = found["dangerous"]["cases"]
    missed, wrong = len(found["dangerous, wrong"]), len(found["twins, wrong"])
    return [
        ("cases of our own corpus", str(count), f">= {CASES_LEAST}", count >= CASES_LEAST),
        ("of these let in", str(missed), "0", not missed),
        ("of their twins stopped", str(wrong), "0", not wrong),
    ]


def show(found: dict[str, Any]) -> None:
    """Print the counts and everything that is wrong."""
    if "missing" in found:
        print(found["missing"])
        return
    formats = ", ".join(f"{count} {form}" for form, count in found["dangerous, formats"].items())
    print(f"\nour own corpus: {formats}")
    for kind in ("dangerous", "twins"):
        facts = found[kind]
        stopped = facts.get("deny", 0) + facts.get("hold", 0)
        others = ", ".join(f"{tool} {each[kind]}" for tool, each in found["tools"].items())
        ours = f"modelkeep {stopped} ({facts.get('deny', 0)} denied)"
        print(f"  {kind:10}{facts['cases']:5} cases, alarms: {ours}, {others}")
        for name, decision in found[f"{kind}, wrong"].items():
            print(f"    {name}: {decision}")
