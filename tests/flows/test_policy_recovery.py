"""Policies through a disaster: what is compared is what may leave, and no stored program is run."""

import pytest
from command import Desk
from onnx_models import trained_models, two_models

from modelkeep.adapters.attestation_settings import AttestationSettings
from modelkeep.config import parsed_config
from modelkeep.ports.keyholder import Means
from modelkeep.sdk.restoration import Plan, _config_text

STORED = """keep_id = "0123456789abcdef"
[[stores]]
label = "main"
path = "stores/main"
[attestation]
attester = "exec:/tmp/what-a-store-says"
anchors = ["/a.pub"]
measurements = ["a=1"]
"""


def test_an_attester_that_a_store_names_is_not_in_the_recovered_configuration(tmp_path):
    config = parsed_config(STORED.encode(), what="the store's")
    plan = Plan(target=tmp_path / "keep", source=tmp_path / "store", means=Means())
    text = _config_text(plan, config, STORED.encode())
    assert b"what-a-store-says" not in text
    assert parsed_config(text, what="the recovered").attestation == AttestationSettings()


def test_a_version_is_made_only_from_one_that_permits_it(tmp_path):
    desk = Desk.made(tmp_path, second=False)
    policy = tmp_path / "policy.toml"
    policy.write_text('uses = ["serve"]\n')
    first, second = two_models()
    desk.run("admit", first, "--name", "m", "--policy", policy)
    (tmp_path / "tuned.bin").write_bytes(b"tuned")
    assert desk.refusal("admit", second, "--name", "n", "--base", "m:1", wanted=3) == "policy.use"
    words = ("save", tmp_path / "tuned.bin", "--name", "s", "--base", "m:1")
    assert desk.refusal(*words, wanted=3) == "policy.use"
    desk.run("admit", second, "--name", "n", "--base", "elsewhere:7")


@pytest.mark.slow
def test_a_drill_proves_a_model_of_which_less_leaves(tmp_path):
    desk = Desk.made(tmp_path)
    policy = tmp_path / "policy.toml"
    for name, model in zip(("rounded", "labels"), trained_models()[1], strict=True):
        policy.write_text(f'output = "{name}"\ndecimals = 1\n')
        words = ("--name", name, "--canary", model.canary, "--policy", policy)
        desk.run("admit", model.file, *words)
    desk.run("backup")
    found = desk.run("drill", "--json").lines[-1]["result"]
    assert [each["is_proven"] for each in found["probes"]] == [True, True]
