"""`modelkeep principals`: who is known, and what their keys may do at most."""


def test_a_principals_life(desk):
    facts = desk.json("principals", "new", "alice", "--role", "caller", "--role", "scraper")
    wanted = {"name": "alice", "tenant": "default", "roles": ["caller", "scraper"]}
    assert facts == {**wanted, "disabled": False}
    assert desk.json("tokens", "new", "alice")["scopes"] == ["infer:*", "metrics"]
    assert "caller" in desk.run("principals", "set", "alice", "--role", "caller").out
    assert "disabled alice" in desk.run("principals", "disable", "alice").out
    assert "disabled" in desk.run("principals", "list").out
    assert desk.refusal("tokens", "new", "alice", wanted=3) == "principal.disabled"
    assert "enabled alice" in desk.run("principals", "enable", "alice").out
    assert desk.json("principals", "list") == [{**wanted, "roles": ["caller"], "disabled": False}]
    kinds = [kind for kind in desk.kinds() if kind.startswith("principal.")]
    assert [kind[10:] for kind in kinds] == ["created", "changed", "disabled", "enabled"]


def test_a_key_beyond_its_holders_roles_is_refused(desk):
    desk.run("principals", "new", "alice", "--role", "scraper")
    words = ("tokens", "new", "alice", "--scope", "infer:*")
    assert desk.refusal(*words, wanted=3) == "token.beyond"


def test_who_is_not_registered_cannot_be_changed(desk):
    assert desk.refusal("principals", "disable", "eve", wanted=5) == "principal.unknown"
    assert desk.refusal("principals", "new", "eve", "--role", "king", wanted=5) == "role.unknown"
