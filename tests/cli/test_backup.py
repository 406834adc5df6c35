"""`modelkeep backup`: every other store could bring the keep back alone, or the exit says no."""

from command import PASSPHRASE, Desk

from modelkeep.sdk.keep import Keep


def test_the_second_store_gets_everything_once(one):
    (report,) = one.json("backup")
    assert report["store"] == "offsite"
    assert report["is_whole"] is True
    assert report["head"] == 1
    assert report["objects"] > 4
    (again,) = one.json("backup")
    assert (again["objects"], again["size_bytes"]) == (0, 0)
    assert "offsite: whole, head 1; copied 0 objects, 0 B" in one.run("backup").out
    assert one.kinds().count("backup.done") == 3


def test_only_what_is_new_is_copied(one):
    first = one.json("backup")[0]["size_bytes"]
    one.run("alias", "digits:prod", "1")
    assert one.json("backup")[0]["objects"] == 0
    one.admit(2)
    second = one.json("backup")[0]
    assert 0 < second["size_bytes"] < 2 * first


def test_a_keep_with_one_store_is_told_that_nothing_would_survive(tmp_path):
    desk = Desk.made(tmp_path, second=False)
    assert "nothing would survive" in desk.run("backup").out
    assert desk.json("backup") == []


def test_a_store_that_is_away_is_said_and_the_keep_works_on(one):
    one.offsite.rename(one.folder / "unplugged")
    one.offsite.write_bytes(b"no folder")
    (report,) = one.json("backup", wanted=6)
    assert report["store"] == "offsite"
    assert report["error"]
    assert report["is_whole"] is False
    assert "backup.failed" in one.kinds()
    assert one.admit(2)["version"] == 2
    one.offsite.unlink()
    (one.folder / "unplugged").rename(one.offsite)
    assert one.json("backup")[0]["is_whole"] is True


def test_an_object_that_the_second_store_cut_short_is_replaced(one):
    one.run("backup")
    for path in (one.offsite / "pack").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-1])
    (report,) = one.json("backup")
    assert (report["replaced"], report["is_whole"]) == (1, True)
    assert one.json("check", "--read-data")["findings"] == []


def test_damage_in_the_first_store_is_not_copied_over_the_second(one):
    one.run("backup")
    known = set((one.main / "pack").rglob("*"))
    one.admit(2)
    (fresh,) = [
        path for path in (one.main / "pack").rglob("*") if path.is_file() and path not in known
    ]
    raw = fresh.read_bytes()
    fresh.write_bytes(raw[:50] + bytes([raw[50] ^ 1]) + raw[51:])  # in its first chunk
    (report,) = one.json("backup", wanted=4)
    assert report["damaged"] == ["digits:2/digits-v2.onnx: vault.chunk"]
    assert "NOT WHOLE" in one.run("backup", wanted=4).out


def test_the_copy_alone_holds_every_object_that_the_head_needs(one, tmp_path):
    one.run("backup")
    for path in sorted(one.main.rglob("*"), reverse=True):
        if path.is_file() and "ledger" not in path.parts:
            path.unlink()
    with Keep(one.keep, passphrase=PASSPHRASE) as keep:
        keep.restore("digits:1", tmp_path / "out")
