"""`modelkeep lineage`: what a version was made from, and what was made from it."""


def test_a_lineage_is_shown_both_ways_and_what_is_gone_is_said(three):
    found = three.json("lineage", "lm:2")
    assert [each["reference"] for each in found["bases"]] == ["lm:1"]
    assert [each["reference"] for each in found["descendants"]] == ["lm:3"]
    three.run("remove", "lm:1")
    said = three.run("lineage", "lm:3").out.splitlines()
    assert said[0].startswith("lm:3  safetensors  ")
    assert said[1] == "made from"
    assert said[2].startswith("  lm:2  ")
    assert said[3] == "    lm:1  (removed from this keep)"
    assert three.refusal("lineage", "nobody", wanted=5) == "model.unknown"
