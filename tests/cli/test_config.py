"""`modelkeep config explain`: every key of modelkeep.toml, with what it means."""

from command import modelkeep


def test_every_key_is_explained_without_any_keep():
    keys = {each["key"]: each for each in modelkeep("config", "explain", "--json").json}
    assert {"keep_id", "stores[].path", "serve.port", "objectives.rpo_s_max"} <= keys.keys()
    assert all(each["meaning"] and each["type"] for each in keys.values())
    assert keys["serve.port"]["default"] == "8443"
    assert keys["keep_id"]["default"] == "required"


def test_people_get_a_table_with_the_whole_name_of_every_key():
    said = modelkeep("config", "explain").out
    names = [each["key"] for each in modelkeep("config", "explain", "--json").json]
    assert not [name for name in names if name not in said]


def test_config_alone_is_a_usage_error():
    assert "usage: modelkeep config" in modelkeep("config", wanted=2).err
