"""`modelkeep issuers`: what modelkeep.toml names, taken out of force and back without a restart."""

ISSUER = """
[[identity.issuers]]
label = "corp"
issuer = "https://login.corp.example"
audience = "modelkeep"
scopes = ["infer:*"]
hosts = ["login.corp.example"]

[serve]"""


def test_an_issuer_is_listed_disabled_and_enabled(desk):
    desk.configure("\n[serve]", ISSUER)
    (listed,) = desk.json("issuers", "list")
    assert (listed["label"], listed["scopes"], listed["disabled"]) == ("corp", ["infer:*"], False)
    assert desk.json("issuers", "disable", "corp")["disabled"]
    assert "disabled" in desk.run("issuers", "list").out
    assert "enabled corp" in desk.run("issuers", "enable", "corp").out
    kinds = [kind for kind in desk.kinds() if kind.startswith("issuer.")]
    assert kinds == ["issuer.disabled", "issuer.enabled"]


def test_an_issuer_that_is_not_configured_cannot_be_changed(desk):
    assert desk.refusal("issuers", "disable", "corp", wanted=5) == "issuer.unknown"
