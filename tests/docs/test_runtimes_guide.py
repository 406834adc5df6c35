"""The guide to runtimes: its commands run, its form is taken, its example of output is one."""

import json
import re
import shlex

import joblib
import pytest
from command import Desk, modelkeep
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier

from modelkeep.adapters.conversion_process import MEMORY_BYTES, WAIT_S
from modelkeep.flows.sanity import parsed_declared
from modelkeep.kernels.agreement import FREE, ROWS
from modelkeep.sdk.conversion import _PACKAGES
from tests.arch.source import ROOT

PAGE = (ROOT / "docs" / "guide" / "runtimes.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_commands_run_and_say_what_the_page_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    desk = Desk.made(tmp_path, second=False)
    rows, labels = load_digits(return_X_y=True)
    joblib.dump(RandomForestClassifier(3, random_state=1).fit(rows, labels), "forest.joblib")
    said = []
    for line in "".join(blocks("sh")).splitlines():
        program, *words = shlex.split(line)
        said.append((desk.run if program == "mk" else modelkeep)(*words).out)
    (shown,) = [block for block in blocks("text") if block.startswith("wrote")]
    form = re.compile(r"[\d.]+(?:e-\d+)?( [KM]?i?B)?")
    assert form.sub("N", said[0]) == form.sub("N", shown)


def test_the_form_on_the_page_is_taken():
    (form,) = blocks("json")
    found = parsed_declared(form.encode(), what="the page")
    assert json.loads(form)["inputs"][0]["name"] == found.inputs[0].name


def test_the_page_names_what_is_to_be_installed_and_the_bounds():
    for packages in _PACKAGES.values():
        for package in packages.values():
            assert f"`{package}`" in PAGE
    assert f"batches of {', '.join(map(str, ROWS))} random rows" in PAGE
    assert f"not the first is {FREE}." in PAGE
    assert (MEMORY_BYTES >> 30, WAIT_S) == (8, 600)
