"""`modelkeep stats`: what is kept, without repetition, and what each store takes for it."""


def test_the_sums_are_those_of_the_files(one):
    one.admit(1, name="copy")
    one.run("backup")
    found = one.json("stats")
    sizes = [each["size_bytes"] for each in one.json("models")]
    assert found["raw_bytes"] == sum(sizes)
    assert found["distinct_bytes"] == sizes[0]
    assert found["dedup"] == 2.0
    fast, small = found["stores"]
    assert (fast["encoding"], small["encoding"]) == ("fast", "small")
    for store, path in ((fast, one.main), (small, one.offsite)):
        packs = [each.stat().st_size for each in (path / "pack").rglob("*") if each.is_file()]
        assert store["packs_bytes"] == sum(packs)
        assert store["raw_bytes"] == sizes[0]
        assert sum(each["raw_bytes"] for each in store["encodings"]) == sizes[0]
        assert sum(each["stored_bytes"] for each in store["dtypes"]) == sum(
            each["stored_bytes"] for each in store["encodings"]
        )
    assert [each["kind"] for each in fast["encodings"]] == ["raw"]
    assert {each["kind"] for each in fast["dtypes"]} <= {"FP32", "bytes"}


def test_it_is_said_to_people(one):
    out = one.run("stats").out
    assert "1 versions" in out
    assert "per TiB" in out
    assert "raw" in out
