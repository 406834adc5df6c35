"""`modelkeep models`: what the keep holds, for people and for programs."""

from command import modelkeep


def test_an_empty_keep_holds_no_model(desk):
    assert desk.json("models") == []
    assert desk.run("models").out.split()[0] == "model"


def test_every_version_is_listed_with_its_aliases(one):
    one.admit(2)
    one.admit(1, name="another")
    one.run("alias", "digits:prod", "2")
    found = one.json("models")
    assert [(each["name"], each["version"], each["aliases"]) for each in found] == [
        ("another", 1, []),
        ("digits", 1, []),
        ("digits", 2, ["prod"]),
    ]
    assert all(each["digest"].startswith("blake3:") for each in found)
    said = one.run("models").out
    assert "digits:2" in said
    assert "prod" in said


def test_a_name_in_the_table_is_whole_however_narrow_the_screen(desk, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    name = "a-model-with-a-rather-long-name-that-somebody-has-to-type"
    desk.admit(name=name)
    assert f"{name}:1" in desk.run("models").out


def test_base_and_note_are_kept(one):
    from onnx_models import two_models  # noqa: PLC0415

    words = ("--name", "digits", "--base", "digits:1", "--note", "tuned on more digits")
    one.run("admit", two_models()[1], *words)
    newest = one.json("models")[-1]
    assert (newest["base"], newest["note"]) == ("digits:1", "tuned on more digits")


def test_no_keep_is_missing(tmp_path):
    refused = modelkeep("--keep", tmp_path, "models", "--json", wanted=5)
    assert refused.error["code"] == "keep.missing"


def test_a_passphrase_file_that_is_missing_is_a_usage_error(desk, tmp_path):
    words = ("--keep", desk.keep, "--passphrase-file", tmp_path / "no", "models", "--json")
    assert modelkeep(*words, wanted=2).error["code"] == "passphrase.file"


def test_a_configuration_with_an_unknown_key_is_refused_with_its_name(desk):
    desk.configure("replicas = 2", "replicaz = 2")
    code = desk.refusal("models", wanted=2)
    assert code == "config.key"
    assert "replicaz" in desk.run("models", wanted=2).err


def test_a_damaged_state_says_how_it_is_made_anew(one):
    for path in one.keep.glob("state.db*"):
        path.write_bytes(b"not a database" * 100)
    assert one.refusal("models", wanted=4) == "state.damaged"
    assert "state rebuild" in one.run("models", "--json", wanted=4).error["hint"]
    one.run("state", "rebuild")
    assert len(one.json("models")) == 1


def test_another_keeps_configuration_does_not_fit_these_stores(desk):
    text = desk.config.read_text()
    desk.config.write_text(text.replace(text.split('"')[1], "0123456789abcdef"))
    assert desk.refusal("models", wanted=4) == "keep.identity"
