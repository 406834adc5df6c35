"""An outside judge of the HTTP surface: schemathesis generates calls from our own OpenAPI document.

Good and bad calls alike: every answer must be one that the document names, with the body that it
says, never a 5xx; a call that the document forbids must be refused, and none without a key let in.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from gateway_world import started
from small_onnx import small_onnx

from modelkeep.core.artifact import Port, Schema
from modelkeep.gate.settings import GateSettings

pytestmark = pytest.mark.slow
SMALL = Schema(
    inputs=(Port(name="x", dtype="FP32", shape=(-1, 4)),),
    outputs=(Port(name="y", dtype="FP32", shape=(-1, 4)),),
)
JUDGE = Path(sys.executable).with_name("schemathesis")
SEEDS = (1, 2, 3, 5, 8)
GENERATED = re.compile(r"(\d+) generated")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keep")
    model = small_onnx(folder / "small.onnx").read_bytes()
    running = started(
        folder / "keep", model=model, schema=SMALL, settings=GateSettings(), replica_count=1
    )
    running.wait_ready()
    yield running
    running.stop()


def judged(world, folder, *, seed, examples):
    """Run the judge: what it said and how many calls it made."""
    done = subprocess.run(
        [
            JUDGE, "run", f"{world.url}/openapi.json", f"--tls-verify={world.ca_path}",
            f"--header=Authorization: Bearer {world.key}", f"--seed={seed}",
            f"--max-examples={examples}", "--phases=examples,coverage,fuzzing", "--checks=all",
            "--continue-on-failure", "--no-shrink", "--no-color", "--workers=1",
            "--suppress-health-check=all", "--generation-database=none",
        ],
        cwd=folder, capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip
    found = GENERATED.search(done.stdout)
    return done, int(found[1]) if found else 0


@pytest.mark.verify("openapi")
@pytest.mark.skipif(not JUDGE.exists(), reason="schemathesis is not installed")
def test_every_generated_call_gets_an_answer_that_the_document_names(world, tmp_path, count):
    wanted = count(500, full=2000)
    for seed in SEEDS[: count(1, full=len(SEEDS))]:
        done, made = judged(world, tmp_path, seed=seed, examples=count(10, full=200))
        assert done.returncode == 0, f"seed {seed}: {done.stdout[-6000:]}{done.stderr[-2000:]}"
        assert made >= wanted, f"seed {seed}: only {made} calls"
