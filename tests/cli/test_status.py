"""`modelkeep status`: one screen that says what the keep holds and how its stores are doing."""

from command import Desk


def test_an_idle_keep_is_not_served(one):
    one.run("alias", "digits:prod", "1")
    facts = one.json("status")
    assert facts["served"] is False
    assert facts["service"] is None
    assert facts["models"] == ["digits:1"]
    assert facts["aliases"] == ["digits:prod -> 1"]
    assert facts["head"] == 1
    said = one.run("status").out
    assert "service  not running" in said
    assert "models   digits:1" in said


def test_a_store_that_is_behind_says_what_to_do(one):
    assert (
        "store    offsite: head 0, 1 commits behind: run `modelkeep backup`"
        in one.run("status").out
    )
    one.run("backup")
    assert one.run("status").out.count("up to date") == 2
    assert [each["head"] for each in one.json("status")["stores"]] == [1, 1]


def test_a_store_that_is_away_is_no_reason_to_say_nothing(one):
    one.offsite.rename(one.folder / "unplugged")
    one.offsite.write_bytes(b"no folder")
    said = one.run("status")
    assert "store    offsite" in said.out


def test_a_new_keep_holds_nothing(tmp_path):
    desk = Desk.made(tmp_path, second=False)
    said = desk.run("status").out
    assert "models   none" in said
    assert "aliases  none" in said


def test_what_a_killed_service_left_is_not_taken_for_a_running_one(one):
    (one.keep / "run" / "service.json").write_text('{"url":"https://127.0.0.1:1","processes":{}}')
    (one.keep / "run" / "serve.lock").write_bytes(b"")
    assert one.json("status")["service"] is None
