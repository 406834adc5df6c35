"""`modelkeep repair`: what any store still has is made good; what none has is named."""

import pytest


@pytest.fixture
def kept(one):
    one.admit(2)
    one.run("backup")
    return one


def files(store, kind):
    return [path for path in sorted((store / kind).rglob("*")) if path.is_file()]


def test_a_store_without_packs_and_indexes_is_made_again(kept):
    for kind in ("pack", "index", "recipe"):
        for path in files(kept.offsite, kind):
            path.unlink()
    report = kept.json("repair")
    assert report["repaired"] > 2
    assert report["whole"] == ["digits:1", "digits:2"] or report["whole"] == [
        "digits:2",
        "digits:1",
    ]
    assert kept.json("check", "--read-data")["findings"] == []


def test_an_index_is_made_again_from_packs_alone(kept):
    for store in (kept.main, kept.offsite):
        for path in files(store, "index"):
            path.unlink()
    before = files(kept.main, "pack")
    assert kept.json("check", wanted=4)["findings"]
    kept.run("repair")
    assert files(kept.main, "pack") == before
    assert kept.json("check", "--read-data")["findings"] == []


def test_what_no_store_has_is_named_with_its_tensors_and_what_is_whole_too(kept):
    for store in (kept.main, kept.offsite):
        for path in files(store, "pack"):
            path.write_bytes(path.read_bytes()[:100])
    report = kept.json("repair", wanted=4)
    assert {each["version"] for each in report["lost"]} == {"digits:1", "digits:2"}
    assert report["whole"] == []
    (file,) = report["lost"][0]["files"]
    assert file["size_bytes"] > 0
    assert file["tensors"]
    assert "modelkeep remove" in kept.run("repair", wanted=4).out
    assert kept.admit(1, name="other")["version"] == 1  # what is lost is stored again
    report = kept.json("repair", wanted=4)
    assert {each["version"] for each in report["lost"]} == {"digits:2"}
    assert set(report["whole"]) == {"other:1", "digits:1"}


def test_with_one_store_a_damaged_pack_that_no_index_names_is_left(one):
    """Nobody knows what it holds, and nobody else may have it."""
    (pack,) = files(one.main, "pack")
    for path in files(one.main, "index"):
        path.unlink()
    raw = bytearray(pack.read_bytes())
    raw[60] ^= 1
    pack.write_bytes(raw)
    toml = one.keep / "modelkeep.toml"
    text = toml.read_text()
    start = text.index("[[stores]]", text.index("[[stores]]") + 1)
    toml.write_text(text[:start] + text[text.index("# What holds", start) :])
    one.json("repair", wanted=4)
    assert pack.read_bytes() == raw
