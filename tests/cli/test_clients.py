"""`modelkeep clients`: a machine gets a file that hands things in, until it is revoked."""

import json
import stat
import time

import pytest

NS_PER_DAY = 86_400 * 10**9


def test_a_client_gets_a_file_that_only_its_owner_reads_and_that_exists_once(desk):
    out = desk.folder / "trainer.client"
    made = desk.json("clients", "add", "trainer", "--out", out)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    file = json.loads(out.read_text())
    assert file["store"] == str(desk.main)
    assert made["file"] == str(out)
    (listed,) = desk.json("clients", "list")
    assert (listed["client"], listed["client_id"]) == ("trainer", made["client_id"])
    said = str(made) + str(listed) + desk.run("clients", "list").out + str(desk.entries())
    assert file["seed"] not in said
    assert not any(file["seed"].encode() in raw for raw in desk.files().values())


def test_a_file_that_is_there_stays_and_no_client_is_made(desk):
    out = desk.folder / "trainer.client"
    out.write_text("mine")
    assert desk.refusal("clients", "add", "x", "--out", out, wanted=2) == "file.exists"
    assert out.read_text() == "mine"
    assert desk.json("clients", "list") == []


@pytest.mark.parametrize(("text", "days"), [("90d", 90), ("12h", 0.5), ("never", None)])
def test_a_client_expires_when_it_was_said_to(desk, text, days):
    before_ns = time.time_ns()
    out = desk.folder / "c"
    made = desk.json("clients", "add", "trainer", "--out", out, "--expires", text)
    if days is None:
        assert made["expires_ns"] == 0
        assert "never" in desk.run("clients", "list").out
    else:
        assert 0 <= made["expires_ns"] - before_ns - days * NS_PER_DAY < 60 * 10**9


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("Trainer",), "client.name"),
        (("",), "client.name"),
        (("t", "--expires", "soon"), "client.expires"),
        (("t", "--expires", "0d"), "client.expires"),
        (("t", "--gib-max", "0"), "client.bounds"),
        (("t", "--gib-max", "nan"), "client.bounds"),
        (("t", "--gib-max", "1025"), "client.bounds"),
    ],
)
def test_nonsense_is_refused_and_leaves_no_file(desk, words, code):
    out = desk.folder / "c"
    assert desk.refusal("clients", "add", *words, "--out", out, wanted=2) == code
    assert not out.exists()


def test_the_store_must_be_one_of_the_keep(desk):
    out = desk.folder / "c"
    words = ("clients", "add", "t", "--out", out, "--store", "elsewhere")
    assert desk.refusal(*words, wanted=5) == "store.label"
    desk.run("clients", "add", "t", "--out", out, "--store", "offsite")
    assert json.loads(out.read_text())["store"] == str(desk.offsite)


def test_a_name_is_taken_until_its_client_is_revoked(desk):
    desk.run("clients", "add", "trainer", "--out", desk.folder / "1")
    words = ("clients", "add", "trainer", "--out", desk.folder / "2")
    assert desk.refusal(*words, wanted=2) == "client.exists"
    for _ in range(2):
        assert desk.json("clients", "revoke", "trainer")["revoked"] is True
    assert desk.kinds().count("client.revoked") == 1
    desk.run(*words)
    assert [each["revoked"] for each in desk.json("clients", "list")].count(True) == 1
    assert "revoked" in desk.run("clients", "list").out


def test_an_unknown_client_cannot_be_revoked(desk):
    assert desk.refusal("clients", "revoke", "nobody", wanted=5) == "client.unknown"


def test_clients_are_there_again_when_state_is_rebuilt(desk):
    desk.run("clients", "add", "trainer", "--out", desk.folder / "1")
    desk.run("clients", "revoke", "trainer")
    before = desk.json("clients", "list")
    desk.run("state", "rebuild")
    assert desk.json("clients", "list") == before
