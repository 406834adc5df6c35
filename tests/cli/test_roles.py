"""`modelkeep roles`: names for sets of scopes."""


def test_a_roles_life(desk):
    words = ("roles", "define", "night", "--scope", "metrics", "--scope", "infer:digits")
    assert desk.json(*words) == {"name": "night", "scopes": ["infer:digits", "metrics"]}
    assert "infer:digits, metrics" in desk.run("roles", "list").out
    names = [each["name"] for each in desk.json("roles", "list")]
    assert names == ["approver", "auditor", "caller", "night", "operator", "scraper"]
    assert "removed night" in desk.run("roles", "remove", "night").out
    assert desk.json("roles", "remove", "night") == {"name": "night", "removed": False}


def test_built_in_roles_stay(desk):
    words = ("roles", "define", "caller", "--scope", "metrics")
    assert desk.refusal(*words, wanted=2) == "role.built_in"
