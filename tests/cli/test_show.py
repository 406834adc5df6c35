"""`modelkeep show`: what is signed with a version."""

import json

from tensor_files import tensors, written


def test_a_version_is_shown_with_its_policy_card_and_files(desk, tmp_path):
    model = written(desk.folder / "m.safetensors", tensors(1, count=2, items=4))
    policy, card = tmp_path / "policy.toml", tmp_path / "card.toml"
    policy.write_text('uses = ["serve", "restore"]\nnot_after = 2199-01-01\noutput = "labels"\n')
    card.write_text('licence = "Apache-2.0"\n')
    made = desk.json("admit", model, "--name", "m", "--policy", policy, "--card", card)
    shown = desk.run("show", "m").out
    for text in (made["digest"], "uses: serve, restore", "2199-01-01", "labels", "Apache-2.0"):
        assert text in shown
    facts = desk.json("show", "m:1", "--tensors")
    assert facts["digest"] == made["digest"]
    assert facts["manifest"]["policy"]["uses"] == ["serve", "restore"]
    names = [each["name"] for each in facts["manifest"]["files"][0]["tensors"]]
    assert len(names) == desk.json("show", "m")["manifest"]["files"][0]["tensors"]
    assert all(name in desk.run("show", "m", "--tensors").out for name in names)
    assert json.dumps(facts)
    assert desk.refusal("show", "m:7", wanted=5) == "model.unknown"
