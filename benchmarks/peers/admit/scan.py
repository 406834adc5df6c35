"""Judges files with one of the anchors, in one warm process in its own environment.

`scan.py TOOL`: a line of JSON in (`path`, `is_folder`), a line of JSON out: whether the tool raises
an alarm, whether it says that it could not look, and the seconds it took. Each tool is called
through its Python interface, as its command line calls it.
"""

import json
import logging
import os
import sys
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "NO_ANALYTICS": "1"}
os.environ["PROMPTFOO_DISABLE_TELEMETRY"] = "1"
ALARMS = ("warning", "critical")  # of modelaudit; the rest is for information

Judge = Callable[[str, bool], tuple[bool, bool]]


def picklescan() -> Judge:
    """It says how many issues there are."""
    from picklescan.scanner import scan_directory_path, scan_file_path  # noqa: PLC0415

    def judge(path: str, is_folder: bool) -> tuple[bool, bool]:  # noqa: FBT001
        found = (scan_directory_path if is_folder else scan_file_path)(path)
        return found.issues_count > 0, bool(found.scan_err)

    return judge


def modelscan() -> Judge:
    """It says how many issues there are."""
    from modelscan.modelscan import ModelScan  # noqa: PLC0415

    def judge(path: str, _: bool) -> tuple[bool, bool]:  # noqa: FBT001
        found = ModelScan().scan(Path(path))
        return found["summary"]["total_issues"] > 0, bool(found["errors"])

    return judge


def fickling() -> Judge:
    """Zip archives go to its scan of archives; what it cannot read as a pickle is no alarm."""
    from fickling.loader import scan_file, scan_zip_archive  # noqa: PLC0415

    def of_file(path: str) -> tuple[bool, bool]:
        if zipfile.is_zipfile(path):
            found = list(scan_zip_archive(path, graceful=True).values())
        else:
            found = [scan_file(path, graceful=True)]
        alarm = any(each.results and not each.is_safe for each in found)
        return alarm, any(each.errors for each in found)

    def judge(path: str, is_folder: bool) -> tuple[bool, bool]:  # noqa: FBT001
        files = [each for each in Path(path).rglob("*") if each.is_file()] if is_folder else [path]
        found = [of_file(str(each)) for each in files]
        return any(alarm for alarm, _ in found), any(failed for _, failed in found)

    return judge


def modelaudit() -> Judge:
    """Its cache is off; an alarm is a warning or worse."""
    from modelaudit.core import scan_model_directory_or_file  # noqa: PLC0415

    def judge(path: str, _: bool) -> tuple[bool, bool]:  # noqa: FBT001
        found = scan_model_directory_or_file(path, cache_enabled=False)
        alarm = any(str(each.severity.value) in ALARMS for each in found.issues)
        return alarm, bool(found.has_errors)

    return judge


def main() -> None:
    """Answer each line until there is none."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a tool prints is no answer
    warnings.simplefilter("ignore")
    judge = {each.__name__: each for each in (picklescan, modelscan, fickling, modelaudit)}[
        sys.argv[1]
    ]()
    logging.disable(logging.CRITICAL)
    for line in sys.stdin:
        asked = json.loads(line)
        started = time.perf_counter()
        try:
            alarm, failed = judge(asked["path"], asked["is_folder"])
        except Exception:  # noqa: BLE001  # what it says of a file that it cannot read
            alarm, failed = False, True
        said = {"alarm": alarm, "failed": failed, "seconds": time.perf_counter() - started}
        print(json.dumps(said), file=answers, flush=True)


if __name__ == "__main__":
    main()
