"""`modelkeep ledger`: what is written, found, proven to strangers, witnessed and handed on."""

import json
import shutil

import pytest
from command import Desk, modelkeep


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A keep with a few entries of somebody's own, for tests that only read it."""
    desk = Desk.made(tmp_path_factory.mktemp("told"))
    desk.run("ledger", "append", "note.audit", "--fact", "result=passed", "--fact", "n:int=7")
    desk.run("ledger", "append", "x.ci.deployed", "--fact", "ok:bool=true", "--private", "by=Alice")
    desk.run("ledger", "append", "note.audit", "--fact", "result=a\nb", "--fact", "n:int=8")
    return desk


def index_of(desk, kind):
    return desk.run("ledger", "find", "--kind", kind, "--json").lines[0]["index"]


def keys(desk):
    return desk.json("ledger", "checkpoint")


def test_append_says_the_index_and_find_finds_it(told):
    found = told.run("ledger", "find", "--kind", "note.", "--json").lines
    assert [each["facts"] for each in found] == [
        {"result": "passed", "n": 7},
        {"result": "a\nb", "n": 8},
    ]
    assert told.run("ledger", "find", "--fact", "n=7", "--json").lines == found[:1]
    assert (
        told.run("ledger", "find", "--kind", "note.", "--limit", "1", "--json").lines == found[:1]
    )
    assert told.run("ledger", "find", "--actor", "nobody").out == ""
    at = found[1]["at_ns"] // 10**9
    since = f"{at // 31_556_952 + 1970 - 1}-01-01"
    assert (
        len(told.run("ledger", "find", "--kind", "note.", "--since", since).out.splitlines()) == 2
    )
    assert told.run("ledger", "find", "--until", "1999-12-31").out == ""
    human = told.run("ledger", "find", "--kind", "note.").out.splitlines()
    assert len(human) == 2  # a newline that somebody typed ends no line
    assert "result=a\\nb" in human[1]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("append", "token.created"), "ledger.kind"),
        (("append", "note.x", "--fact", "a"), "ledger.fact"),
        (("append", "note.x", "--fact", "a:int=x"), "ledger.fact"),
        (("append", "note.x", "--fact", "a:int=9999999999999999999999"), "ledger.fact"),
        (("append", "note.x", "--fact", "a:float=inf"), "ledger.fact"),
        (("append", "note.x", "--fact", "a:bool=1"), "ledger.fact"),
        (("append", "note.x", "--fact", "a:bytes=1"), "ledger.fact"),
        (("append", "note.x", "--fact", "a=1", "--fact", "a=2"), "ledger.twice"),
        (("find", "--since", "yesterday"), "time.form"),
        (("find", "--since", "2026-01-02", "--until", "2026-01-01"), "time.order"),
        (("find", "--fact", "n"), "ledger.query"),
        (("prove", "9" * 19), "receipt.form"),
        (("cosign", "--store", "/nowhere", "--key", "x"), "ledger.verifier_key"),
    ],
)
def test_nonsense_is_refused(told, words, code):
    assert told.refusal("ledger", *words, wanted=2) == code


def test_private_facts_are_shown_when_asked_and_gone_when_erased(tmp_path):
    desk = Desk.made(tmp_path)
    desk.run("ledger", "append", "x.ci.deployed", "--private", "by=Alice", "--private", "n:int=4")
    index = index_of(desk, "x.")
    (line,) = desk.run("ledger", "tail", "--kind", "x.").out.splitlines()
    assert "by=(private)" in line
    (entry,) = desk.run("ledger", "tail", "--kind", "x.", "--reveal", "--json").lines
    assert entry["facts"] == {"by": "Alice", "n": 4}
    done = desk.json("ledger", "erase", index, "--reason", "request 17")
    assert done["stores"] == ["main", "offsite"]
    assert "are erased" in desk.run("ledger", "erase", index, "--reason", "again").out
    (entry,) = desk.run("ledger", "tail", "--kind", "x.", "--reveal", "--json").lines
    assert entry["facts"] == {"by": "(erased)", "n": "(erased)"}
    assert desk.json("ledger", "verify")[0]["is_whole"]
    assert desk.refusal("ledger", "erase", "0", "--reason", "x", wanted=2) == "ledger.no_value"
    assert desk.refusal("ledger", "erase", "999999", "--reason", "x", wanted=5) == "ledger.no_entry"


def test_an_entry_is_proven_in_a_file_that_needs_no_keep(told, tmp_path):
    index = index_of(told, "note.")
    file = tmp_path / "entry.proof"
    told.run("ledger", "prove", index, "--output", file)
    key = keys(told)["verifier_key"]
    facts = modelkeep("ledger", "verify-proof", file, "--key", key, "--json").json
    assert facts["kind"] == "note.audit"
    assert facts["facts"] == {"result": "passed", "n": 7}
    assert "the proof holds" in modelkeep("ledger", "verify-proof", file, "--key", key).out
    text = file.read_text()
    file.write_text(text.replace("passed", "failed"))
    refused = modelkeep("ledger", "verify-proof", file, "--key", key, "--json", wanted=4)
    assert refused.error["code"] == "ledger.inclusion"
    assert told.refusal("ledger", "prove", index, "--output", file, wanted=2) == "output.exists"


def test_a_proof_says_whose_key_is_missing(told, tmp_path):
    file = tmp_path / "entry.proof"
    told.run("ledger", "prove", "0", "--output", file)
    other = Desk.made(tmp_path / "other")
    words = ("ledger", "verify-proof", file, "--key", keys(other)["verifier_key"])
    assert modelkeep(*words, "--json", wanted=2).error["code"] == "ledger.key_of_other"
    key = keys(told)["verifier_key"]
    words = ("ledger", "verify-proof", file, "--key", key, "--quorum", "1", "--json")
    assert modelkeep(*words, wanted=3).error["code"] == "ledger.quorum"
    words = ("ledger", "verify-proof", tmp_path / "no", "--key", key, "--json")
    assert modelkeep(*words, wanted=5).error["code"] == "file.missing"


def test_that_the_log_only_grew_is_proven_offline(told, tmp_path):
    old, file = tmp_path / "old.txt", tmp_path / "grown.proof"
    old.write_text(told.run("ledger", "checkpoint").out)
    assert "are what they were" in told.run("ledger", "consistency", old, "--output", file).out
    key = keys(told)["verifier_key"]
    facts = modelkeep("ledger", "verify-proof", file, "--key", key, "--json").json
    assert facts["old_size"] < facts["size"]
    assert told.json("ledger", "consistency", old)["proof"]
    assert json.loads(told.run("ledger", "consistency", old).out)["format"]
    origin, size, rest = old.read_text().split("\n", 2)
    old.write_text(f"{origin}\n{int(size) - 1}\n{rest}")
    assert told.refusal("ledger", "consistency", old, wanted=4) == "ledger.checkpoint"
    old.write_text("something else\n")
    assert told.refusal("ledger", "consistency", old, wanted=2) == "ledger.origin"


def test_another_keep_witnesses_ours(tmp_path):
    ours, other = Desk.made(tmp_path / "a"), Desk.made(tmp_path / "b")
    assert ours.refusal("ledger", "checkpoint", "--cosigned", wanted=5) == "ledger.not_witnessed"
    key, file = keys(ours)["verifier_key"], tmp_path / "cosigned.txt"
    done = other.json("ledger", "cosign", "--store", ours.main, "--key", key, "--output", file)
    assert file.read_text() == done["note"]
    assert done["witness"] == keys(other)["witness_key"]
    assert "goes on from" in other.run("ledger", "cosign", "--store", ours.main, "--key", key).out
    text = ours.config.read_text()
    ours.config.write_text(f'{text}\n[ledger.witness]\nkeys = ["{done["witness"]}"]\nquorum = 1\n')
    note = ours.run("ledger", "checkpoint", "--cosigned").out
    assert note.count("\n— ") == 2
    assert (
        f"witness {done['witness'].partition('+')[0]}: agrees" in ours.run("ledger", "verify").out
    )
    assert ours.json("ledger", "verify")[-1]["size"] >= done["size"]
    proof = tmp_path / "entry.proof"
    ours.run("ledger", "prove", "0", "--output", proof)
    words = ("verify-proof", proof, "--key", key, "--witness", done["witness"], "--quorum", "1")
    assert len(modelkeep("ledger", *words, "--json").json["cosigned"]) == 1
    empty = tmp_path / "empty"
    words = ("ledger", "cosign", "--store", empty, "--key", key)
    assert other.refusal(*words, wanted=5) == "ledger.none"
    ours.config.write_text(text + "\n[ledger.witness]\nquorum = 1\n")
    found = ours.json("ledger", "verify", wanted=4)
    assert found[-1]["findings"][0]["rule"] == "ledger.quorum"


@pytest.mark.parametrize("form", ["jsonl", "ocsf", "cef", "syslog"])
def test_entries_are_handed_to_other_tools(told, tmp_path, form):
    out = told.run("ledger", "export", "--format", form, "--kind", "note.").out
    assert len(out.splitlines()) == 2
    assert "passed" in out
    private = told.run("ledger", "export", "--format", form, "--kind", "x.").out
    assert "Alice" not in private
    assert "(private)" in private
    file = tmp_path / "events"
    told.run("ledger", "export", "--format", form, "--kind", "note.", "--output", file)
    assert file.read_text() == out
    assert told.refusal("ledger", "export", "--output", file, wanted=2) == "export.exists"
    assert list(tmp_path.iterdir()) == [file]


def test_only_listed_authorities_stamp(told):
    words = ("ledger", "timestamp", "--tsa", "http://127.0.0.1:1/")
    assert told.refusal(*words, wanted=3) == "timestamp.unlisted"


def test_the_catalogue_needs_no_keep(told):
    assert "note." in modelkeep("ledger", "kinds").out
    known = {
        each["kind"]: set(each["facts"]) for each in modelkeep("ledger", "kinds", "--json").json
    }
    for entry in told.entries():
        if not entry["kind"].startswith(("note.", "x.")):
            assert entry["facts"].keys() <= known[entry["kind"]], entry["kind"]


def test_a_keep_that_was_rolled_back_as_a_whole_does_not_open_once_a_store_elsewhere_saw_more(
    tmp_path,
):
    desk = Desk.made(tmp_path / "all")
    abroad = tmp_path / "abroad"
    settings = f'\n[[ledger.witness.stores]]\nlabel = "abroad"\npath = "{abroad}"\n'
    desk.config.write_text(desk.config.read_text() + settings)
    desk.run("ledger", "append", "note.a")
    assert "witness abroad: agrees" in desk.run("ledger", "verify").out
    shutil.copytree(tmp_path / "all", tmp_path / "yesterday")
    desk.run("ledger", "append", "note.b")
    shutil.rmtree(tmp_path / "all")
    shutil.copytree(tmp_path / "yesterday", tmp_path / "all")
    before = desk.files()
    assert desk.refusal("ledger", "verify", wanted=4) == "ledger.rolled_back"
    assert {p: raw for p, raw in desk.files().items() if "/ledger/" in str(p)} == {
        p: raw for p, raw in before.items() if "/ledger/" in str(p)
    }  # nothing new was signed


def test_a_witness_that_is_added_to_an_old_log_is_written_to_once_it_is_announced(
    desk, tmp_path, monkeypatch
):
    """Else the mount point of one that is away would become a witness that knows nothing."""
    monkeypatch.setattr("modelkeep.flows.witnessed.NEW_LOG_ENTRIES", 1)
    abroad = tmp_path / "abroad"
    settings = f'\n[[ledger.witness.stores]]\nlabel = "abroad"\npath = "{abroad}"\n'
    desk.config.write_text(desk.config.read_text() + settings)
    said = desk.run("ledger", "append", "note.a").err
    assert "the witness abroad holds nothing of this log" in said
    assert "witness.empty" in said
    assert not abroad.exists()
    words = ("ledger", "verify", "--new-witness")
    assert "witness.unlisted" in desk.run(*words, "another", wanted=2).err
    assert "witness abroad: agrees" in desk.run(*words, "abroad").out
    assert "witness abroad" not in desk.run("ledger", "append", "note.b").err
    assert len(list(abroad.rglob("0*"))) > 1
