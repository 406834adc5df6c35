"""Programs of PyTorch in a real service; needs the environment for language models (2 GB).

`./run verify torch-runtime` makes it and runs all of this. What happens where torch is missing is
tried everywhere.
"""

import importlib.util
import json
import os
import signal
import ssl
import subprocess
from pathlib import Path

import numpy as np
import pytest
from command import Desk, Process, wait_until
from text_replica import ROOT, text_python
from text_service import python_with

from modelkeep.core.errors import RefusedError
from modelkeep.sdk import Client

pytestmark = pytest.mark.slow
SCHEMA = {
    "inputs": [{"name": "pixels", "dtype": "FP32", "shape": [-1, 64]}],
    "outputs": [
        {"name": "label", "dtype": "INT64", "shape": [-1]},
        {"name": "shares", "dtype": "FP32", "shape": [-1, 10]},
    ],
}
NAMES = ("exported", "scripted", "traced")


class Serving:
    """A keep with three programs, served by an environment that has torch."""

    def __init__(self, folder):
        python = text_python()
        own = python_with(python, folder / "venv")
        script = ROOT / "tests" / "support" / "torch_programs.py"
        subprocess.run([python, script, folder], check=True, capture_output=True)
        (folder / "form.json").write_text(json.dumps(SCHEMA))
        self.said = np.load(folder / "said.npz")
        self.desk = Desk.made(folder / "desk", second=False)
        self.admitted = self.desk.json("admit", folder / "m.pt2", "--name", "exported")
        for name, file in (("scripted", "script.pt"), ("traced", "traced.pt")):
            words = ("admit", folder / file, "--name", name, "--schema", folder / "form.json")
            self.desk.run(*words)
        words = ("tokens", "new", "alice", "--scope", "infer:*")
        self.key = self.desk.json(*words)["api_key"]
        self.process = Process(*self.desk.words("serve", "--json"), python=own)
        self.url = self.process.event("ready")["url"]

    def replicas(self, name):
        told = json.loads((self.desk.keep / "run" / "service.json").read_bytes())["processes"]
        return [pid for each, pid in told.items() if each.startswith(f"replica-{name}-")]

    def client(self):
        return Client(server=self.url, api_key=self.key, ca=self.desk.keep / "ca.pem")


@pytest.fixture(scope="module")
def serving(count, tmp_path_factory):
    if not count(0, full=1):
        pytest.skip("needs an environment of 2 GB: ./run verify torch-runtime")
    made = Serving(tmp_path_factory.mktemp("torch"))
    yield made
    made.process.clean()


def demand_same(serving, answer, rows):
    """To the last bits but a few: rows are answered in whatever company they come."""
    labels, shares = answer.values()
    assert np.array_equal(labels, serving.said[f"labels{rows}"])
    assert np.abs(shares - serving.said[f"shares{rows}"]).max() < 1e-6


@pytest.mark.verify("torch-runtime")
@pytest.mark.parametrize("name", NAMES)
def test_a_program_says_what_torch_says(serving, name):
    with serving.client() as client:
        model = client.load_model(name)
        for rows in (1, 3, 64):
            demand_same(serving, model.predict(serving.said[f"x{rows}"]), rows)


@pytest.mark.verify("torch-runtime")
def test_a_public_client_gets_it_too(serving):
    import tritonclient.http as triton  # noqa: PLC0415

    context = ssl.create_default_context(cafile=str(serving.desk.keep / "ca.pem"))
    client = triton.InferenceServerClient(
        serving.url.removeprefix("https://"), ssl=True, ssl_context_factory=lambda: context
    )
    asked = triton.InferInput("pixels", [3, 64], "FP32")
    asked.set_data_from_numpy(serving.said["x3"])
    headers = {"Authorization": f"Bearer {serving.key}"}
    found = client.infer("scripted", [asked], headers=headers)
    assert np.array_equal(found.as_numpy("label"), serving.said["labels3"])
    assert np.abs(found.as_numpy("shares") - serving.said["shares3"]).max() < 1e-6
    client.close()


@pytest.mark.verify("torch-runtime")
def test_a_killed_replica_is_replaced_and_says_the_same(serving):
    before = serving.replicas("exported")
    os.kill(before[0], signal.SIGKILL)
    with serving.client() as client:
        demand_same(serving, client.load_model("exported").predict(serving.said["x3"]), 3)
        wait_until(
            lambda: (
                len(serving.replicas("exported")) == len(before)
                and before[0] not in serving.replicas("exported")
            ),
            60,
        )
        demand_same(serving, client.load_model("exported").predict(serving.said["x3"]), 3)


def is_locked_in(place):
    lines = (place / "status").read_text().splitlines()
    return {"Seccomp:\t2", "NoNewPrivs:\t1"} <= {*lines}


@pytest.mark.verify("torch-runtime")
def test_replicas_are_locked_in_and_have_no_file_open(serving):
    for name in NAMES:
        for pid in serving.replicas(name):
            place = Path(f"/proc/{pid}")
            wait_until(lambda at=place: is_locked_in(at), 60)  # one may just have been started
            opened = {str(each.readlink()) for each in (place / "fd").iterdir()}
            assert not [each for each in opened if each[:1] == "/" and "memfd" not in each
                        and each != "/dev/null"]  # fmt: skip


@pytest.mark.verify("torch-runtime")
def test_a_call_of_another_form_is_refused_before_it_reaches_the_program(serving):
    with serving.client() as client, pytest.raises(Exception, match=r"64|shape"):
        client.load_model("traced").predict(np.zeros((2, 60), "f4"))
    stranger = Client(server=serving.url, api_key="mk_nobody", ca=serving.desk.keep / "ca.pem")
    with stranger, pytest.raises(RefusedError):
        stranger.load_model("traced").predict(serving.said["x1"])


# ---- without torch ------------------------------------------------------------------------------


@pytest.fixture
def desk(tmp_path):
    if importlib.util.find_spec("torch") is not None:
        pytest.skip("torch is here")
    made = Desk.made(tmp_path, second=False)
    source = tmp_path / "program.pt2"
    source.write_bytes(program())
    assert made.json("admit", source, "--name", "program")["version"] == 1
    return made


def program():
    """A program's description as torch.export writes it, without its graph."""
    from tests.unit.kernels.test_torch_export import archive, document  # noqa: PLC0415

    return bytes(archive(document()))


def test_without_torch_a_program_that_was_named_is_not_served_and_the_package_is(desk):
    desk.configure("replicas = 2", 'replicas = 2\nmodels = ["program"]')
    process = Process(*desk.words("serve", "--json"))
    ended = process.ended(60)
    assert ended.status == 2
    assert ended.error["code"] == "runtime.torch"
    assert "torch is not installed" in ended.error["message"]
    assert "pip install torch" in ended.error["hint"]


def test_without_torch_a_program_that_nobody_named_is_left_out_with_a_word(desk):
    desk.configure("replicas = 2", "replicas = 1")
    desk.admit()
    process = Process(*desk.words("serve", "--json"))
    try:
        ready = process.event("ready")
    finally:
        process.interrupt()
        said = process.ended(60)
    assert "program" not in json.dumps(ready.get("models", ()))
    assert "program:1 is not served" in said.err
    assert "torch is not installed" in said.err
