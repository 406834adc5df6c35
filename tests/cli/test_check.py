"""`modelkeep check`: whatever is wrong with a store is found, named, and repaired when asked."""

import pytest


@pytest.fixture
def kept(one):
    one.run("backup")
    return one


def some_pack(store):
    return next(path for path in (store / "pack").rglob("*") if path.is_file())


def test_a_whole_keep_is_whole(kept):
    report = kept.json("check")
    assert report["findings"] == []
    assert report["objects"] > 10
    deep = kept.json("check", "--read-data")
    assert deep["size_bytes"] > report["size_bytes"]
    assert kept.run("check").out.startswith("whole: ")
    assert "every byte read" in kept.run("check", "--read-data").out


def test_a_flipped_bit_in_a_pack_is_found_where_data_is_read_and_repaired_if_asked(kept):
    pack = some_pack(kept.offsite)
    good = pack.read_bytes()
    pack.write_bytes(good[:100] + bytes([good[100] ^ 4]) + good[101:])
    report = kept.json("check", "--read-data", wanted=4)
    (finding,) = report["findings"]
    assert finding["subject"] == f"offsite:{pack.relative_to(kept.offsite)}"
    assert finding["severity"] == "high"
    said = kept.run("check", "--read-data", wanted=4).out
    assert "DAMAGED" in said
    assert pack.name in said
    repaired = kept.json("check", "--read-data", "--repair")
    assert repaired["repaired"] == 1
    assert repaired["whole"] == ["digits:1"]
    assert not pack.exists()  # the other store encodes in its own way: it was made again
    assert kept.json("check", "--read-data")["findings"] == []
    assert "vault.healed" in kept.kinds()


@pytest.mark.parametrize("kind", ["pack", "index", "recipe", "envelope", "snapshot"])
@pytest.mark.parametrize("side", ["main", "offsite"])
def test_a_missing_object_of_any_kind_is_found_and_repaired(kept, kind, side):
    store = getattr(kept, side)
    victim = next(path for path in sorted((store / kind).rglob("*")) if path.is_file())
    good = victim.read_bytes()
    victim.unlink()
    report = kept.json("check", wanted=4)
    assert any(f"{side}:{kind}/" in each["subject"] for each in report["findings"])
    kept.run("check", "--repair")
    if kind not in ("pack", "index"):  # of those each store has its own: they are made again
        assert victim.read_bytes() == good
    assert kept.json("check", "--read-data")["findings"] == []


@pytest.mark.parametrize("side", ["main", "offsite"])
def test_a_missing_keyring_is_brought_back_by_whatever_opens_the_keep(kept, side):
    (victim,) = (getattr(kept, side) / "keyring").iterdir()
    good = victim.read_bytes()
    victim.unlink()
    kept.run("models")
    assert victim.read_bytes() == good
    assert kept.json("check", "--read-data")["findings"] == []
    (healed,) = kept.entries("vault.healed")
    assert (healed["facts"]["store"], healed["facts"]["code"]) == (side, "keyring")


def test_what_modelkeep_never_wrote_is_named(kept):
    (kept.offsite / "notes.txt").write_bytes(b"hello")
    report = kept.json("check", wanted=4)
    assert [each["subject"] for each in report["findings"]] == ["offsite:notes.txt"]


def test_a_store_that_waits_for_its_next_backup_is_said_to_be_behind_and_is_no_damage(kept):
    kept.admit(2)
    report = kept.json("check")
    assert [each["rule"] for each in report["findings"]] == ["check.behind"]
    assert "modelkeep backup" in kept.run("check").out


def test_damage_in_both_stores_cannot_be_repaired_and_the_exit_code_says_so(kept):
    for store in (kept.main, kept.offsite):
        pack = some_pack(store)
        pack.write_bytes(pack.read_bytes()[:100])
    report = kept.json("check", "--read-data", "--repair", wanted=4)
    assert [each["version"] for each in report["lost"]] == ["digits:1"]


def test_a_share_of_the_packs_is_read(kept):
    assert "10 % read" in kept.run("check", "--read-data=10%").out
    assert kept.refusal("check", "--read-data=200%", wanted=2) == "usage.share"
